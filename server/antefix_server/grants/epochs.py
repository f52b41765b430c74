"""Epoch keys: what devices seal grants to, for some hours, and then nobody can open any more.

A key is a file of its own, beside the shred keys and in no backup. It is overwritten where it lies when its
epoch is over, as shred keys are, and for the same reasons (`antefix_server.vault.key_file`).
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

from antefix.common.files import sync_folder
from antefix.crypto.aead import SecretBytes
from antefix.grants import EpochKey
from antefix_server.errors import VaultDamaged
from antefix_server.storage.os_errors import files

__all__ = ["Epochs"]

_FOLDER = "epochs"
_HOURS = 24
_FORM = struct.Struct(">8s16sQ32s")
_MAGIC = b"ANTEFIXE"
_ENDING, _UNFINISHED = ".key", ".new"


class Epochs:
    """The living epoch keys of one vault. One process opens them; any of its threads may call anything."""

    def __init__(self, folder: Path, *, seconds: int = _HOURS * 3600) -> None:
        """Keys in the vault's folder; an epoch lasts so long, and a grant at least half of it."""
        self._folder, self._seconds = folder / _FOLDER, seconds
        self._lock, self._keys = threading.Lock(), dict[bytes, EpochKey]()
        with files(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for path in [*self._folder.glob(f"*{_UNFINISHED}"), *self._folder.glob(".*")]:
                _shred(path)
            for path in sorted(self._folder.glob(f"*{_ENDING}")):
                key = _read(path)
                self._keys[key.id] = key

    def current(self, now: float) -> EpochKey:
        """The key to seal new grants to: with half of its time left, or a fresh one."""
        with self._lock:
            self._destroy(now)
            newest = max(self._keys.values(), key=lambda key: key.until, default=None)
            if newest is not None and newest.until - now >= self._seconds / 2:
                return newest
            return self._fresh(int(now) + self._seconds)

    def find(self, id: bytes, now: float) -> EpochKey | None:
        """A key by its id; None where its epoch is over, or never was."""
        with self._lock:
            self._destroy(now)
            return self._keys.get(id)

    def destroy_over(self, now: float) -> int:
        """Destroy the keys of epochs that are over; so many were."""
        with self._lock:
            return self._destroy(now)

    def destroy_all(self) -> int:
        """Destroy every key: no grant opens any more, whoever has a copy of it."""
        with self._lock:
            return self._destroy(float("inf"))

    def _fresh(self, until: int) -> EpochKey:
        key, seed = EpochKey.generate(until)
        with seed, files(self._folder), SecretBytes(bytearray(_FORM.size)) as content:
            _FORM.pack_into(content.data, 0, _MAGIC, key.id, until, seed.data)
            _write(self._path(key.id), content)
        self._keys[key.id] = key
        return key

    def _destroy(self, now: float) -> int:
        over = [key for key in self._keys.values() if key.until <= now]
        for key in over:
            key.wipe()  # first: a disk that fails keeps no key alive
            with files(self._path(key.id)):
                _shred(self._path(key.id))
            del self._keys[key.id]
        return len(over)

    def _path(self, id: bytes) -> Path:
        return self._folder / f"{id.hex()}{_ENDING}"


def _read(path: Path) -> EpochKey:
    with SecretBytes(bytearray(_FORM.size + 1)) as content, path.open("rb", buffering=0) as file:
        size = file.readinto(content.data)
        if size != _FORM.size or not content.data.startswith(_MAGIC):
            raise VaultDamaged(
                f"{path} is no epoch key", "remove it: its grants are lost, devices grant anew"
            )
        _, id, until, seed = _FORM.unpack_from(content.data)
    with SecretBytes.take(seed) as secret:
        return EpochKey(id, secret, until)


def _write(path: Path, content: SecretBytes) -> None:
    """Whole or not at all, durable on return; the system has the only copy of the bytes."""
    unfinished = path.with_suffix(_UNFINISHED)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        file.write(content.data)
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)


def _shred(path: Path) -> None:
    """Zeros over the key before its name goes: else the bytes would lie in free blocks."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(_FORM.size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)
