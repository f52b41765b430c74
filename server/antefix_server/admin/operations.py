"""What an operator does with a server's data, whether the server is up or not: a route for each operation.

A command calls a route's function in its own process where no server runs, and sends the same arguments over
the server's own socket where one does (`antefix_server.admin.admin_socket`). To add an operation, write one
function with `@router.post`: its parameters are checked, and its result is JSON or bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.routing import APIRoute

from antefix.errors import InvalidArgument
from antefix.receipts import Checkpoint
from antefix.rounds import Round
from antefix.wire import Announcement, Invitation, Release
from antefix.wire.release import Privacy
from antefix.wire.signed import MAX_BYTES, parse_model
from antefix_server.engine.interface import Hosting
from antefix_server.errors import ReleaseAbsent
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Device, Registry, User
from antefix_server.releases import Published, Releases
from antefix_server.vault import Vault

Facts: TypeAlias = dict[str, Any]
_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class Site:
    """What operations work on: an open vault, and the engine where there is one. Their owner closes them."""

    vault: Vault
    hosting: Hosting | None = None

    @property
    def registry(self) -> Registry:
        """Users and devices."""
        return Registry(self.vault)

    @property
    def releases(self) -> Releases:
        """Shared bases and prefixes."""
        return Releases(self.vault)

    @property
    def epochs(self) -> Epochs:
        """Keys of grants."""
        return Epochs(self.vault.folder) if self.hosting is None else self.hosting.epochs

    @property
    def grants(self) -> Grants:
        """What users let this server use."""
        return Grants(self.vault, self.epochs) if self.hosting is None else self.hosting.grants

    def recheck(self, user: bytes) -> None:
        """End what runs for a user and may not run any more."""
        if self.hosting is not None:
            self.hosting.engine.recheck(user)


def find(name: str) -> Callable[..., Any]:
    """The function of an operation."""
    routes = (route for route in router.routes if isinstance(route, APIRoute))
    return next(route.endpoint for route in routes if route.name == name)


def _refuse_unknown(request: Request) -> None:
    """An argument that this version does not know must not be passed over in silence."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    if unknown := set(request.query_params) - known:
        raise InvalidArgument(f"no operation takes {min(unknown)!r:.60} here", SAME_VERSION)


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


SAME_VERSION = "use the same version of antefix-server for the command and for the server"
router = APIRouter(dependencies=[Depends(_refuse_unknown)])
TheSite = Annotated[Site, Depends(_site)]
Content = Annotated[bytes, Body(media_type="application/octet-stream")]


@router.post("/status")
def status(site: TheSite) -> Facts:
    """What is there."""
    with site.vault.log() as log:
        removals = log.removals
    return {
        "data": str(site.vault.folder),
        "vault": site.vault.tenant.hex(),
        "users": site.registry.count(),
        "records": site.vault.shelf.count(),
        "removals": removals,
        "release": next((entry.release.version for entry in site.releases.list() if entry.current), 0),
        "log key": site.vault.log_key.text(),
    }


@router.post("/add_user")
def add_user(site: TheSite, name: str, invited_s: int) -> Facts:
    """Add a user; its id and the invitation for its first device."""
    added = site.registry.add(name, invited_s=invited_s)
    return {"id": added.user.id.hex(), **_invitation(added.invitation)}


@router.post("/invite")
def invite(site: TheSite, name: str, invited_s: int) -> Facts:
    """Invite one more device of a user."""
    return _invitation(site.registry.invite(name, invited_s=invited_s))


@router.post("/list_users")
def list_users(site: TheSite) -> list[Facts]:
    """List all users."""
    return [_user(user) for user in site.registry.users()]


@router.post("/show_user")
def show_user(site: TheSite, name: str) -> Facts:
    """Show a user with its devices."""
    return {**_user(site.registry.find(name)), "devices": list_devices(site, name)}


