"""What a release is made of: files of a base, checked as a device will see them, and a shared prefix."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from antefix.common.files import atomic_write, sync_folder
from antefix.loading.catalog import CATALOGUE
from antefix.loading.names import origin_of
from antefix.loading.stored_tensors import file_digest
from antefix.wire import Release
from antefix.wire.release import ENDINGS, BaseFile, BaseReference, SharedPrefix
from antefix_server.errors import ReleaseUnsuitable
from antefix_server.storage.os_errors import files

_WANTED = tuple(f".{ending}" for ending in ENDINGS)
_ODD = re.compile("[^A-Za-z0-9_./-]+")
_FICLONE = 0x40049409


@dataclass(frozen=True)
class Base:
    """A base that can be released.

    Attributes:
        named: name and fingerprint.
        files: none where the catalogue has it.
        place: what `FrozenBase.load` takes; for as long as the folder of `assembled` is there.
    """

    named: BaseReference
    files: tuple[BaseFile, ...]
    place: str


def assembled(name: str | os.PathLike[str], work: Path, sources: Sequence[str]) -> Base:
    """Copy a base's files to `work` and read the fingerprint of the copies.

    Of the copies: the originals may change meanwhile, and what is released must be what was looked at.

    Args:
        name: of the catalogue, a folder, or a hub id.
        work: an empty folder.
        sources: beginnings of URLs under which somebody gives the files by name.

    Raises:
        ReleaseUnsuitable: its files have names that devices refuse.
        BaseError: not a base that could be loaded.
    """
    if name in CATALOGUE:
        entry = CATALOGUE[str(name)]
        return Base(BaseReference(name=entry.name, fingerprint=entry.fingerprint), (), entry.name)
    from antefix.loading.base_folder import folder_fingerprint
    from antefix.loading.source import resolve

    resolved = resolve(name, progress=False)
    with files(work):
        wanted = sorted(
            file for file in resolved.folder.iterdir() if file.is_file() and _is_wanted(file.name)
        )
        for file in wanted:
            _copy(file, work / file.name)
        sync_folder(work)
    # Of a folder its own name, without the path to it.
    label = str(name) if origin_of(str(name)) == "hub" else resolved.folder.name
    label = _ODD.sub("-", label).lstrip("._/-")[:200] or "base"
    try:
        named = BaseReference(name=label, fingerprint=folder_fingerprint(work))
        listed = tuple(_listed(work / file.name, sources) for file in wanted)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ReleaseUnsuitable(
            f"a file of {resolved.folder} cannot be released: {where} is not what devices take",
            "give files plain names, and sources that begin with https:// and have no password in them",
        ) from None
    return Base(named, listed, str(work))


def again(release: Release, work: Path, store: Path) -> Base:
    """The base of an earlier release, for another one. `work` gets its files, to be loaded from."""
    with files(work):
        for file in release.files:
            os.link(store / file.sha256, work / file.name)
    return Base(release.base, release.files, str(work) if release.files else release.base.name)


def shared_prefix(content: bytes, base: Base, known: set[str]) -> SharedPrefix:
    """What a release says of a shared prefix.

    Args:
        content: the file.
        base: that it must be for.
        known: layouts that earlier releases had of this base; where it is none of them, the base is loaded.

    Raises:
        ReleaseUnsuitable: not a prefix file, of another base, or of other shapes.
    """
    from antefix import FrozenBase
    from antefix.prefix.prefix import FORMAT
    from antefix.prefix.prefix_file import parse
    from antefix.prefix.strict_safetensors import Unreadable

    try:
        prefix = parse(content, FORMAT)
    except Unreadable as error:
        raise ReleaseUnsuitable(
            f"the shared prefix is not usable: {error}", "give a file written by Prefix.save"
        ) from None
    hint = "give a prefix that was trained on this base"
    mine, its = base.named.fingerprint[:16], prefix.base_fingerprint[:16]
    if prefix.base_fingerprint != base.named.fingerprint:
        raise ReleaseUnsuitable(f"the shared prefix is of base {its}…, released is {mine}…", hint)
    layout = prefix.layout.digest
    if layout not in known:
        real = FrozenBase.load(base.place, progress=False).layout.digest
        if real != layout:
            raise ReleaseUnsuitable(
                f"the shared prefix has shapes {layout[:16]}…, its base {real[:16]}…", hint
            )
    return SharedPrefix(sha256=hashlib.sha256(content).hexdigest(), size=len(content), layout=layout)


def keep(work: Path, base: Base, store: Path) -> None:
    """Move the files of an assembled base to where devices fetch them."""
    with files(store):
        for file in base.files:
            if not (store / file.sha256).is_file():
                os.replace(work / file.name, store / file.sha256)


def keep_bytes(content: bytes, digest: str, store: Path) -> None:
    """Write a file to where devices fetch it."""
    with files(store):
        if not (store / digest).is_file():
            atomic_write(store / digest, content)


def _is_wanted(name: str) -> bool:
    return name.endswith(_WANTED) and not name.startswith(".") and name != "source.json"  # the cache's own


def _listed(path: Path, sources: Sequence[str]) -> BaseFile:
    with files(path):
        return BaseFile(
            name=path.name,
            size=path.stat().st_size,
            sha256=file_digest(path),
            sources=tuple(f"{source}{path.name}" for source in sources),
        )


def _copy(source: Path, target: Path) -> None:
    """A copy, without its bytes where the file system can share them until one of the two is changed.

    No hard link: who changed the original in place would change the release.
    """
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 2**20)
        new.flush()
        os.fsync(new.fileno())
