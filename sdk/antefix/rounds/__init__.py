"""Rounds: what both sides of one compute and check, and nothing of the network.

The server signs a `Round` and keeps its `RoundKey` in memory. A device trains a copy of the shared prefix,
and sends the difference as an `Update`: `clip_to_norm`, perhaps through a `Projection`, sealed to that key.
"""

from antefix.common.deprecation import former_names
from antefix.rounds.random_projection import Projection
from antefix.rounds.round import Round, RoundKey
from antefix.rounds.update import Update, clip_to_norm

__all__ = ["Projection", "Round", "RoundKey", "Update", "clip_to_norm"]

__getattr__ = former_names(__name__, {"clipped": "clip_to_norm"})
