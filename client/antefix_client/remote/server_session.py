"""A joined profile's session with its server: what is stored about the server, and the connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from antefix_client.model import PersonalModel
from antefix_client.profile.profile import Profile
from antefix_client.remote.api_client import ApiClient
from antefix_client.remote.server_state import ServerState


class ServerSession:
    """What sync, releases, rounds and grants share. Any thread may call anything.

    Attributes:
        model: whose profile is on the server.
    """

    def __init__(self, model: PersonalModel) -> None:
        """Ask nobody yet."""
        self.model = model

    def state(self) -> ServerState:
        """All that is known of the server. Private.

        Raises:
            NotJoined, ProfileDamaged.
        """
        with self.locked() as (_, state):
            return state

    @contextmanager
    def locked(self) -> Iterator[tuple[Profile, ServerState]]:
        """The profile, which nobody else changes meanwhile, and what it knows of its server.

        Raises:
            NotJoined, ProfileDamaged.
        """
        with self.model.session.locked() as profile:
            yield profile, ServerState.read(profile.sealed)

    def update(self, **facts: object) -> ServerState:
        """Keep what has changed; durable on return.

        Raises:
            NotJoined, ProfileDamaged, ProfileFull, ProfileUnwritable.
        """
        with self.locked() as (profile, state):
            changed = state.model_copy(update=facts)
            changed.write(profile.sealed)
        return changed

    def connect(self) -> ApiClient:
        """The server, with this device's token; close it.

        Raises:
            NotJoined.
        """
        state = self.state()
        return ApiClient(state.url, state.authority, state.token)
