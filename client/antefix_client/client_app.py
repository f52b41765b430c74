"""The device's side of rounds, where Flower's bundle looks for it."""

from antefix_client._flower_app import app

__all__ = ["app"]
