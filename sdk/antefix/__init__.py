"""Antefix: a private prefix for every user of one frozen language model.

Start with `FrozenBase.load`, then `train` and `generate`. Errors are in `antefix.errors`, the exchange
with PEFT in `antefix.peft`.

torch is imported with the first of these names but `Example`, not with the package: a server that only stores
and checks (`antefix.records`, `antefix.keys`, `antefix.receipts`) never loads it, an app only when it must.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from antefix.data.example import Example
    from antefix.evaluation.scoring import score
    from antefix.generation.generate import generate
    from antefix.generation.request import Generated, GenerationRequest
    from antefix.model.frozen_base import FrozenBase
    from antefix.prefix.prefix import Prefix
    from antefix.training.config import PrefixSpec, TrainingPlan
    from antefix.training.train import TrainedUser, train, train_shared

__all__ = [
    "Example",
    "FrozenBase",
    "Generated",
    "GenerationRequest",
    "Prefix",
    "PrefixSpec",
    "TrainedUser",
    "TrainingPlan",
    "generate",
    "score",
    "train",
    "train_shared",
]

_HOMES = {
    "Example": "data.example",
    "FrozenBase": "model.frozen_base",
    "Generated": "generation.request",
    "GenerationRequest": "generation.request",
    "Prefix": "prefix.prefix",
    "PrefixSpec": "training.config",
    "TrainedUser": "training.train",
    "TrainingPlan": "training.config",
    "generate": "generation.generate",
    "score": "evaluation.scoring",
    "train": "training.train",
    "train_shared": "training.train",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("antefix")
    if name not in _HOMES:
        raise AttributeError(f"module 'antefix' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"antefix.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
