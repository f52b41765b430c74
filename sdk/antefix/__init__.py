"""Antefix: a private prefix for every user of one frozen language model.

Start with `FrozenBase.load`, then `train` and `generate`. Errors are in `antefix.errors`, the exchange
with PEFT in `antefix.peft`.
"""

from antefix._base import FrozenBase
from antefix._examples import Example
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
