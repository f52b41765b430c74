"""What devices reach of a server: HTTP, for enrolled devices alone, save to enrol.

Records go in and out as they are, sealed on the device. Whose they are follows from the token alone: a record
of anybody else is refused, and nobody is told of another user's.
"""

from antefix_server.gateway.app import Limits, application

__all__ = ["Limits", "application"]
