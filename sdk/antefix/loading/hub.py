"""A repository of the Hugging Face hub, fetched once into the hub library's own cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.errors import BaseError, BaseNotFound, BaseUnavailable
from antefix.loading.base_folder import weight_files
from antefix.wire.release import ENDINGS

# Neither code nor pickles are ever fetched.
_WANTED = [f"*.{ending}" for ending in ENDINGS]
# Other formats lie in folders, and some publishers store the weights a second time.
_UNWANTED = ["*/*", "consolidated*", "model.fp16*", "model.bf16*"]


def fetch_repository(name: str, hint: str, progress: bool) -> Path:
    """Return the folder of a repository's files; from the cache without any network, if it is there.

    Args:
        name: a hub id.
        hint: what else the user may have meant.
        progress: show the hub's bars.

    Raises:
        BaseNotFound: not a hub id, or the hub knows no such repository.
        BaseUnavailable: the hub could not be reached, or wants a login.
    """
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        cached = _cached(name)
        return cached if cached is not None else _download(name, progress)
    except HFValidationError as error:
        raise BaseNotFound(
            f"{name!r} is no catalogue name, no folder, and cannot be a hub id", hint
        ) from error
    except GatedRepoError as error:
        raise BaseUnavailable(
            f"the hub gives {name!r} only to users it knows", "log in: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseNotFound(
            f"{name!r} is no catalogue name, no folder, and the hub does not know it", hint
        ) from error
    # A download fails in as many ways as its libraries have errors: connection, chunk, disk …
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BaseUnavailable(
            f"{name!r} is no catalogue name and no folder, and the hub could not be asked: {reason[0]}",
            f"connect once, or download the repository elsewhere and give its folder; {hint}",
        ) from error


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=True
        )
        weight_files(Path(folder))  # a snapshot may hold only what others asked for
    except (LocalEntryNotFoundError, BaseError):
        return None
    return Path(folder)


def _download(name: str, progress: bool) -> Path:
    from huggingface_hub import snapshot_download

    with _bars(progress):
        return Path(snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
