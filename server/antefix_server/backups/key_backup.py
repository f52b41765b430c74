"""The backup of the keys: the key file and the removal log, sealed to the operator.

    magic 8 | made 8, seconds since 1970 | tenant 16 | log size 8 | log root 32 | sealed key 1168 | body

The body is Cobblestone-256 under a fresh key, with all before it as context; the key is sealed by HPKE to the
operator's recovery code. In the body: length of the key file (8 bytes), key file, removal log (SQLite).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from antefix.keys import DeviceKeys, DevicePublic, UserKey
from antefix_server.errors import RestoreRefused

_MAGIC = b"ANTEFIXB"
_HEAD = struct.Struct(">8sQ16sQ32s1168s")
_LENGTH = struct.Struct(">Q")
_WHO = b"backup of keys\0\0"
_LABEL = b"antefix/v1/key backup\0"
_BLOCK = 2**20


@dataclass(frozen=True)
class Made:
    """When and of what a backup is; authentic only once it is opened.

    Attributes:
        at: seconds since 1970.
        tenant: 16 bytes.
        log_size, log_root: of the removal log at that time.
    """

    at: int
    tenant: bytes
    log_size: int
    log_root: bytes


def write(
    target: BinaryIO, made: Made, operator: DevicePublic, keys: Iterator[bytearray], size: int, log: Path
) -> None:
    """Write a backup; `keys` are `size` bytes in blocks, `log` a copy of the removal log."""
    key = UserKey.generate()
    sealed = key.seal_for(operator, tenant=made.tenant, user=_WHO)
    head = _HEAD.pack(_MAGIC, made.at, made.tenant, made.log_size, made.log_root, sealed)
    encryptor = Cobblestone256Encryptor(key.secret.data, _LABEL + head)
    key.wipe()
    target.write(head)
    target.write(encryptor.update(_LENGTH.pack(size)))
    for block in keys:
        target.write(encryptor.update(block))
    with log.open("rb") as file:
        while content := file.read(_BLOCK):
            target.write(encryptor.update(content))
    target.write(encryptor.finalize())
    target.flush()
    os.fsync(target.fileno())


def read_head(source: BinaryIO) -> Made:
    """The public part.

    Raises:
        RestoreRefused: not such a file.
    """
    head = source.read(_HEAD.size)
    if len(head) != _HEAD.size or head[:8] != _MAGIC:
        raise RestoreRefused("the backup of the keys is none", "give the file that the backup wrote")
    return Made(*_HEAD.unpack(head)[1:5])


def extract(source: BinaryIO, operator: DeviceKeys, keys: BinaryIO, log: BinaryIO) -> None:
    """Decrypt into two files; what is in them counts only if this returns.

    Raises:
        KeyRefused: the recovery code is not the operator's.
        RestoreRefused: damaged or cut off.
    """
    source.seek(0)
    head = source.read(_HEAD.size)
    tenant, sealed = _HEAD.unpack(head)[2], _HEAD.unpack(head)[5]
    key = operator.open_user_key(sealed, tenant=tenant, user=_WHO, epoch=1)
    decryptor = Cobblestone256Decryptor(key.secret.data, _LABEL + head)
    key.wipe()
    buffer, left = bytearray(), None
    try:
        for plain in _plain(source, decryptor):
            buffer += plain
            if left is None and len(buffer) >= _LENGTH.size:
                left = _LENGTH.unpack_from(buffer)[0]
                del buffer[: _LENGTH.size]
            if left is not None:
                keys.write(buffer[:left])
                log.write(buffer[left:])
                left -= min(left, len(buffer))
                buffer.clear()
    except (InvalidTag, ValueError):
        raise RestoreRefused("the backup of the keys is damaged or cut off", "give another one") from None


def _plain(source: BinaryIO, decryptor: Cobblestone256Decryptor) -> Iterator[bytes]:
    while block := source.read(_BLOCK):
        yield decryptor.update(block)
    yield decryptor.finalize()
