"""Bringing an opened profile to a whole state: a process may have ended while its keys or devices changed."""

from __future__ import annotations

from antefix_client.devices import device_changes, user_id_change
from antefix_client.profile.profile import Profile


def recover(profile: Profile) -> Profile:
    """Finish what was cut off, then load the versions; the profile, or closed where that fails.

    Raises:
        ProfileDamaged, ProfileFull, ProfileUnwritable.
    """
    try:
        user_id_change.resume(profile)
        device_changes.resume(profile)
        profile.load_versions()
    except BaseException:
        profile.close()
        raise
    return profile
