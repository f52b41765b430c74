"""Errors of the client; all are `antefix.errors.AntefixError`.

ProfileError
├── ProfileAbsent      no profile in that folder
├── ProfileExists      a folder with something in it, where a new profile was to be
├── ProfileInUse       another process has it open
├── ProfileClosed      it was closed, or forgotten
├── ProfileDamaged     a part of it is not what was written
├── ProfileFull        no space left; nothing was lost
├── ProfileUnwritable  the folder cannot be read or written
├── UnlockRefused      wrong passphrase or key
├── LinkRefused        not the two devices that a person compared, or not their messages
├── DeviceRemoved      this device is not on its user's list any more
├── BaseChanged        the base is not the one that the prefixes were trained on
├── TextRefused        a text that is empty or too long
└── TooFewTexts        nothing to learn from yet
MembershipError
├── NotJoined          the profile is on no server
├── JoinRefused        the profile cannot join that server
├── ServerUnreachable  the server does not answer; try again
├── ServerNotTrusted   not the server that the invitation names
├── DeviceRefused      the server lets this device in no more, or not now
├── ServerRefused      the server refused, and said why
├── ReleaseUnavailable the server or a file of its release cannot be reached now
│   └── NoRelease      the server has announced none
└── ReleaseDamaged     no source gives the bytes that were signed

A received version that is older than all that is kept is an `antefix.errors.RecordMismatch`.
"""

from __future__ import annotations

from antefix.common.deprecation import former_names
from antefix.errors import AntefixError
from antefix.errors import RecordMismatch as RecordMismatch

__getattr__ = former_names(__name__, {"FetchError": "MembershipError", "VersionRefused": "RecordMismatch"})


class ProfileError(AntefixError):
    """About a profile."""


class ProfileAbsent(ProfileError):
    """No profile in that folder."""


class ProfileExists(ProfileError):
    """A folder with something in it, where a new profile was to be."""


class ProfileInUse(ProfileError):
    """Another process has the profile open."""


class ProfileClosed(ProfileError):
    """The profile was closed, or forgotten."""

    def __init__(self) -> None:
        super().__init__("this profile is closed", "open it again")


class ProfileDamaged(ProfileError):
    """A part of the profile is not what was written."""


class ProfileFull(ProfileError):
    """No space left. What was refused was not stored, what was stored is still there."""


class ProfileUnwritable(ProfileError):
    """The folder cannot be read or written."""


class UnlockRefused(ProfileError):
    """Wrong passphrase or key. The message is the same whatever the reason."""

    def __init__(self) -> None:
        super().__init__(
            "the profile does not open with this passphrase or key",
            "check the keyboard's layout; each try takes a moment on purpose, so wait between tries",
        )


class LinkRefused(ProfileError):
    """Not the two devices that a person compared, or not what they wrote. Nothing was changed."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(
            f"the link is refused: {why}",
            hint or "read the fingerprint off the other device's screen again, or begin with a new request",
        )


class DeviceRemoved(ProfileError):
    """This device is not on its user's list any more. Nothing was changed here."""

    def __init__(self, by: str) -> None:
        super().__init__(
            f"this device was removed by device {by}",
            "what is here stays; to link it again: a new profile, antefix export --what texts",
        )


class BaseChanged(ProfileError):
    """The base is not the one that the profile's prefixes were trained on."""


class TextRefused(ProfileError):
    """A text that is empty, or too long to be remembered."""


class TooFewTexts(ProfileError):
    """Nothing to learn from yet."""


class MembershipError(AntefixError):
    """About a profile's place on a server. Nothing of the profile was lost."""


class NotJoined(MembershipError):
    """The profile is on no server."""

    def __init__(self) -> None:
        super().__init__("this profile is on no server", "antefix join CODE --server URL")


class JoinRefused(MembershipError):
    """The profile cannot join that server."""


class ServerUnreachable(MembershipError):
    """The server does not answer. Nothing was changed; try again."""


class ServerNotTrusted(MembershipError):
    """Not the server that the invitation names, or somebody is in between. Nothing was told to it."""


class DeviceRefused(MembershipError):
    """The server does not let this device in: the user was suspended or removed, or the device revoked.

    Which of them it does not say: a token that opens nothing learns nothing.
    """

    def __init__(self) -> None:
        super().__init__(
            "the server does not let this device in: its user is suspended for now or was removed, "
            "or the device was revoked",
            "ask its operator which; nothing is lost here. A suspension ends when the operator resumes the "
            "user; after a removal antefix leave keeps the profile for yourself",
        )


class ServerRefused(MembershipError):
    """The server refused, and said why.

    Attributes:
        status: of its answer.
    """

    def __init__(self, message: str, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint)
        self.status = status


class ReleaseUnavailable(MembershipError):
    """The server, or a file of its release, cannot be reached now. The same call goes on from what came."""


class NoRelease(ReleaseUnavailable):
    """The server has announced none; what is in use stays in use."""

    def __init__(self) -> None:
        super().__init__("the server has announced no release", "what is in use stays in use")


class ReleaseDamaged(MembershipError):
    """No source gives the bytes that were signed."""
