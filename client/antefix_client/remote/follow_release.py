"""Following the server's releases: the base that prefixes are for, and the shared prefix they start from."""

from __future__ import annotations

from pathlib import Path

from antefix.loading.cache import cache_folder
from antefix.wire import Release, ReleaseState
from antefix_client.errors import NoRelease
from antefix_client.model import PersonalModel
from antefix_client.remote.api_client import ApiClient
from antefix_client.remote.releases import FetchedRelease, fetch_release, request_release
from antefix_client.remote.server_state import ServerState


def follow(model: PersonalModel, member: ServerState, remote: ApiClient, progress: bool) -> ServerState:
    """Do what the server announces; what is known from then on, for the caller to keep.

    A profile that has a base keeps it: a release of another one is refused. One without takes the release's.
    Where a release is withdrawn and there is no other, new prefixes start without a shared one.

    Raises:
        ReleaseUnavailable, ReleaseDamaged: try again later; what is in use stays.
        DeviceRefused: the server does not let this device in.
        ReleaseRefused: forged, old, or of another base; what is in use stays.
        ProfileFull, ProfileUnwritable, and what loading the base may raise.
    """
    kept = None if member.release is None else Release.model_validate_json(member.release)
    with model.locked() as profile:
        base = profile.manifest.fingerprint
    seen = member.seen or ReleaseState(tenant=member.tenant)
    seen = seen.model_copy(update={"base": base})
    try:
        after, release = request_release(remote.http, bytes.fromhex(member.release_key), seen, kept)
    except NoRelease:
        # No other failure: whoever went on after one would load a base of its own, which then stays pinned.
        if kept is None:
            return member
        raise
    if release is None:
        model.use_shared(None)
    elif kept is None or release.digest != kept.digest:
        _use(model, fetch_release(remote.http, release, cache_folder() / "releases", progress=progress), base)
    text = None if release is None else release.model_dump_json()
    return member.model_copy(update={"seen": after, "release": text})


def _use(model: PersonalModel, fetched: FetchedRelease, base: str | None) -> None:
    if base is None:
        model.change_base(fetched.base)
        model.load_base()
    shared: Path | None = fetched.shared
    model.use_shared(shared)
