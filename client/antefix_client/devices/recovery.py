"""Bringing an opened profile to a whole state: a process may have ended while its keys or devices changed."""

from __future__ import annotations

from antefix_client.devices import device_changes, user_id_change
from antefix_client.profile.profile import Profile


def recover(profile: Profile) -> Profile:
    """Finish what was cut off, then read which versions there are; the profile, or closed where that fails.

    Raises:
        ProfileDamaged, ProfileFull, ProfileUnwritable.
    """
    try:
        user_id_change.resume(profile)
        device_changes.resume(profile)
        # Last: until the keys are whole some records open under keys that are not in use any more.
        profile.history.recover(profile.prefixes.can_open)
    except BaseException:
        profile.close()
        raise
    return profile
