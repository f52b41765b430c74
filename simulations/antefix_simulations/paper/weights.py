"""The paper's baselines that train weights: all, the top layers, bottleneck adapters, LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from antefix import FrozenBase
from antefix.errors import InvalidArgument
from antefix_simulations._peers import own_copy, quiet
from antefix_simulations._weights import Weights

__all__ = ["KINDS", "adapters", "all_weights", "lora", "top_layers"]


def all_weights(base: FrozenBase) -> Weights:
    """Every parameter, in fp32."""
    model: Any = copy.deepcopy(own_copy(base)).float()
    return Weights(base, model.requires_grad_(True))


def top_layers(base: FrozenBase, count: int = 2) -> Weights:
    """The last layers alone (FT-TOP2 of section 5.2)."""
    model: Any = copy.deepcopy(own_copy(base)).float().requires_grad_(False)
    layers = _layers(model)
    if len(layers) < count:
        raise InvalidArgument(f"base {base.name!r} has {len(layers)} layers", f"{count} are to be trained")
    for layer in layers[-count:]:
        layer.requires_grad_(True)
    return Weights(base, model)


def adapters(base: FrozenBase, share: float, seed: int = 0) -> Weights:
    """A bottleneck behind each layer (Lin et al. 2020): h + up(relu(down(norm(h)))), up = 0 at the start.

    Args:
        base: the frozen base.
        share: trained numbers, of the base's.
        seed: of the start.
    """
    model: Any = own_copy(base).requires_grad_(False)
    layers, hidden = _layers(model), base.head.weight.shape[1]
    whole = sum(one.numel() for one in model.parameters())
    width = max(1, round((share * whole / len(layers) - 3 * hidden) / (2 * hidden + 1)))
    torch.manual_seed(seed)
    bottlenecks = [Bottleneck(hidden, width).to(base.device) for _ in layers]
    for layer, bottleneck in zip(layers, bottlenecks, strict=True):
        layer.register_forward_hook(_behind(bottleneck))
    model.antefix_adapters = nn.ModuleList(bottlenecks)  # so that they are among its parameters
    return Weights(base, model)


def lora(base: FrozenBase, rank: int = 8, seed: int = 0) -> Weights:
    """PEFT's, on the layers that it chooses."""
    torch.manual_seed(seed)
    model: Any = own_copy(base)
    turned = any(isinstance(one, Conv1D) for one in model.modules())  # GPT-2's weights lie the other way
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, fan_in_fan_out=turned)
    with quiet():
        return Weights(base, get_peft_model(model, config).to(base.device))


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
    "LoRA": lambda base, seed: lora(base, seed=seed),
}
"""As tables name them; each takes a base and a seed."""


def _behind(bottleneck: Bottleneck) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (bottleneck(output[0]), *output[1:])
        return bottleneck(output)

    return hook


def _layers(model: Any) -> nn.ModuleList:
    """A decoder's layers: the one list of modules that it has."""
    return next(one for one in model.get_decoder().modules() if isinstance(one, nn.ModuleList))
