"""The cache folder: bases that were fetched and converted once.

    <cache>/bases/<name>-<digest>/   a finished base and its source.json; never changed, only deleted
    <cache>/downloads/               fetched wheels, until their base is finished
    <cache>/tmp/<random>/            work of one process, moved into place as its last act

So an interruption leaves nothing half-done, and two processes cannot disturb each other.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.errors import BaseDamaged, BaseUnavailable
from antefix.loading.stored_tensors import file_digest

_MANIFEST = "source.json"
_MANIFEST_FORMAT = 1
_STALE_S = 24 * 3600


def cache_folder() -> Path:
    """Return `$ANTEFIX_CACHE`, else `$XDG_CACHE_HOME/antefix`, else `~/.cache/antefix`; it need not exist."""
    if own := os.environ.get("ANTEFIX_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification: a relative one is to be ignored
        return Path(shared) / "antefix"
    try:
        return Path.home() / ".cache" / "antefix"
    except RuntimeError as error:
        raise BaseUnavailable(
            "there is no home folder to cache bases in", "set ANTEFIX_CACHE to a folder"
        ) from error


@contextmanager
def workspace(cache: Path) -> Iterator[Path]:
    """Give a folder of this process's own inside the cache, removed at the end whatever happens."""
    root = cache / "tmp"
    root.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    folder = root / uuid.uuid4().hex
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(work: Path, final: Path) -> None:
    """Move a finished folder into place in one step; OSError where another process was first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(work, final)


def write_manifest(folder: Path, fingerprint: str) -> None:
    """Record the fingerprint and the digest of every file, as the last file of a finished base."""
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    manifest = {"format": _MANIFEST_FORMAT, "fingerprint": fingerprint, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check_manifest(folder: Path, fingerprint: str) -> None:
    """Check every byte of a cached base against what was recorded when it was made.

    Raises:
        BaseDamaged: a file changed, is missing, or does not belong (transformers reads what it finds).
    """
    hint = f"delete the folder and load the base again: {folder}"
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        recorded, files = manifest["fingerprint"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseDamaged(f"{folder / _MANIFEST} cannot be read: {error!r}", hint) from error
    if recorded != fingerprint:
        raise BaseDamaged(f"{folder} holds base {recorded}, pinned is {fingerprint}", hint)
    present = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {_MANIFEST}
    if present != files.keys():
        odd = sorted(present ^ files.keys())[0]
        state = "is not one of its files" if odd in present else "is missing"
        raise BaseDamaged(f"{odd!r} {state} in {folder}", hint)
    for name, digest in files.items():
        actual = file_digest(folder / name)
        if actual != digest:
            raise BaseDamaged(f"{folder / name} has SHA-256 {actual}, recorded was {digest}", hint)


def _remove_stale(root: Path) -> None:
    """Remove what processes left that were killed before they could clean up."""
    for folder in root.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # its owner has just removed it
