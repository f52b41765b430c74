"""What a device and a server say to each other."""

from antefix._invitation import Invitation

__all__ = ["Invitation"]
