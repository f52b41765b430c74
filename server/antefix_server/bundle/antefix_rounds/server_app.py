"""The server's side of a round."""

from antefix_server.server_app import app

__all__ = ["app"]
