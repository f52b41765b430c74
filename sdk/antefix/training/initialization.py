"""Where a prefix starts: what the base itself computes on real tokens, unless asked otherwise.

Real keys and values are far from any simple distribution; starting from them is worth more than any
other choice (paper section 7.4; 18.6 % against 41.6 % in PEFT's own comparison).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from antefix.attention.packed import PackedRows
from antefix.data.tokenization import Row
from antefix.errors import InvalidArgument, PrefixMismatch
from antefix.model.frozen_base import FrozenBase
from antefix.model.kv_layout import Layout
from antefix.prefix.prefix import Prefix
from antefix.training.config import PrefixSpec, Start

_TOKENS_AT_ONCE = 128
"""Size of a forward pass that looks at several users' first tokens; constant, for the same bits."""


@dataclass(frozen=True)
class InitRequest:
    """Who needs a start.

    Attributes:
        rows: the user's training rows, for `examples`.
        given: the prefix to go on from, for `prefix`.
        seed: of `random`.
    """

    rows: Sequence[Row]
    given: Prefix | None
    seed: int


def initial_prefixes(base: FrozenBase, spec: PrefixSpec, users: Sequence[InitRequest]) -> list[Tensor]:
    """Flat fp32 start [size(P)] of each user's prefix.

    Raises:
        InvalidArgument: `start="prefix"` without one, or one given for another start.
        PrefixMismatch: a given prefix of another base or length.
    """
    kinds = [_kind(spec, user) for user in users]
    leads = {
        number: _lead(base, _first_tokens(base, spec, kind, user), spec.length)
        for number, (kind, user) in enumerate(zip(kinds, users, strict=True))
        if kind != "prefix"
    }
    different = list(dict.fromkeys(leads.values()))
    real = dict(zip(different, activations(base, different), strict=True))
    layout = layout_of(base, spec)
    return [
        _check_given(base, spec, user.given)
        if user.given
        else _some(base, layout, _begin(base, spec, kind, real[leads[number]], user))
        for number, (kind, user) in enumerate(zip(kinds, users, strict=True))
    ]


def layout_of(base: FrozenBase, spec: PrefixSpec) -> Layout:
    """Shapes of the prefixes that are asked for.

    Raises:
        InvalidArgument: kinds that the base does not have.
    """
    if spec.kinds is None:
        return base.layout
    missing = [kind for kind in spec.kinds if kind not in base.layout.kinds]
    if missing:
        raise InvalidArgument(
            f"kinds has {missing[0]!r}, and base {base.name!r} has {', '.join(base.layout.kinds)} alone",
            "leave kinds out, or take an encoder-decoder such as BART or T5",
        )
    return base.layout.only(spec.kinds)


def _some(base: FrozenBase, layout: Layout, whole: Tensor) -> Tensor:
    """What is of some kinds, of a flat prefix of all."""
    parts = zip(base.layout.slots, base.layout.split(whole), strict=True)
    return layout.join([part for slot, part in parts if slot in layout.slots])


def initial_vectors(base: FrozenBase, spec: PrefixSpec, users: Sequence[InitRequest]) -> list[Tensor]:
    """Input vectors [P, hidden], fp32, with which each user begins who trains nothing else.

    Raises:
        InvalidArgument: an encoder-decoder, or a prefix to go on from.
    """
    if base.is_encoder_decoder:
        raise InvalidArgument(
            "layers is 'embedding', and this base is an encoder-decoder", "use layers='all', or a causal base"
        )
    return [_vectors(base, spec, _kind(spec, user), user) for user in users]


def _vectors(base: FrozenBase, spec: PrefixSpec, kind: Start, user: InitRequest) -> Tensor:
    if kind == "prefix":
        raise InvalidArgument(
            "layers is 'embedding', and a prefix does not tell of which input vectors it was made",
            "train without a prefix to start from",
        )
    lead = _lead(base, _first_tokens(base, spec, kind, user), spec.length)
    real = base.embed(torch.tensor(lead, device=base.device)).detach().float()
    if kind in ("words", "examples"):
        return real
    dice = torch.Generator().manual_seed(user.seed)
    noise = torch.randn(real.shape, generator=dice).to(real.device) * real.std()
    changed = noise if kind == "random" else torch.zeros_like(real)
    return torch.cat([real[:1], changed[1:]]) if spec.freeze_sink else changed


def keys_and_values(base: FrozenBase, vectors: Tensor) -> Tensor:
    """Keys and values that the base makes of input vectors [P, hidden]: flat fp32, differentiable."""
    length = len(vectors)
    nothing = base.layout.split(torch.zeros(1, 0, device=base.device, dtype=base.dtype))
    capture = _Capture.of(base, [length], [length], nothing)
    positions = torch.arange(length, device=base.device)[None]
    base.decode_vectors(vectors.to(base.device, base.dtype)[None], positions, capture)
    return base.layout.join([capture.found[slot] for slot in range(len(base.layout.slots))]).float()


