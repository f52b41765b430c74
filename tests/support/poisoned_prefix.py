"""Prefixes with values that `Prefix` refuses, for tests of hostile neighbours."""

import torch
from torch import Tensor

from antefix import FrozenBase, Prefix


def poisoned(base: FrozenBase, values: Tensor) -> Prefix:
    """Make a prefix of `values`, NaN and infinity included, without the check of its constructor."""
    prefix = Prefix(torch.zeros_like(values), base.layout, base.fingerprint)
    prefix._values.copy_(values)
    return prefix
