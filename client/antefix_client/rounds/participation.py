"""A user's part in rounds: whether this device takes part, and what it makes of a round."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from antefix.errors import RoundRefused
from antefix.wire import ReleaseState
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.server_state import ServerState

if TYPE_CHECKING:
    from antefix_client.rounds.local_update import Checked
    from antefix_client.rounds.round_request import RoundRequest


class RoundParticipation:
    """Answers rounds for one profile, one at a time."""

    def __init__(self, server: ServerSession) -> None:
        """Ask nobody yet."""
        self._server, self._one_round = server, threading.Lock()

    def take_part(self, yes: bool) -> ServerState:
        """Say whether this device takes part; see `Membership.take_part`."""
        return self._server.update(rounds=yes)

    def renew_node(self) -> ServerState:
        """Make a fresh key for the node in rounds; it is kept before anybody hears of it."""
        with self._server.locked() as (profile, state):
            renewed = state.with_fresh_node()
            renewed.write(profile.sealed)
        return renewed

    def make_update(self, request: RoundRequest) -> bytes:
        """The sealed update of a round, if this user takes part and the round is in order.

        Trained on the texts that train, never on those that judge: the shared prefix must not know them.

        Raises:
            NotJoined, RoundRefused, ReleaseRefused: nothing is sent.
        """
        from antefix import Prefix
        from antefix_client.learning.text_split import TextSnapshot
        from antefix_client.rounds.local_update import answer, verify_round

        with self._one_round:
            state = self._server.state()
            if not state.rounds:
                raise _not_taking_part()
            base = self._server.model.base
            seen = state.seen or ReleaseState(tenant=state.tenant)
            seen = seen.model_copy(update={"base": base.fingerprint})
            verified = verify_round(request, bytes.fromhex(state.release_key), seen, state.last_round)
            length = Prefix.from_bytes(verified.prefix).length
            with self._server.model.session.locked() as profile:
                texts, device = TextSnapshot.take(profile), profile.keys.device
            update = answer(verified, request.node, base, texts.training_texts(base, length), device)
            self._agree_again(state, verified)
            return update

    def _agree_again(self, before: ServerState, verified: Checked) -> None:
        """Training took minutes: the user may have said no meanwhile, or the server withdrawn the release."""
        with self._server.locked() as (profile, state):
            if not state.rounds or (state.tenant, state.user) != (before.tenant, before.user):
                raise _not_taking_part()
            seen = state.seen or ReleaseState(tenant=state.tenant)
            seen.require_usable(verified.release)
            version = verified.release.version
            if version < state.last_round:
                raise RoundRefused("a later round was answered meanwhile")
            facts = {"seen": seen.with_release(verified.release), "last_round": version}
            state.model_copy(update=facts).write(profile.sealed)


def _not_taking_part() -> RoundRefused:
    return RoundRefused("the user of this device does not take part")
