"""What an operator does with a server's data, whether the server is up or not.

Arguments and results are JSON, so that the same call is made here or over the server's own socket.
"""

from __future__ import annotations

import base64
import inspect
from pathlib import Path
from typing import Any

from antefix.errors import InvalidArgument
from antefix.receipts import Checkpoint
from antefix.rounds import Round
from antefix.wire import Announcement, Invitation, Release
from antefix.wire.release import MAX_BYTES, Privacy, parsed
from antefix_server.engine.interface import Hosting
from antefix_server.errors import ReleaseAbsent
from antefix_server.grants import Grants
from antefix_server.grants.epochs import Epochs
from antefix_server.registry import Device, Registry, User
from antefix_server.releases import Published, Releases
from antefix_server.vault import Vault

Json = Any
_HEX = set("0123456789abcdef")
_SAME = "use the same version of antefix-server for the command and for the server"


class Operations:
    """Each public method is an operation; `names` has them."""

    def __init__(self, vault: Vault, hosting: Hosting | None = None) -> None:
        """Use an open vault; its owner closes it, and the engine where there is one."""
        self._vault, self._registry = vault, Registry(vault)
        self._hosting = hosting

    @classmethod
    def names(cls) -> frozenset[str]:
        """Of all operations."""
        return frozenset(
            name for name in vars(cls) if not name.startswith("_") and name not in ("names", "do")
        )

    def do(self, name: str, arguments: dict[str, Json]) -> Json:
        """One of them by name.

        Raises:
            InvalidArgument: there is none, or not with such arguments.
        """
        try:
            if name not in self.names():
                raise TypeError
            found = inspect.signature(getattr(self, name)).bind(**arguments)
        except TypeError:
            raise InvalidArgument(f"no operation {name!r:.60} with such arguments", _SAME) from None
        return getattr(self, name)(*found.args, **found.kwargs)

    def status(self) -> Json:
        """What is there."""
        with self._vault.log() as log:
            removals = log.removals
        return {
            "data": str(self._vault.folder),
            "vault": self._vault.tenant.hex(),
            "users": self._registry.count(),
            "records": self._vault.shelf.count(),
            "removals": removals,
            "release": next((one.release.version for one in Releases(self._vault).list() if one.current), 0),
            "log key": self._vault.log_key.text(),
        }

    def add_user(self, name: str, invited_s: int) -> Json:
        """A new user; its id and its invitation."""
        added = self._registry.add(name, invited_s=invited_s)
        return {"id": added.user.id.hex(), "invitation": _code(added.invitation)}

    def invite(self, name: str, invited_s: int) -> Json:
        """The way in for one more device."""
        return {"invitation": _code(self._registry.invite(name, invited_s=invited_s))}

    def users(self) -> Json:
        """All of them."""
        return [_user(one) for one in self._registry.users()]

    def user(self, name: str) -> Json:
        """One of them, with its devices."""
        return {**_user(self._registry.find(name)), "devices": self.devices(name)}

    def suspend(self, name: str, suspended: bool) -> Json:
        """Let its devices in no more, or again."""
        found = self._registry.suspend(name, suspended)
        self._recheck(found.id)
        return _user(found)

    def remove(self, name: str) -> Json:
        """Remove a user; the receipt. Its nodes are no use without its tokens; Flower forgets them later."""
        receipt = self._registry.remove(name)
        self._recheck(receipt.removal.user)
        return {"receipt": receipt.text()}

    def devices(self, name: str) -> Json:
        """Those of a user."""
        return [_device(one) for one in self._registry.devices(name)]

    def revoke(self, name: str, device: str) -> Json:
        """Let a device in no more."""
        if len(device) != 32 or set(device) - _HEX:
            raise InvalidArgument(
                f"a device id of {len(device):,} characters",
                "it has 32 hex digits: antefix-server devices list",
            )
        found = self._registry.revoke(name, bytes.fromhex(device))
        self._recheck(self._registry.find(name).id)
        return _device(found)

    def grants(self, name: str) -> Json:
        """What a user lets this server use now."""
        names = ("id", "prefix", "version", "device", "since", "until")
        found = self._grants.of(self._registry.find(name).id)
        return [{key: getattr(one, key) for key in names} for one in found]

    def revoke_grant(self, name: str, grant: str) -> Json:
        """Use a grant no more; what runs under it ends."""
        user = self._registry.find(name).id
        if len(grant) != 32 or set(grant) - _HEX or not self._grants.revoke(user, bytes.fromhex(grant)):
            raise InvalidArgument(f"user {name!r} has no such grant", "antefix-server grants list NAME")
        self._recheck(user)
        return {"revoked": True}

    def end_grants(self) -> Json:
        """Destroy the keys of all grants, of everybody: none opens any more, here or on a copy."""
        epochs = Epochs(self._vault.folder) if self._hosting is None else self._hosting.epochs
        return {"keys destroyed": epochs.destroy_all()}

    @property
    def _grants(self) -> Grants:
        return (
            Grants(self._vault, Epochs(self._vault.folder)) if self._hosting is None else self._hosting.grants
        )

    def _recheck(self, user: bytes) -> None:
        if self._hosting is not None:
            self._hosting.engine.recheck(user)

    def backup(self, records: str | None, keys: str | None) -> Json:
        """Back up into one file or both; how many records."""
        from antefix_server.backups import backup_keys, backup_records

        if records is None and keys is None:
            raise InvalidArgument("nothing to back up was named", "give --records FILE, --keys FILE, or both")
        count = None if records is None else backup_records(self._vault, Path(records))
        if keys is not None:
            backup_keys(self._vault, Path(keys))
        return {"records": count, "keys": keys is not None}

    def verify_log(self, since: str | None) -> Json:
        """Go through the whole removal log; its checkpoint."""
        earlier = None if since is None else Checkpoint.parse(since)
        with self._vault.log() as log:
            return {"entries": log.size, "checkpoint": log.verify(earlier).text()}

    def publish(
        self, base: str, shared: str | None, content: str | None, sources: list[str], note: str
    ) -> Json:
        """A new release; its shared prefix is in a file, or comes in base64."""
        prefix = None if shared is None else Path(shared)
        given = prefix if content is None else base64.b64decode(content)
        made = Releases(self._vault).publish(base, shared=given, sources=sources, note=note)
        return _release(Published(made, current=False, withdrawn=False))

    def releases(self) -> Json:
        """All of them."""
        return [_release(one) for one in Releases(self._vault).list()]

    def promote(self, version: int) -> Json:
        """Have devices use a release."""
        return _announcement(Releases(self._vault).promote(version))

    def withdraw(self, version: int) -> Json:
        """Have devices use a release no more."""
        return _announcement(Releases(self._vault).withdraw(version))

    def prune(self, keep: int) -> Json:
        """Delete old releases; their versions."""
        return Releases(self._vault).prune(keep)

    def participants(self, nodes: list[int]) -> Json:
        """Who of Flower's nodes may take part in rounds."""
        found = self._registry.participants(nodes)
        return [{"node": one.node, "user": one.user, "signing": one.signing.hex()} for one in found]

    def standing(self) -> Json:
        """The newest release that is not withdrawn, which must have a shared prefix."""
        good = [one.release for one in Releases(self._vault).list() if not one.withdrawn]
        if not good or good[-1].shared is None:
            raise ReleaseAbsent(
                "there is no shared prefix to improve", "antefix-server base publish BASE --shared FILE"
            )
        return self._standing(good[-1])

    def sign_round(self, statement: str) -> Json:
        """A round with the server's signature, in hex."""
        found = parsed(Round, statement.encode(), MAX_BYTES)
        if found.tenant != self._vault.tenant.hex():
            raise InvalidArgument("a round of another server", "start rounds with antefix-server federate")
        return found.signed(self._vault.identity.releasing).to_bytes().hex()

    def publish_shared(self, content: str, privacy: dict[str, Json] | None, note: str) -> Json:
        """The next release: base as it is, this shared prefix."""
        guarantee = None if privacy is None else Privacy.model_validate(privacy)
        prefix = base64.b64decode(content)
        return self._standing(Releases(self._vault).publish(shared=prefix, privacy=guarantee, note=note))

    def _standing(self, release: Release) -> Json:
        releases = Releases(self._vault)
        if release.shared is None:
            raise ReleaseAbsent("the release has no shared prefix", "publish one with --shared FILE")
        prefix = releases.file(release.shared.sha256).read_bytes()
        return {
            "tenant": release.tenant,
            "version": release.version,
            "digest": release.digest,
            "signed": releases.manifest(release.version).to_bytes().hex(),
            "prefix": base64.b64encode(prefix).decode(),
        }


def _code(invitation: Invitation) -> str:
    return invitation.text()


def _user(one: User) -> Json:
    return {"name": one.name, "id": one.id.hex(), "added": one.added, "suspended": one.suspended}


def _device(one: Device) -> Json:
    return {"id": one.id.hex(), "name": one.name, "enrolled": one.enrolled, "revoked": one.revoked}


def _announcement(made: Announcement) -> Json:
    current = None if made.current is None else made.current.version
    return {"announcement": made.serial, "current": current, "withdrawn": list(made.withdrawn)}


def _release(one: Published) -> Json:
    release = one.release
    return {
        "version": release.version,
        "state": "withdrawn" if one.withdrawn else "current" if one.current else "",
        "base": release.base.name,
        "fingerprint": release.base.fingerprint,
        "digest": release.digest,
        "created": release.created,
        "files": len(release.files),
        "bytes": sum(release.sizes.values()),
        "shared": None if release.shared is None else release.shared.sha256,
        "note": release.note,
    }
