"""What a device and a server say to each other."""

from antefix.common.deprecation import former_names
from antefix.wire.announcement import Announcement, ReleaseState
from antefix.wire.invitation import Invitation, server_id
from antefix.wire.messages import Enrol, Enrolled, NodeKey, ServerKeys
from antefix.wire.release import Release
from antefix.wire.signed import Signed

__all__ = [
    "Announcement",
    "Enrol",
    "Enrolled",
    "Invitation",
    "NodeKey",
    "Release",
    "ReleaseState",
    "ServerKeys",
    "Signed",
    "server_id",
]

__getattr__ = former_names(__name__, {"Seen": "ReleaseState"})
