"""Rounds: what both sides of one compute and check, and nothing of the network.

The server signs a `Round` and keeps its `RoundKey` in memory. A device trains a copy of the shared prefix,
and sends the difference as an `Update`: `clipped`, perhaps through a `Projection`, sealed to that key.
"""

from antefix.rounds.random_projection import Projection
from antefix.rounds.round import Round, RoundKey
from antefix.rounds.update import Update, clipped

__all__ = ["Projection", "Round", "RoundKey", "Update", "clipped"]