@router.post("/suspend")
def suspend(site: TheSite, name: str, suspended: bool) -> Facts:
    """Refuse a user's devices from now on, or let them in again."""
    user = site.registry.suspend(name, suspended)
    site.recheck(user.id)
    return _user(user)


@router.post("/remove")
def remove(site: TheSite, name: str) -> Facts:
    """Remove a user; the receipt. Its nodes are no use without its tokens; Flower forgets them later."""
    receipt = site.registry.remove(name)
    site.recheck(receipt.removal.user)
    return {"receipt": receipt.text()}


@router.post("/list_devices")
def list_devices(site: TheSite, name: str) -> list[Facts]:
    """List the devices of a user."""
    return [_device(device) for device in site.registry.devices(name)]


@router.post("/revoke")
def revoke(site: TheSite, name: str, device: str) -> Facts:
    """Refuse a device from now on."""
    if len(device) != 32 or set(device) - _HEX:
        raise InvalidArgument(
            f"a device id of {len(device):,} characters", "it has 32 hex digits: antefix-server devices list"
        )
    revoked = site.registry.revoke(name, bytes.fromhex(device))
    site.recheck(site.registry.find(name).id)
    return _device(revoked)


@router.post("/list_grants")
def list_grants(site: TheSite, name: str) -> list[Facts]:
    """List what a user lets this server use now."""
    names = ("id", "prefix", "version", "device", "since", "until")
    grants = site.grants.of(site.registry.find(name).id)
    return [{key: getattr(grant, key) for key in names} for grant in grants]


@router.post("/revoke_grant")
def revoke_grant(site: TheSite, name: str, grant: str) -> Facts:
    """Use a grant no more; what runs under it ends."""
    user = site.registry.find(name).id
    if len(grant) != 32 or set(grant) - _HEX or not site.grants.revoke(user, bytes.fromhex(grant)):
        raise InvalidArgument(f"user {name!r} has no such grant", "antefix-server grants list NAME")
    site.recheck(user)
    return {"revoked": True}


@router.post("/end_grants")
def end_grants(site: TheSite) -> Facts:
    """Destroy the keys of all grants, of everybody: none opens any more, here or on a copy."""
    return {"keys destroyed": site.epochs.destroy_all()}


@router.post("/backup")
def backup(site: TheSite, records: str | None = None, keys: str | None = None) -> Facts:
    """Back up into one file or both; how many records."""
    from antefix_server.backups import backup_keys, backup_records

    if records is None and keys is None:
        raise InvalidArgument("nothing to back up was named", "give --records FILE, --keys FILE, or both")
    count = None if records is None else backup_records(site.vault, Path(records))
    if keys is not None:
        backup_keys(site.vault, Path(keys))
    return {"records": count, "keys": keys is not None}


@router.post("/verify_log")
def verify_log(site: TheSite, since: str | None = None) -> Facts:
    """Go through the whole removal log; its checkpoint."""
    earlier = None if since is None else Checkpoint.parse(since)
    with site.vault.log() as log:
        return {"entries": log.size, "checkpoint": log.verify(earlier).text()}


@router.post("/publish")
def publish(
    site: TheSite,
    base: str,
    sources: Annotated[list[str], Query(default_factory=list)],
    shared: str | None = None,
    note: str = "",
    content: Annotated[bytes | None, Body(media_type="application/octet-stream")] = None,
) -> Facts:
    """Publish a release; its shared prefix is in a file, or is the content."""
    prefix = content if shared is None else Path(shared)
    release = site.releases.publish(base, shared=prefix, sources=sources, note=note)
    return _release(Published(release, current=False, withdrawn=False))


@router.post("/list_releases")
def list_releases(site: TheSite) -> list[Facts]:
    """List all releases."""
    return [_release(entry) for entry in site.releases.list()]


@router.post("/promote")
def promote(site: TheSite, version: int) -> Facts:
    """Have devices use a release."""
    return _announcement(site.releases.promote(version))


