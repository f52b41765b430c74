"""Where a prefix starts: what the base itself computes on real tokens, unless asked otherwise.

Real keys and values are far from any simple distribution; starting from them is worth more than any
other choice (paper section 7.4; 18.6 % against 41.6 % in PEFT's own comparison).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from antefix._base import FrozenBase
from antefix._examples import Row
from antefix._packed import PackedRows
from antefix._prefix import Prefix
from antefix._spec import PrefixSpec
from antefix.errors import InvalidArgument, PrefixMismatch


def start_values(
    base: FrozenBase, spec: PrefixSpec, rows: Sequence[Row], given: Prefix | None, seed: int
) -> Tensor:
    """Flat fp32 start [size(P)] of one user's prefix.

    Args:
        base: the frozen base.
        spec: length and kind of start.
        rows: the user's training rows, for `examples`.
        given: the prefix to go on from, for `prefix`.
        seed: of `random`.

    Raises:
        InvalidArgument: `start="prefix"` without one, or one given for another start.
        PrefixMismatch: a given prefix of another base or length.
    """
    start = spec.start or ("prefix" if given is not None else "examples")
    if (start == "prefix") != (given is not None):
        raise InvalidArgument(
            f"start is {start!r} and {'a' if given else 'no'} prefix to start from is given",
            "pass start=… to train() together with start='prefix' in the spec, or neither",
        )
    if given is not None:
        return _given(base, spec, given)
    if start == "words":
        tokens = list(base.tokenizer(spec.words or "", add_special_tokens=False)["input_ids"])
    else:
        tokens = [token for row in rows for token in (row.source or row.inputs)][: spec.length]
    real = activations(base, _lead(base, tokens, spec.length))
    if start in ("words", "examples"):
        return real
    changed = torch.zeros_like(real) if start == "zeros" else _noise(base, real, seed)
    if spec.freeze_sink:
        for part, kept in zip(base.layout.split(changed), base.layout.split(real), strict=True):
            part[:, :, 0] = kept[:, :, 0]
    return changed


def activations(base: FrozenBase, tokens: Sequence[int]) -> Tensor:
    """Keys and values that the base computes on `tokens`, flat [size(len(tokens))]."""
    inputs = torch.tensor([list(tokens)], device=base.device)
    positions = torch.arange(len(tokens), device=base.device)[None]
    empty = base.layout.split(torch.zeros(1, 0, device=base.device, dtype=base.dtype))
    capture = _Capture.of(base, [len(tokens)], [len(tokens)], empty)
    with torch.no_grad():
        encoded = base.encode(inputs, positions, capture) if base.is_encoder_decoder else None
        base.decode(inputs, positions, capture, encoded)
    return base.layout.join([capture.found[slot] for slot in range(len(base.layout.slots))]).float().cpu()


@dataclass
class _Capture(PackedRows):
    """Watcher that also keeps what each layer computes, [2, heads, P, head_dim] per slot."""

    found: dict[int, Tensor] = field(default_factory=dict)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        self.found[self.base.slot_of[module]] = torch.stack([key[0], value[0]])
        return super().attend(module, query, key, value, scaling, extra)


def _given(base: FrozenBase, spec: PrefixSpec, given: Prefix) -> Tensor:
    given.require_base(base.fingerprint)
    if given.length != spec.length:
        raise PrefixMismatch(
            f"the prefix to start from has length {given.length}, the spec says {spec.length}",
            f"use PrefixSpec(length={given.length})",
        )
    return given.values


def _lead(base: FrozenBase, tokens: list[int], length: int) -> list[int]:
    """BOS (an attention sink) and then `tokens`, repeated up to `length`; no BOS where there is none."""
    bos = base.tokenizer.bos_token_id
    tokens = tokens or [0]
    first = [] if bos is None or tokens[0] == bos else [int(bos)]
    text = tokens * (length // len(tokens) + 1)
    return [*first, *text][:length]


def _noise(base: FrozenBase, real: Tensor, seed: int) -> Tensor:
    """Normal noise with each slot's own spread of real keys and values."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(real.shape, generator=generator)
    for part, like in zip(base.layout.split(noise), base.layout.split(real), strict=True):
        part.mul_(like.std(dim=(1, 2, 3), keepdim=True))
    return noise
