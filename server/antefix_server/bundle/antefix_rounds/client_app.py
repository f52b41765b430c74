"""The device's side of a round."""

from antefix_client.client_app import app

__all__ = ["app"]