@router.post("/withdraw")
def withdraw(site: TheSite, version: int) -> Facts:
    """Have devices use a release no more."""
    return _announcement(site.releases.withdraw(version))


@router.post("/prune")
def prune(site: TheSite, keep: int) -> list[int]:
    """Delete old releases; their versions."""
    return site.releases.prune(keep)


@router.post("/find_participants")
def find_participants(site: TheSite, nodes: Annotated[list[int], Body()]) -> list[Facts]:
    """Which of Flower's nodes may take part in rounds."""
    participants = site.registry.nodes.participants(nodes)
    return [{"node": node.node, "user": node.user, "signing": node.signing.hex()} for node in participants]


@router.post("/latest_release")
def latest_release(site: TheSite) -> Facts:
    """The newest release that is not withdrawn, which must have a shared prefix."""
    good = [entry.release for entry in site.releases.list() if not entry.withdrawn]
    if not good or good[-1].shared is None:
        raise ReleaseAbsent(
            "there is no shared prefix to improve", "antefix-server base publish BASE --shared FILE"
        )
    return _signed_release(site, good[-1])


@router.post("/read_shared")
def read_shared(site: TheSite, version: int) -> Response:
    """The file of a release's shared prefix."""
    release = next(
        (entry.release for entry in site.releases.list() if entry.release.version == version), None
    )
    if release is None or release.shared is None:
        raise ReleaseAbsent("the release has no shared prefix", "publish one with --shared FILE")
    return _bytes(site.releases.file(release.shared.sha256).read_bytes())


@router.post("/sign_round")
def sign_round(site: TheSite, statement: Content) -> Response:
    """A round with the server's signature, as devices take it."""
    signed = parse_model(Round, statement, MAX_BYTES)
    if signed.tenant != site.vault.tenant.hex():
        raise InvalidArgument("a round of another server", "start rounds with antefix-server federate")
    return _bytes(signed.signed(site.vault.identity.releasing).to_bytes())


@router.post("/publish_shared")
def publish_shared(site: TheSite, content: Content, note: str, privacy: str | None = None) -> Facts:
    """Publish the next release: base as it is, this shared prefix; what its rounds guarantee is JSON."""
    # As a model it would be a second body, and the first would be looked for in a field of JSON.
    guarantee = None if privacy is None else parse_model(Privacy, privacy.encode(), MAX_BYTES)
    return _signed_release(site, site.releases.publish(shared=content, privacy=guarantee, note=note))


def _bytes(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


def _signed_release(site: Site, release: Release) -> Facts:
    return {
        "tenant": release.tenant,
        "version": release.version,
        "digest": release.digest,
        "signed": site.releases.manifest(release.version).to_bytes().decode(),
    }


def _invitation(invitation: Invitation) -> Facts:
    return {"invitation": invitation.text()}


def _user(user: User) -> Facts:
    return {"name": user.name, "id": user.id.hex(), "added": user.added, "suspended": user.suspended}


def _device(device: Device) -> Facts:
    return {
        "id": device.id.hex(),
        "name": device.name,
        "enrolled": device.enrolled,
        "revoked": device.revoked,
    }


def _announcement(announcement: Announcement) -> Facts:
    current = None if announcement.current is None else announcement.current.version
    return {
        "announcement": announcement.serial,
        "current": current,
        "withdrawn": list(announcement.withdrawn),
    }


def _release(entry: Published) -> Facts:
    release = entry.release
    return {
        "version": release.version,
        "state": "withdrawn" if entry.withdrawn else "current" if entry.current else "",
        "base": release.base.name,
        "fingerprint": release.base.fingerprint,
        "digest": release.digest,
        "created": release.created,
        "files": len(release.files),
        "bytes": sum(release.sizes.values()),
        "shared": None if release.shared is None else release.shared.sha256,
        "note": release.note,
    }
