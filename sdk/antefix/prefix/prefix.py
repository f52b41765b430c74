"""A trained prefix and its file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save
from torch import Tensor

from antefix.common.files import atomic_write
from antefix.common.validation import path_of, require
from antefix.errors import InvalidArgument, PrefixFileRefused, PrefixMismatch
from antefix.model.kv_layout import Kind, Layout
from antefix.prefix.prefix_file import parse, read
from antefix.prefix.strict_safetensors import Unreadable, ordered

FORMAT = "antefix-prefix/1"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Prefix:
    """Trained keys and values for every attention layer of one base. Immutable.

    The whole of it is private to the user it was trained for: keys and values can be probed for the
    texts they were trained on. `save` writes them in the clear.

    Attributes:
        base_fingerprint: fingerprint of the base it belongs to.
        layout: shapes per attention layer.
        length: positions P.
    """

    def __init__(self, values: Tensor, layout: Layout, base_fingerprint: str) -> None:
        """Take `values` [layout.size(P)], fp32; they are copied.

        Raises:
            PrefixMismatch: a wrong number of values.
            InvalidArgument: NaN or infinite values, or arguments of another type.
        """
        require(values, Tensor, "values")
        require(layout, Layout, "layout")
        require(base_fingerprint, str, "base_fingerprint")
        length, rest = divmod(values.numel(), layout.width)
        if values.dim() != 1 or rest or length < 1:
            raise PrefixMismatch(
                f"a prefix for this base has a multiple of {layout.width} values, "
                f"the given tensor has shape {list(values.shape)}"
            )
        self._values = values.detach().to("cpu", torch.float32, copy=True)
        if not torch.isfinite(self._values.sum()):  # one pass; a sum of finite numbers may still overflow
            _refuse_broken(self._values)
        self.layout = layout
        self.length = length
        self.base_fingerprint = base_fingerprint

    @property
    def values(self) -> Tensor:
        """A copy of all values, flat, fp32 [layout.size(P)]."""
        return self._values.clone()

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._values.numel() * self._values.element_size()

    def wipe(self) -> None:
        """Zero the values, for whoever must not have them any more. Nothing can be done with it after."""
        self._values.zero_()
        self._values = self._values[:0]
        self.length = 0

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Copies of key and value [heads, P, head_dim] of one slot of `layout`.

        Raises:
            InvalidArgument: there is no such slot.
        """
        if type(number) is not int or not 0 <= number < len(self.layout.slots):
            raise InvalidArgument(f"there is no slot {number!r}", f"use 0 to {len(self.layout.slots) - 1}")
        key, value = self.layout.split(self._values)[number].clone()
        return key, value

    def save(self, path: str | Path, *, dtype: str = "fp32") -> Path:
        """Write a safetensors file, whole or not at all, readable by its owner only.

        Args:
            path: the file. An old one is replaced.
            dtype: stored type, `"fp32"`, `"fp16"` or `"bf16"`.

        Raises:
            InvalidArgument: unknown dtype, values too large for it, or what is no path of a file.
            OSError: it cannot be written.
        """
        target = path_of(path, "path")
        if target.is_dir():
            raise InvalidArgument(f"{target} is a folder", f"add a name: {target / 'prefix.safetensors'}")
        atomic_write(target, self.to_bytes(dtype=dtype))
        return target

    def to_bytes(self, *, dtype: str = "fp32") -> bytes:
        """Content of the file that `save` writes, for `antefix.records`.

        Raises:
            InvalidArgument: unknown dtype, or values too large for it.
        """
        require(dtype, str, "dtype")
        if dtype not in _DTYPES:
            raise InvalidArgument(f"dtype is {dtype!r}", f"use one of {', '.join(_DTYPES)}")
        stored = self._values.to(_DTYPES[dtype])
        if not torch.isfinite(stored).all():
            raise InvalidArgument(f"some values of this prefix do not fit {dtype}", "use 'bf16' or 'fp32'")
        header = {
            "format": FORMAT,
            "base": self.base_fingerprint,
            "layout": self.layout.digest,
            "length": str(self.length),
            "slots": json.dumps(_runs(self.layout), separators=(",", ":")),
        }
        return ordered(save({"prefix": stored}, metadata=header))

    @classmethod
    def load(cls, path: str | Path, *, base_fingerprint: str | None = None) -> Self:
        """Read a file written by `save`; nothing in it is trusted before it is checked.

        Args:
            path: the file.
            base_fingerprint: refuse a prefix of any other base (`base.fingerprint`).

        Raises:
            PrefixFileRefused: truncated, pickled, or with anything but the expected content.
            PrefixMismatch: of another base.
            InvalidArgument: what is no path.
        """
        if base_fingerprint is not None:
            require(base_fingerprint, str, "base_fingerprint")
        parsed = read(path_of(path, "path"), FORMAT)
        prefix = cls(parsed.values, parsed.layout, parsed.base_fingerprint)
        if base_fingerprint is not None:
            prefix.require_base(base_fingerprint)
        return prefix

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read the content of a file as `load` reads the file.

        Raises:
            PrefixFileRefused: anything but the expected content.
        """
        try:
            parsed = parse(content, FORMAT)
        except Unreadable as error:
            raise PrefixFileRefused(
                f"not a usable prefix: {error}", "use what Prefix.to_bytes gave"
            ) from None
        return cls(parsed.values, parsed.layout, parsed.base_fingerprint)

    def require_base(self, fingerprint: str, layout: Layout | None = None) -> None:
        """Refuse use with any base but its own; with its `layout`, also a file that lies about its shapes.

        A prefix of some kinds of an encoder-decoder's layers has the shapes of those.
        """
        if fingerprint != self.base_fingerprint:
            raise PrefixMismatch(
                f"this prefix was trained on base {self.base_fingerprint[:16]}…, "
                f"the base in use is {fingerprint[:16]}…",
                "load the base it was trained on, or train a new prefix",
            )
        if layout is not None and layout.only(self.layout.kinds) != self.layout:
            raise PrefixMismatch(
                f"this prefix has shapes {self.layout.digest[:16]}…, the base in use {layout.digest[:16]}…, "
                "though it names that base",
                "its file was tampered with: train a new prefix",
            )

    def __eq__(self, other: object) -> bool:
        """Same base, same shapes, same bits."""
        return (
            isinstance(other, Prefix)
            and self.base_fingerprint == other.base_fingerprint
            and self.layout == other.layout
            and torch.equal(self._values, other._values)
        )

    def __hash__(self) -> int:
        """Hash of what it belongs to; equal prefixes have equal hashes."""
        return hash((self.base_fingerprint, self.layout, self.length))

    def __repr__(self) -> str:
        """Shape and base; never a value."""
        base, slots = self.base_fingerprint[:12], len(self.layout.slots)
        return f"Prefix(length={self.length}, slots={slots}, base={base}…)"


def _refuse_broken(values: Tensor) -> None:
    broken = values.numel() - int(torch.isfinite(values).sum())
    if broken:
        raise InvalidArgument(
            f"{broken:,} of the {values.numel():,} values of this prefix are NaN or infinite",
            "train it again with a lower learning rate",
        )


def _runs(layout: Layout) -> list[tuple[Kind, int, int, int]]:
    """Slots as runs of equal shape, (kind, count, heads, head_dim): small for a hundred layers."""
    shapes = [(slot.kind, slot.heads, slot.head_dim) for slot in layout.slots]
    return [(shape[0], len(list(run)), shape[1], shape[2]) for shape, run in itertools.groupby(shapes)]
