"""The device's side of rounds, where Flower's bundle looks for it."""

from antefix_client.rounds.flower_app import app

__all__ = ["app"]
