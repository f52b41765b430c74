"""What a round asks of a device, on its way from the node's process to the service."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Self

from antefix.errors import RoundRefused

_HEAD = struct.Struct(">QIII")
MAX_BYTES = 2**28


@dataclass(frozen=True)
class RoundRequest:
    """From a server, or who poses as it.

    Attributes:
        node: Flower's number of this device's node.
        release, round: signed statements.
        prefix: content of the shared prefix's file.
    """

    node: int
    release: bytes = field(repr=False)
    round: bytes = field(repr=False)
    prefix: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """All parts."""
        parts = (self.release, self.round, self.prefix)
        return _HEAD.pack(self.node, *map(len, parts)) + b"".join(parts)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read it.

        Raises:
            RoundRefused: it is none.
        """
        if len(content) < _HEAD.size:
            raise RoundRefused("it is cut off")
        node, *sizes = _HEAD.unpack_from(content)
        if _HEAD.size + sum(sizes) != len(content):
            raise RoundRefused("it is cut off")
        at, parts = _HEAD.size, []
        for size in sizes:
            parts.append(content[at : at + size])
            at += size
        return cls(node, *parts)
