"""What the machine is, and how fast it could be."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from antefix import FrozenBase

_MICRO_BATCHES = {"cpu": (512, 2048), "cuda": (8192, 32_768)}  # tokens; the faster one counts


def describe(base: FrozenBase) -> dict[str, Any]:
    """What a timing depends on; a `load` far above 0 means that others used the machine too."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
    cuda = base.device.type == "cuda"
    return {
        **versions,
        "device": str(base.device),
        "processor": torch.cuda.get_device_name(base.device) if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "dtype": str(base.dtype).removeprefix("torch."),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def wait(base: FrozenBase) -> None:
    """Return when the device has done all that was asked of it."""
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)


def matrix_rate(base: FrozenBase) -> float:
    """Floating-point operations per second in matrix products of the base's own shapes and dtype.

    Both ways of a training step are in it: hidden states times a weight, and gradients times its transpose.
    """
    return max(_rate(base, tokens) for tokens in _MICRO_BATCHES[base.device.type])


def step_operations(base: FrozenBase, tokens: int, targets: int) -> float:
    """Operations that the matrix products of training steps need at least.

    Twice a forward pass, since the frozen weights need no gradient: 4 operations per weight and token, the
    head on target tokens only. Attention and everything elementwise are left out.
    """
    body = sum(count * rows * columns for (rows, columns), count in _shapes(base).items())
    return 4.0 * (body * tokens + base.head.weight.numel() * targets)


def _shapes(base: FrozenBase) -> dict[tuple[int, int], int]:
    """How many layers of the body have a weight [out, in] of each shape."""
    body: Any = base.model.get_decoder()
    shapes: dict[tuple[int, int], int] = {}
    for layer in body.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            weight: Tensor = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
            shape = (weight.shape[0], weight.shape[1])
            shapes[shape] = shapes.get(shape, 0) + 1
    return shapes


def _rate(base: FrozenBase, tokens: int) -> float:
    operations = seconds = 0.0
    for (wide, narrow), count in _shapes(base).items():
        weight = torch.randn(wide, narrow, device=base.device, dtype=base.dtype)
        hidden = torch.randn(tokens, narrow, device=base.device, dtype=base.dtype)
        slope = torch.randn(tokens, wide, device=base.device, dtype=base.dtype)
        seconds += count * min(_seconds(base, hidden, weight, slope) for _ in range(5))
        operations += count * 4.0 * tokens * wide * narrow
    return operations / seconds


def _seconds(base: FrozenBase, hidden: Tensor, weight: Tensor, slope: Tensor) -> float:
    wait(base)
    started = time.perf_counter()
    F.linear(hidden, weight)
    slope @ weight
    wait(base)
    return time.perf_counter() - started


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
