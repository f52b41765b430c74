"""What the server has this device use: asked for, judged, fetched.

Nothing here is believed because of where it came from: the announcement and the release are signed with the
key that the invitation named, and every file has the digest that the release has.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from antefix.common.progress import ProgressBar
from antefix.errors import AntefixError, BaseError, PrefixError, ReleaseRefused
from antefix.loading.catalog import CATALOGUE
from antefix.wire import Release, ReleaseState
from antefix.wire.announcement import ReleaseOffer
from antefix.wire.release import BaseFile, SharedPrefix
from antefix.wire.signed import MAX_BYTES
from antefix_client.errors import DeviceRefused, NoRelease, ProfileFull, ReleaseUnavailable
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.remote.download import ExpectedFile, Source, SourceLimits, download

Progress = Callable[[int, int], None]
"""Told how many bytes are there, and of how many."""
_SPARE = 2**24


@dataclass(frozen=True)
class FetchedRelease:
    """A release whose files are here.

    Attributes:
        release: as signed.
        base: what `FrozenBase.load` takes: a name of the catalogue, or a folder.
        shared: file of the shared prefix, or None.
    """

    release: Release
    base: str
    shared: Path | None


def request_release(
    http: httpx.Client,
    key: bytes,
    seen: ReleaseState,
    kept: Release | None = None,
    patience: SourceLimits | None = None,
) -> tuple[ReleaseState, Release | None]:
    """Ask the server what to use.

    Args:
        http: with the server's address and this device's token.
        key: the server's release key, 32 bytes, as the invitation named it.
        seen: what this device knows; keep what comes back in its place.
        kept: the release that `seen` was learned with, if it is at hand: then nothing comes twice.
        patience: with the server.

    Returns:
        What is known from now on, and the release to use: None where the server has none.

    Raises:
        NoRelease: none yet. What is in use stays.
        ReleaseUnavailable: no answer. What is in use stays.
        DeviceRefused: the token is no good.
        ReleaseRefused: the answer is forged, old, or not for this device. What is in use stays.
    """
    headers = {"Accept-Encoding": "identity"}
    if kept is not None:
        headers["If-None-Match"] = f'"{seen.announcement}"'
    wait = (patience or SourceLimits()).wait_s
    content = bytearray()
    try:
        with http.stream(
            "GET", "/v1/release", headers=headers, timeout=wait, follow_redirects=False
        ) as answer:
            if answer.status_code == 304 and kept is not None:
                seen.require_usable(kept)
                return seen, kept
            if answer.status_code != 200:
                raise _unanswered(answer.status_code)
            for chunk in answer.iter_raw():  # not unpacked: a few bytes can unpack to gigabytes
                content += chunk
                if len(content) > 4 * MAX_BYTES:
                    raise ReleaseRefused(f"it has more than {4 * MAX_BYTES:,} bytes")
    except httpx.HTTPError as error:
        raise ReleaseUnavailable(
            f"the server does not answer ({type(error).__name__})", "check the connection, then try again"
        ) from None
    return seen.accepting(ReleaseOffer.parse(bytes(content)), key)


def fetch_release(
    http: httpx.Client,
    release: Release,
    folder: Path,
    *,
    progress: bool | Progress = True,
    patience: SourceLimits | None = None,
) -> FetchedRelease:
    """Have the files of a verified release in a folder; what is there already is not fetched again.

    Args:
        http: with the server's address and this device's token.
        release: from `request_release`.
        folder: for the files of all releases; made if it is not there.
        progress: a bar on stderr, none, or a function.
        patience: with each source.

    Raises:
        ReleaseUnavailable, ReleaseDamaged: nobody gives a file; what came is kept for the next call.
        ReleaseRefused: the files are those that were signed, and yet not the base that it names.
        ProfileFull, ProfileUnwritable: the disk.
    """
    with ExitStack() as opened:
        others = opened.enter_context(httpx.Client(max_redirects=5))  # a mirror must not see the token
        fetching = _Fetching(http, others, folder, patience or SourceLimits())
        missing = fetching.missing(release)
        _require_space(folder, sum(one.wanted.size - one.kept for one in missing))
        tick = opened.enter_context(_ticking(release, missing, progress))
        for one in missing:
            download(one.wanted, one.sources, one.part, one.target, tick, fetching.patience)
    base = _checked_base(release, fetching.base_folder(release))
    return FetchedRelease(release, base, _checked_prefix(release, fetching))


@dataclass(frozen=True)
class _Missing:
    wanted: ExpectedFile
    sources: list[Source]
    part: Path
    target: Path
    kept: int


class _Fetching:
    """Where files are, and where they come from."""

    def __init__(
        self, http: httpx.Client, mirrors: httpx.Client, folder: Path, patience: SourceLimits
    ) -> None:
        self._http, self._mirrors, self._folder, self.patience = http, mirrors, folder, patience
        with translate_os_errors(folder):
            for name in ("bases", "parts", "shared"):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def base_folder(self, release: Release) -> Path:
        return self._folder / "bases" / release.base.fingerprint

    def shared_file(self, shared: SharedPrefix) -> Path:
        return self._folder / "shared" / f"{shared.sha256}.safetensors"

    def missing(self, release: Release) -> list[_Missing]:
        """Files that are not there or not whole; what does not belong to the base is taken away."""
        base = self.base_folder(release)
        names = {file.name for file in release.files}
        with translate_os_errors(base):
            if names:
                base.mkdir(mode=0o700, exist_ok=True)
                for odd in [path for path in base.iterdir() if path.name not in names]:
                    shutil.rmtree(odd) if odd.is_dir() and not odd.is_symlink() else odd.unlink()
        files = [self._missing(file, base / file.name, file.sources) for file in release.files]
        if release.shared is not None:
            files.append(self._missing(release.shared, self.shared_file(release.shared), ()))
        return [file for file in files if not file.wanted.is_at(file.target)]

    def _missing(self, file: BaseFile | SharedPrefix, target: Path, urls: tuple[str, ...]) -> _Missing:
        sources = [Source(self._http, f"/v1/files/{file.sha256}", redirects=False)]
        sources += [Source(self._mirrors, url, redirects=True) for url in urls]
        part = self._folder / "parts" / f"{file.sha256}.part"
        with translate_os_errors(part):
            kept = min(part.stat().st_size, file.size) if part.exists() else 0
        return _Missing(ExpectedFile(file.size, file.sha256), sources, part, target, kept)


def _checked_base(release: Release, folder: Path) -> str:
    if not release.files:
        entry = CATALOGUE.get(release.base.name)
        if entry is None or entry.fingerprint != release.base.fingerprint:
            raise ReleaseRefused(
                f"its base {release.base.name} ({release.base.fingerprint[:16]}…) comes without files,"
                " and is not in the catalogue",
                "update Antefix",
            )
        return entry.name
    from antefix.loading.base_folder import folder_fingerprint

    try:
        fingerprint = folder_fingerprint(folder)
    except BaseError as error:
        raise ReleaseRefused(f"its files are no base: {error.message}") from None
    if fingerprint != release.base.fingerprint:
        raise ReleaseRefused(
            f"its files make base {fingerprint[:16]}…, it names {release.base.fingerprint[:16]}…"
        )
    return str(folder)


def _checked_prefix(release: Release, fetching: _Fetching) -> Path | None:
    if release.shared is None:
        return None
    from antefix import Prefix

    path = fetching.shared_file(release.shared)
    try:
        prefix = Prefix.load(path, base_fingerprint=release.base.fingerprint)
    except PrefixError as error:
        raise ReleaseRefused(f"its shared prefix is not usable: {error.message}") from None
    if prefix.layout.digest != release.shared.layout:
        raise ReleaseRefused("its shared prefix has other shapes than it says")
    return path


def _require_space(folder: Path, needed: int) -> None:
    with translate_os_errors(folder):
        free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise ProfileFull(
            f"the release needs {needed:,} bytes more in {folder}, {free:,} are free", "free some space"
        )


@contextmanager
def _ticking(
    release: Release, missing: list[_Missing], progress: bool | Progress
) -> Iterator[Callable[[int], None]]:
    done, total = sum(file.kept for file in missing), sum(file.wanted.size for file in missing)
    shown = bool(missing) and progress is True
    with ProgressBar(
        desc=f"base {release.base.name}",
        total=total,
        initial=done,
        unit="B",
        unit_scale=True,
        disable=not shown,
    ) as bar:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            bar.update(count)
            if callable(progress):
                progress(done, total)

        yield tick


def _unanswered(status: int) -> AntefixError:
    if status == 401:
        return DeviceRefused()
    if status == 404:
        return NoRelease()
    return ReleaseUnavailable(f"the server answers {status}", "try again later")
