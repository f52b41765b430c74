"""Changes of the user's devices: made here, or taken over from another device.

One that is made here is kept in the sealed file `changes` before anything else: cut off after that, the next
opening takes it over like one from elsewhere. With a new user key every record here is wrapped anew; the old
key is kept aside, in `rotating`, until that is done.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from antefix.common.validation import require
from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.errors import DeviceListRefused, KeyRefused, RecordError
from antefix.keys import DeviceChange, DeviceList, DevicePublic, UserKey
from antefix.records import read_header, rewrap
from antefix_client.devices.link_request import format_fingerprint, parse_fingerprint
from antefix_client.errors import DeviceRemoved, LinkRefused, ProfileDamaged
from antefix_client.profile.profile import Profile
from antefix_client.profile.version_history import Version

NAME, ROTATING = "changes", "rotating"
_SIZE = struct.Struct(">I")
_ASIDE = struct.Struct(f">I32s{KEY_BYTES}s")
_MOST = 32  # kept where no server takes them


def pending(profile: Profile) -> list[bytes]:
    """Changes that were made on this device and that no server is known to have, oldest first."""
    stored = profile.sealed.read(NAME)
    if stored is None:
        return []
    with stored:
        return _parts(bytes(stored.data))


def save_pending(profile: Profile, changes: list[bytes]) -> None:
    """Those and no others; durable on return."""
    if changes:
        profile.sealed.write(NAME, pack(changes[-_MOST:]))
    else:
        profile.sealed.delete(NAME)


def pack(changes: list[bytes]) -> bytes:
    """Several in one; each says its own length."""
    return b"".join(_SIZE.pack(len(change)) + change for change in changes)


def add_device(profile: Profile, device: DevicePublic) -> None:
    """Put a device on the list.

    Raises:
        InvalidArgument: the list is full.
    """
    keys = profile.keys
    _make(profile, DeviceChange.adding(keys.devices, device, signer=keys.device))


def remove_device(profile: Profile, device: str) -> None:
    """Take a device off the list, and rotate the user key; see `PersonalModel.remove_device`."""
    keys, gone = profile.keys, parse_fingerprint(device)
    if gone == keys.device.id:
        raise LinkRefused("a device cannot remove itself", "remove it on another one; here: antefix forget")
    if gone not in keys.devices.writers:
        raise LinkRefused(f"device {format_fingerprint(gone)} is not linked", "antefix device list")
    fresh = keys.user_key.rotated()
    with fresh.secret:
        change = DeviceChange.removing(keys.devices, gone, key=fresh, signer=keys.device)
    _make(profile, change)


def apply_all(profile: Profile, content: bytes) -> None:
    """Take over several, those that are known already left out; see `PersonalModel.follow_devices`."""
    require(content, bytes, "the changes")
    for change in _parts(content):
        if DeviceChange.version_of(change) > profile.keys.devices.version:
            apply(profile, change)


def apply(profile: Profile, content: bytes) -> None:
    """Take over the next change, of another device or of this one.

    Raises:
        DeviceListRefused, DeviceRemoved: nothing was changed.
    """
    keys = profile.keys
    change = DeviceChange.following(content, keys.devices)
    if keys.device.id not in change.devices.writers:
        raise DeviceRemoved(format_fingerprint(change.devices.signer))
    if change.left is None:
        profile.replace_keys(replace(keys, devices=change.devices))
        return
    try:
        fresh = change.key_for(keys.device)
    except KeyRefused:
        raise DeviceListRefused("the user key in it does not open here") from None
    _set_aside(profile)
    profile.replace_keys(replace(keys, user_key=fresh, devices=change.devices))
    _rewrap(profile)
    keys.user_key.wipe()


def resume(profile: Profile) -> None:
    """Bring to its end what was cut off."""
    _rewrap(profile)
    for content in pending(profile):
        try:
            if DeviceChange.version_of(content) == profile.keys.devices.version + 1:
                apply(profile, content)
        except DeviceListRefused:  # of the user that this profile was before
            save_pending(profile, [])
            return


def _make(profile: Profile, change: DeviceChange) -> None:
    save_pending(profile, [*pending(profile), change.content])
    apply(profile, change.content)


def _parts(content: bytes) -> list[bytes]:
    """The changes in a bundle.

    Raises:
        DeviceListRefused: it is none.
    """
    parts, at = list[bytes](), 0
    while at < len(content):
        size = int.from_bytes(content[at : at + _SIZE.size], "big")
        parts.append(content[at + _SIZE.size : at + _SIZE.size + size])
        at += _SIZE.size + size
    if at != len(content) or not parts:
        raise DeviceListRefused("these are no changes of devices")
    return parts


def _set_aside(profile: Profile) -> None:
    keys = profile.keys
    with SecretBytes(bytearray(_ASIDE.size)) as head:
        _ASIDE.pack_into(head.data, 0, keys.user_key.epoch, keys.devices.digest, keys.user_key.secret.data)
        with SecretBytes(head.data + keys.devices.to_bytes()) as whole:
            profile.sealed.write(ROTATING, whole.data)


def _rewrap(profile: Profile) -> None:
    """Every record that is still under the key before, if one was set aside, under the one in use."""
    aside = profile.sealed.read(ROTATING)
    if aside is None:
        return
    with aside:
        epoch, digest, _ = _ASIDE.unpack_from(aside.data)
        before = DeviceList.from_digest(bytes(aside.data[_ASIDE.size :]), digest=digest)
        with SecretBytes(aside.data[_ASIDE.size - KEY_BYTES : _ASIDE.size]) as secret:
            changed = profile.keys.user_key.epoch != epoch  # else it was cut off before
            for version in profile.history.versions if changed else []:
                _rewrap_one(profile, version, UserKey(secret, epoch), before)
    profile.sealed.delete(ROTATING)


def _rewrap_one(profile: Profile, version: Version, old: UserKey, before: DeviceList) -> None:
    keys = profile.keys
    try:
        record = profile.history.record(version)
        cover = read_header(record)
        if cover.epoch == keys.user_key.epoch:
            return
        address = profile.prefixes.address(version.base, cover.edition.address.shape)
        new = rewrap(record, address, old=old, new=keys.user_key, device=keys.device, writers=before.writers)
    except (RecordError, ProfileDamaged):
        return  # it did not open before either, and is named when it is used
    profile.history.replace_record(version, new)
