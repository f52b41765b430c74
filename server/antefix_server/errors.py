"""Errors of the server; all are `antefix.errors.AntefixError`.

VaultError
├── UnknownUser        no such user, or a removed one
├── RecordAbsent       the user has no record of that prefix
├── VersionConflict    another record came first (compare-and-swap)
├── RecordReplaced     the record was replaced or removed while it was read
├── VaultBusy          somebody else holds the database or the vault; try again
├── VaultFull          no space left; nothing was lost
├── VaultUnavailable   database or folder cannot be reached
├── VaultDamaged       stored bytes are not what was stored
├── RemovalUnfinished  recorded and the key destroyed, but bytes are left to delete
└── RestoreRefused     a backup that cannot or must not be restored
PublishError
├── ReleaseAbsent      no release of that version, or nothing is announced
├── ReleaseUnsuitable  a base or a shared prefix that no device could use
└── ReleaseWithdrawn   a version that was taken back
RegistryError
├── NameTaken          a user of that name is there
├── NameUnknown        no user of that name
├── InvitationRefused  used, expired, or never given
├── TokenRefused       of no device that may come in
└── DeviceUnknown      the user has no such device
EngineError
├── EngineBusy         too many requests wait
├── EngineClosed       it is about to end
├── EngineLost         it failed, or its process went away
├── NoGrant            the user has granted nothing that holds
└── GrantsRevoked      something was revoked since the device last heard of it
ServerError
├── ServerUnreachable  the running server went away
├── ServerRefused      the running server refused, and said why
├── FlowerUnreachable  Flower's SuperLink does not answer
├── FlowerRefused      Flower's SuperLink refused
├── TooFewUsers        a round in which not enough updates came
└── ServerUnfit        a setting, a certificate or a port with which it cannot run
"""

from __future__ import annotations

from antefix.errors import AntefixError


class VaultError(AntefixError):
    """About the vault."""


class UnknownUser(VaultError):
    """No such user, or a removed one: which of the two is not said."""

    def __init__(self, user: bytes) -> None:
        super().__init__(
            f"there is no user {user.hex()}", "use the id that enrol gave; a removed user gets a new one"
        )


class RecordAbsent(VaultError):
    """The user has no record of that prefix."""


class VersionConflict(VaultError):
    """Another record came first; the message has both versions."""


class RecordReplaced(VaultError):
    """The record was replaced or removed while it was read piece by piece."""


class VaultBusy(VaultError):
    """Somebody else holds the database or the vault. Nothing was changed; try again."""


class VaultFull(VaultError):
    """No space left. What was refused was not stored, what was stored is still there."""


class VaultUnavailable(VaultError):
    """Database or folder cannot be reached."""


class VaultDamaged(VaultError):
    """Stored bytes are not what was stored."""


class RemovalUnfinished(VaultError):
    """The removal is recorded and the key destroyed, but unreadable bytes are left to delete."""


class RestoreRefused(VaultError):
    """A backup that cannot be restored, or must not be."""


class PublishError(AntefixError):
    """About releases."""


class ReleaseAbsent(PublishError):
    """No release of that version, or nothing is announced."""


class ReleaseUnsuitable(PublishError):
    """A base or a shared prefix that no device could use."""


class ReleaseWithdrawn(PublishError):
    """A version that was taken back, for good."""


class RegistryError(AntefixError):
    """About users and their devices."""


class NameTaken(RegistryError):
    """A user of that name is there."""


class NameUnknown(RegistryError):
    """No user of that name."""


class InvitationRefused(RegistryError):
    """Used, expired, or never given: which of them is not said."""

    def __init__(self) -> None:
        super().__init__("the invitation is used, expired, or not of this server", "ask for a new one")


class TokenRefused(RegistryError):
    """Of no device that may come in: which of the reasons is not said."""

    def __init__(self) -> None:
        super().__init__("the token opens nothing here", "the device may be revoked: ask the operator")


class DeviceUnknown(RegistryError):
    """The user has no such device."""


class EngineError(AntefixError):
    """About generating under users' prefixes."""


class EngineBusy(EngineError):
    """Too many requests wait.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class EngineClosed(EngineError):
    """It is about to end, and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is about to stop", "try again in a while")


class EngineLost(EngineError):
    """What computed the answer failed or went away; it is started anew."""

    def __init__(self) -> None:
        super().__init__("the engine failed or went away while it answered", "try again in a while")


class NoGrant(EngineError):
    """The user has granted nothing that holds."""

    def __init__(self) -> None:
        super().__init__("this user grants the server no prefix, or not any more", "grant it on a device")


class GrantsRevoked(EngineError):
    """Something was revoked since the device last heard of it: it may not grant anew by itself."""

    def __init__(self, now: int, known: int) -> None:
        super().__init__(
            f"grants of this user were revoked {now} times, the device knows of {known}",
            "antefix grant --keep",
        )


class ServerError(AntefixError):
    """About a running server."""


class ServerUnreachable(ServerError):
    """The running server went away."""


class ServerRefused(ServerError):
    """The running server refused, and said why."""


class FlowerUnreachable(ServerError):
    """Flower's SuperLink does not answer. Nothing was changed; try again."""


class FlowerRefused(ServerError):
    """Flower's SuperLink refused."""


class TooFewUsers(ServerError):
    """A round in which not enough updates came. Nothing of it was released."""


class ServerUnfit(ServerError):
    """A setting, a certificate or a port with which the server cannot run."""