def activations(base: FrozenBase, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Keys and values that the base computes on each of `texts`, all of one length P: flat [size(P)]."""
    parts: list[Tensor] = []
    each = max(1, _TOKENS_AT_ONCE // max(1, len(texts[0]))) if texts else 1
    for at in range(0, len(texts), each):
        parts.extend(_captured(base, texts[at : at + each], each))
    return parts


def _captured(base: FrozenBase, texts: Sequence[Sequence[int]], count: int) -> list[Tensor]:
    """As `activations`, packed into one forward pass of the size that `most` texts would fill."""
    lengths, size = [len(text) for text in texts], len(texts[0])
    ids = [token for text in texts for token in text] + [0] * (size * (count - len(texts)))
    inputs = torch.tensor([ids], device=base.device)
    positions = torch.arange(size, device=base.device).repeat(count)[None]
    nothing = base.layout.split(torch.zeros(len(texts), 0, device=base.device, dtype=base.dtype))
    capture = _Capture.of(base, lengths, lengths, nothing)
    with torch.no_grad():
        encoded = base.encode(inputs, positions, capture) if base.is_encoder_decoder else None
        base.decode(inputs, positions, capture, encoded)
    slots = [capture.found[slot] for slot in range(len(base.layout.slots))]
    return [
        base.layout.join([part[:, :, at : at + size] for part in slots]).float().cpu()
        for at in range(0, size * len(texts), size)
    ]


def _kind(spec: PrefixSpec, user: InitRequest) -> Start:
    start = spec.start or ("prefix" if user.given is not None else "examples")
    if (start == "prefix") != (user.given is not None):
        raise InvalidArgument(
            f"start is {start!r} and {'a' if user.given else 'no'} prefix to start from is given",
            "pass start=… to train() together with start='prefix' in the spec, or neither",
        )
    return start


def _first_tokens(base: FrozenBase, spec: PrefixSpec, kind: Start, user: InitRequest) -> list[int]:
    if kind == "words":
        return list(base.tokenizer(spec.words or "", add_special_tokens=False)["input_ids"])
    return list(islice((token for row in user.rows for token in (row.source or row.inputs)), spec.length))


def _begin(base: FrozenBase, spec: PrefixSpec, kind: Start, real: Tensor, user: InitRequest) -> Tensor:
    """A start that is not given, from what the base computes on real tokens."""
    if kind in ("words", "examples"):
        return real
    changed = torch.zeros_like(real) if kind == "zeros" else _noise(base, real, user.seed)
    if spec.freeze_sink:
        for part, sink in zip(base.layout.split(changed), base.layout.split(real), strict=True):
            part[:, :, 0] = sink[:, :, 0]
    return changed


@dataclass
class _Capture(PackedRows):
    """Keeps what each layer computes too, [2, heads, tokens, head_dim] per slot."""

    found: dict[int, Tensor] = field(default_factory=dict)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, extra: Any
    ) -> Tensor:
        self.found[self.base.slot_of[module]] = torch.stack([key[0], value[0]])
        return super().attend(module, query, key, value, scaling, extra)


def _check_given(base: FrozenBase, spec: PrefixSpec, given: Prefix) -> Tensor:
    given.require_base(base.fingerprint, base.layout)
    if given.layout != layout_of(base, spec):
        raise PrefixMismatch(
            f"the prefix to start from is for {', '.join(given.layout.kinds)}, "
            f"the spec for {', '.join(layout_of(base, spec).kinds)}",
            f"use PrefixSpec(kinds={given.layout.kinds!r})",
        )
    if given.length != spec.length:
        raise PrefixMismatch(
            f"the prefix to start from has length {given.length}, the spec says {spec.length}",
            f"use PrefixSpec(length={given.length})",
        )
    return given.values


def _lead(base: FrozenBase, tokens: list[int], length: int) -> tuple[int, ...]:
    """BOS (an attention sink) and then `tokens`, repeated up to `length`; no BOS where there is none."""
    bos = base.tokenizer.bos_token_id
    tokens = tokens or [0]
    first = [] if bos is None or tokens[0] == bos else [int(bos)]
    text = tokens * (length // len(tokens) + 1)
    return tuple([*first, *text][:length])


def _noise(base: FrozenBase, real: Tensor, seed: int) -> Tensor:
    """Normal noise with each slot's own spread of real keys and values."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(real.shape, generator=generator)
    for part, like in zip(base.layout.split(noise), base.layout.split(real), strict=True):
        part.mul_(like.std(dim=(1, 2, 3), keepdim=True))
    return noise
