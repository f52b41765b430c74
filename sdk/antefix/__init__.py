"""Antefix: a private prefix for every user of one frozen language model.

Start with `FrozenBase.load`, then `train` and `generate`. Errors are in `antefix.errors`, the exchange
with PEFT in `antefix.peft`.

torch is imported with the first of these names but `Example`, not with the package: a server that only stores
and checks (`antefix.records`, `antefix.keys`, `antefix.receipts`) never loads it, an app only when it must.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from antefix._base import FrozenBase
    from antefix._example import Example
    from antefix._generation import generate
    from antefix._prefix import Prefix
    from antefix._request import Generated, GenerationRequest
    from antefix._scoring import score
    from antefix._spec import PrefixSpec, TrainingPlan
    from antefix._training import TrainedUser, train, train_shared

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
    "Example": "_example",
    "FrozenBase": "_base",
    "Generated": "_request",
    "GenerationRequest": "_request",
    "Prefix": "_prefix",
    "PrefixSpec": "_spec",
    "TrainedUser": "_training",
    "TrainingPlan": "_spec",
    "generate": "_generation",
    "score": "_scoring",
    "train": "_training",
    "train_shared": "_training",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'antefix' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"antefix.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
