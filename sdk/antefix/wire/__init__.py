"""What a device and a server say to each other."""

from antefix.wire.invitation import Invitation, server_id
from antefix.wire.messages import Enrol, Enrolled, NodeKey, ServerKeys
from antefix.wire.release import Announcement, Release, Seen, Signed

__all__ = [
    "Announcement",
    "Enrol",
    "Enrolled",
    "Invitation",
    "NodeKey",
    "Release",
    "Seen",
    "ServerKeys",
    "Signed",
    "server_id",
]
