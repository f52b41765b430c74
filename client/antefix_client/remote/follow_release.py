"""Following the server's releases: the base that prefixes are for, and the shared prefix they start from."""

from __future__ import annotations

from antefix.loading.cache import cache_folder
from antefix.wire import Release, ReleaseState
from antefix_client.errors import NoRelease
from antefix_client.model import PersonalModel
from antefix_client.remote.releases import FetchedRelease, fetch_release, request_release
from antefix_client.remote.server_session import ServerSession
from antefix_client.remote.server_state import ServerState


class ReleaseFollower:
    """Has a profile use what its server announces."""

    def __init__(self, server: ServerSession) -> None:
        """Ask nobody yet."""
        self._server = server

    @property
    def version(self) -> int | None:
        """Version of the release in use; None for none.

        Raises:
            NotJoined.
        """
        release = _release_of(self._server.state())
        return None if release is None else release.version

    def follow(self, progress: bool) -> int | None:
        """Use the release that the server announces; its version. See `Membership.follow`.

        A profile that has a base keeps it: a release of another one is refused. One without takes the
        release's. Where a release is withdrawn and there is no other, new prefixes start without a shared
        one.

        Raises:
            ReleaseUnavailable, ReleaseDamaged: try again later; what is in use stays.
            DeviceRefused: the server does not let this device in.
            ReleaseRefused: forged, old, or of another base; what is in use stays.
            ProfileFull, ProfileUnwritable, and what loading the base may raise.
        """
        model = self._server.model
        with self._server.locked() as (profile, state):
            base = profile.manifest.fingerprint
        current = _release_of(state)
        seen = (state.seen or ReleaseState(tenant=state.tenant)).model_copy(update={"base": base})
        with self._server.connect() as api:
            try:
                seen, release = request_release(api.http, bytes.fromhex(state.release_key), seen, current)
            except NoRelease:
                # No other failure: whoever went on after one would load, and so pin, a base of its own.
                if current is None:
                    return self.version
                raise
            if release is None:
                model.use_shared(None)
            elif current is None or release.digest != current.digest:
                folder = cache_folder() / "releases"
                _use(model, fetch_release(api.http, release, folder, progress=progress), base)
        text = None if release is None else release.model_dump_json()
        if (seen, text) != (state.seen, state.release):
            self._store(seen, text)
        return self.version

    def _store(self, seen: ReleaseState, release: str | None) -> None:
        """Keep what is known of releases; what a round has learned meanwhile stays."""
        with self._server.locked() as (profile, state):
            if state.seen is not None and state.seen.tenant == seen.tenant:
                if state.seen.serial > seen.serial:
                    return  # somebody has seen a newer announcement meanwhile
                known = dict(state.seen.versions) | dict(seen.versions)
                seen = seen.model_copy(update={"versions": tuple(sorted(known.items()))})
            state.model_copy(update={"seen": seen, "release": release}).write(profile.sealed)


def _release_of(state: ServerState) -> Release | None:
    return None if state.release is None else Release.model_validate_json(state.release)


def _use(model: PersonalModel, fetched: FetchedRelease, base: str | None) -> None:
    if base is None:
        model.change_base(fetched.base)
        model.load_base()
    model.use_shared(fetched.shared)
