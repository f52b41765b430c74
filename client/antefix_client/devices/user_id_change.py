"""Going over to the ids that a server gave: the version in use is sealed anew under them.

Records are bound to their user's ids: what was sealed under the old ones would open no more. The version in
use is kept aside under the root key until it is done: after a crash it is the old user, or the new one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace

from antefix.crypto.aead import SecretBytes
from antefix.keys import DeviceList, UserKey
from antefix_client.devices import device_changes
from antefix_client.errors import JoinRefused
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import Version

NAME = "moving"
_SIZE = struct.Struct(">I32s")


def require_alone(profile: Profile, tenant: bytes) -> None:
    """Before anybody is asked: a profile that is linked with other devices cannot take a new server's ids.

    Raises:
        JoinRefused: the other devices would not follow.
    """
    devices = profile.keys.devices
    if devices.tenant != tenant and len(devices.devices) > 1:
        raise _linked()


def rebind_user(profile: Profile, tenant: bytes, user: bytes) -> None:
    """Be that user from now on, with the same keys; older versions than the one in use are dropped.

    Raises:
        JoinRefused: other devices are linked with this one, which would not follow.
        ProfileDamaged: the version in use does not open.
        ProfileFull, ProfileUnwritable.
    """
    keys = profile.keys
    if (keys.devices.tenant, keys.devices.user) == (tenant, user):
        return
    if len(keys.devices.devices) > 1:
        raise _linked()
    newest = profile.history.newest
    if newest is not None:
        _set_aside(profile, newest, tenant, user)
    devices = DeviceList.first(tenant=tenant, user=user, device=keys.device)
    device_changes.save_pending(profile, [])
    # A fresh key, too: the first list is of epoch 1, and the old one may be past it.
    profile.replace_keys(replace(keys, user_key=UserKey.generate(), devices=devices))
    keys.user_key.wipe()
    resume(profile)


def resume(profile: Profile) -> None:
    """Seal what was set aside, if it was and the ids are the new ones; else it is not needed."""
    aside = profile.sealed.read(NAME)
    if aside is None:
        return
    with aside:
        size, shape = _SIZE.unpack_from(aside.data)
        facts = json.loads(bytes(aside.data[_SIZE.size : _SIZE.size + size]))
        if (facts["tenant"], facts["user"]) == (profile.manifest.tenant, profile.manifest.user):
            version = Version.model_validate_json(facts["version"])
            payload = bytes(aside.data[_SIZE.size + size :])
            sealed = profile.prefixes.add(payload, shape, version, version)
            profile.history.keep_only(sealed)
    profile.sealed.delete(NAME)


def _set_aside(profile: Profile, version: Version, tenant: bytes, user: bytes) -> None:
    with profile.prefixes.open(version) as opened:
        facts = {"tenant": tenant.hex(), "user": user.hex(), "version": version.model_dump_json()}
        head = json.dumps(facts).encode()
        shape = opened.edition.address.shape
        with SecretBytes(bytearray(_SIZE.pack(len(head), shape) + head) + opened.payload) as whole:
            profile.sealed.write(NAME, whole.data)


def _linked() -> JoinRefused:
    return JoinRefused(
        "other devices are linked with this profile", "join with a new profile first, then link the devices"
    )
