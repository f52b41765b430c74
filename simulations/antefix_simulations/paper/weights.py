"""The paper's baselines that train weights: the top layers, bottleneck adapters, and by name all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from antefix import FrozenBase
from antefix.errors import InvalidArgument
from antefix_simulations.arms.peft import own_copy
from antefix_simulations.arms.weights import Weights, all_weights, lora

__all__ = ["KINDS", "adapters", "top_layers"]

_RANK = 8


def top_layers(base: FrozenBase, count: int = 2) -> Weights:
    """The last layers alone (FT-TOP2 of section 5.2)."""
    model: Any = own_copy(base).requires_grad_(False)
    layers = _layers(model.get_decoder())
    if len(layers) < count:
        raise InvalidArgument(f"base {base.name!r} has {len(layers)} layers", f"{count} are to be trained")
    for at in range(len(layers) - count, len(layers)):
        layers[at] = copy.deepcopy(layers[at]).float().requires_grad_(True)
    return Weights(base, model)


def adapters(base: FrozenBase, share: float, seed: int = 0) -> Weights:
    """A bottleneck behind each layer (Lin et al. 2020): h + up(relu(down(norm(h)))), up = 0 at the start.

    Args:
        base: the frozen base.
        share: trained numbers, of the base's.
        seed: of the start.
    """
    model: Any = own_copy(base).requires_grad_(False)
    sides = [model.get_decoder(), *([model.get_encoder()] if base.is_encoder_decoder else [])]
    layers, hidden = [layer for side in sides for layer in _layers(side)], base.head.weight.shape[1]
    whole = sum(parameter.numel() for parameter in model.parameters())
    width = max(1, round((share * whole / len(layers) - 3 * hidden) / (2 * hidden + 1)))
    torch.manual_seed(seed)
    bottlenecks = [Bottleneck(hidden, width).to(base.device) for _ in layers]
    for layer, bottleneck in zip(layers, bottlenecks, strict=True):
        layer.register_forward_hook(_behind(bottleneck))
    model.antefix_adapters = nn.ModuleList(bottlenecks)  # so that they are among its parameters
    return Weights(base, model)


class Bottleneck(nn.Module):
    """One adapter."""

    def __init__(self, hidden: int, width: int) -> None:
        """Begin as the identity."""
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[…, hidden] to the same shape."""
        change: Tensor = self.up(torch.relu(self.down(self.norm(hidden.float()))))
        return hidden + change.to(hidden.dtype)


KINDS: dict[str, Callable[[FrozenBase, int], Weights]] = {
    "fine-tuning": lambda base, seed: all_weights(base),
    "top 2 layers": lambda base, seed: top_layers(base),
    "adapters 3 %": lambda base, seed: adapters(base, 0.03, seed),
    "adapters 0.1 %": lambda base, seed: adapters(base, 0.001, seed),
    "LoRA": lambda base, seed: lora(base, _RANK, seed),
}
"""As tables name them; each takes a base and a seed."""


def _behind(bottleneck: Bottleneck) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (bottleneck(output[0]), *output[1:])
        return bottleneck(output)

    return hook


def _layers(side: Any) -> nn.ModuleList:
    """Of a decoder or an encoder: the one list of modules that it has."""
    return next(module for module in side.modules() if isinstance(module, nn.ModuleList))
