"""What a device and a server say to each other."""

from antefix._invitation import Invitation, server_id
from antefix._messages import Enrol, Enrolled, NodeKey, ServerKeys
from antefix._release import Announcement, Release, Seen, Signed

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
