"""How trained numbers make a prefix: directly, or through an MLP that exists in training only.

Paper section 4.3: direct training was unstable for its authors, so they trained a matrix of which an
MLP makes the prefix. They fitted the MLP to real activations in 500 steps; here it starts on them
exactly, because it adds to them and its last layer starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from antefix.model.kv_layout import Layout
from antefix.training.config import PrefixSpec


class Reparameterization(Protocol):
    """Maps a flat vector of trained numbers to a flat prefix."""

    def initial(self) -> Tensor:
        """Trained numbers at the start."""
        ...

    def prefix(self, trained: Tensor) -> Tensor:
        """The prefix they make, [size(P)]."""
        ...

    def gradient(self, trained: Tensor, of_prefix: Tensor) -> Tensor:
        """Gradient of the trained numbers, given that of the prefix."""
        ...


def reparameterization_for(
    spec: PrefixSpec, layout: Layout, start: Tensor, hidden: int, seed: int
) -> Reparameterization:
    """The one that `spec` asks for, starting exactly at `start`."""
    if spec.mlp_width is None:
        return IdentityReparameterization(layout, start, spec.freeze_sink)
    return MLPReparameterization(layout, start, spec.freeze_sink, hidden, spec.mlp_width, seed)


@cache
def sink_places(layout: Layout, length: int, device: torch.device) -> Tensor:
    """Where row 0 lies in a flat prefix; one tensor for all users."""
    flat = torch.zeros(layout.size(length), dtype=torch.bool)
    for part in layout.split(flat):
        part[:, :, 0] = True
    return flat.nonzero()[:, 0].to(device)


class IdentityReparameterization:
    """The trained numbers are the prefix; the sink row gets no gradient."""

    def __init__(self, layout: Layout, start: Tensor, freeze_sink: bool) -> None:
        """Start at `start` [size(P)]."""
        self._start = start
        self._sink = sink_places(layout, start.numel() // layout.width, start.device) if freeze_sink else None

    def initial(self) -> Tensor:
        """The start itself."""
        return self._start.clone()

    def prefix(self, trained: Tensor) -> Tensor:
        """The trained numbers themselves."""
        return trained

    def gradient(self, trained: Tensor, of_prefix: Tensor) -> Tensor:
        """The same gradient, zero at the sink row."""
        return of_prefix if self._sink is None else of_prefix.index_fill(0, self._sink, 0.0)


class EmbeddingReparameterization:
    """prefix = what the base computes on the trained input vectors (paper section 7.2, "embedding-only")."""

    def __init__(self, computed: Callable[[Tensor], Tensor], vectors: Tensor, freeze_sink: bool) -> None:
        """Start at `vectors` [P, hidden]; `computed` makes a flat prefix of such."""
        self._computed, self._vectors, self._freeze = computed, vectors, freeze_sink

    def initial(self) -> Tensor:
        """The vectors themselves."""
        return self._vectors.flatten().clone()

    def prefix(self, trained: Tensor) -> Tensor:
        """One pass through the base."""
        return self._computed(trained.view_as(self._vectors))

    def gradient(self, trained: Tensor, of_prefix: Tensor) -> Tensor:
        """Backward through the base; zero at the sink's vector."""
        with torch.enable_grad():
            leaf = trained.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.prefix(leaf), leaf, of_prefix)
        if self._freeze:
            gradient[: self._vectors.shape[1]] = 0.0
        return gradient


class MLPReparameterization:
    """prefix = start + tanh(table @ W1 + b1) @ W2 + b2, with W2 = b2 = 0 at the start."""

    def __init__(
        self, layout: Layout, start: Tensor, freeze_sink: bool, hidden: int, width: int, seed: int
    ) -> None:
        """Take the base's hidden size for the table's width, as the paper does."""
        self._layout, self._start, self._freeze = layout, start, freeze_sink
        length = start.numel() // layout.width
        self._shapes = [(length, hidden), (hidden, width), (width,), (width, layout.width), (layout.width,)]
        self._seed = seed

    def initial(self) -> Tensor:
        """A random table and first layer (as nn.Embedding and nn.Linear start), a zero last layer."""
        generator = torch.Generator().manual_seed(self._seed)
        table, first, bias, last, last_bias = (torch.zeros(shape) for shape in self._shapes)
        table.normal_(generator=generator)
        first.uniform_(-1, 1, generator=generator).mul_(self._shapes[1][0] ** -0.5)
        return torch.cat([part.flatten() for part in (table, first, bias, last, last_bias)])

    def prefix(self, trained: Tensor) -> Tensor:
        """Start plus what the MLP makes of its table."""
        sizes = [torch.Size(shape).numel() for shape in self._shapes]
        parts = [part.view(shape) for part, shape in zip(trained.split(sizes), self._shapes, strict=True)]
        table, first, bias, last, last_bias = parts
        rows = torch.tanh(table @ first + bias) @ last + last_bias  # (P, layout.width)
        if self._freeze:
            rows = torch.cat([torch.zeros_like(rows[:1]), rows[1:]])
        return self._start.to(rows.device) + self._layout.from_positions(rows)

    def gradient(self, trained: Tensor, of_prefix: Tensor) -> Tensor:
        """Backward through the MLP alone."""
        with torch.enable_grad():
            leaf = trained.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.prefix(leaf), leaf, of_prefix)
        return gradient
