"""Joining a server, and leaving it."""

from __future__ import annotations

from antefix.common.validation import require_text
from antefix.wire import Enrol, Invitation
from antefix_client.devices import user_id_change
from antefix_client.errors import JoinRefused, NotJoined
from antefix_client.remote import server_state
from antefix_client.remote.api_client import ApiClient, fetch_server_keys
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.server_state import ServerState

_MAX_NAME_CHARS = 200


def join(server: ServerSession, invitation: str, address: str, name: str) -> ServerState:
    """Enrol this device as one of the invited user; see `Membership.join`."""
    require_text(invitation, "invitation")
    require_text(address, "server")
    code, url = Invitation.parse(invitation), address.rstrip("/")
    _require_free(server, url)
    keys = fetch_server_keys(url, code)
    with server.model.session.locked() as profile:
        # An invitation is good for the keys that it was used with, and for no others afterwards.
        user_id_change.require_alone(profile, bytes.fromhex(keys.tenant))
        device = profile.keys.device
        public, proof = device.public, code.proof(device)
    request = Enrol(
        invitation=code.text(),
        kem=public.kem_bytes.hex(),
        signing=public.signing_bytes.hex(),
        proof=proof.hex(),
        name=name[:_MAX_NAME_CHARS],
    )
    with ApiClient(url, keys.authority) as api:
        enrolled = api.enrol(request)
    state = ServerState(
        url=url,
        authority=keys.authority,
        release_key=keys.release_key,
        log_key=keys.log_key,
        tenant=enrolled.tenant,
        user=enrolled.user,
        token=enrolled.token,
    )
    with server.model.session.locked() as profile:
        user_id_change.rebind_user(profile, bytes.fromhex(enrolled.tenant), bytes.fromhex(enrolled.user))
        state.write(profile.sealed)
    return state


def leave(server: ServerSession) -> None:
    """Forget the server; see `Membership.leave`."""
    with server.model.session.locked() as profile:
        profile.sealed.delete(server_state.NAME)


def _require_free(server: ServerSession, url: str) -> None:
    try:
        state = server.state()
    except NotJoined:
        return
    if state.url != url and not state.refused:
        raise JoinRefused(f"this profile is on {state.url} already", "antefix leave, then join")
