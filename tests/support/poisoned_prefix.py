"""A prefix full of what `Prefix` itself refuses, for tests of what a neighbour may do at worst."""

import torch
from torch import Tensor

from antefix import FrozenBase, Prefix


def poisoned(base: FrozenBase, values: Tensor) -> Prefix:
    """A prefix of `values`, NaN and all, past the check that no caller gets past."""
    prefix = Prefix(torch.zeros_like(values), base.layout, base.fingerprint)
    prefix._values.copy_(values)
    return prefix
