"""Linking a second device: one of the user's devices admits a new one, which joins.

Nobody in between is trusted. A person compares two fingerprints, one in each direction; all else follows from
them: the user key is sealed to the compared new device, and the welcome is signed by the compared old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from antefix.common.validation import require
from antefix.errors import InvalidArgument, KeyRefused
from antefix_client.devices import device_changes, link_request
from antefix_client.devices.link_request import format_fingerprint
from antefix_client.devices.welcome import UNKNOWN_BASE, Welcome
from antefix_client.errors import BaseChanged, LinkRefused
from antefix_client.profile.key_store import KeyStore
from antefix_client.profile.profile import Profile


def admit(profile: Profile, request: bytes, device: str) -> bytes:
    """Put a new device on the list and write its welcome; see `PersonalModel.admit`.

    The same request again gives a welcome again, should the first be lost.
    """
    new, keys = link_request.from_bytes(request, device=device), profile.keys
    devices = keys.devices
    if new.id == keys.device.id:
        raise LinkRefused("the request is of this device itself", "admit it on another device of yours")
    try:  # before the list is changed: keys that are none get nowhere
        sealed = keys.user_key.seal_for(new, tenant=devices.tenant, user=devices.user)
        if new.id not in devices.writers:
            device_changes.add_device(profile, new)
            devices = profile.keys.devices
    except InvalidArgument as error:
        raise LinkRefused(error.message) from None
    if devices.signer != keys.device.id:
        raise LinkRefused(
            f"device {format_fingerprint(new.id)} was admitted by another device", "admit it there"
        )
    card = profile.manifest
    base = UNKNOWN_BASE if card.fingerprint is None else bytes.fromhex(card.fingerprint)
    name = Path(card.base).name  # of a folder the last part: a path says whose computer it is on
    welcome = Welcome(keys.device.id, new.id, keys.prefix, base, name, sealed, devices)
    return welcome.to_bytes(keys.device)


def join(profile: Profile, content: bytes, device: str) -> None:
    """Become a device of the user who wrote a welcome; see `PersonalModel.join`.

    The keys change in one write. Cut off before it, the profile is what it was; after it, it has joined.
    """
    sender = link_request.parse_fingerprint(device)
    require(content, bytes, "the welcome")
    welcome, keys = Welcome.from_bytes(content, sender=sender), profile.keys
    if welcome.receiver != keys.device.id or keys.device.id not in welcome.devices.writers:
        raise LinkRefused(
            f"the welcome is for device {format_fingerprint(welcome.receiver)}, this is another"
        )
    if keys.devices == welcome.devices and keys.prefix == welcome.prefix:
        return  # joined already, by this very welcome or its like
    _require_base(profile, welcome)
    _require_fresh(profile)
    of = welcome.devices
    try:
        user_key = keys.device.open_user_key(
            welcome.sealed_key, tenant=of.tenant, user=of.user, epoch=of.epoch
        )
    except KeyRefused:
        raise LinkRefused("the user key in the welcome does not open here") from None
    if profile.manifest.fingerprint is None and welcome.fingerprint != UNKNOWN_BASE:
        profile.pin_base(welcome.fingerprint.hex())  # first: if this is cut off, nothing is lost by it
    _replace(profile, replace(keys, user_key=user_key, devices=of, prefix=welcome.prefix))


def _replace(profile: Profile, keys: KeyStore) -> None:
    old = profile.keys
    device_changes.save_pending(profile, [])  # of the user that this profile was
    try:
        profile.replace_keys(keys)
    finally:  # whichever of the two is not in use
        (old if profile.keys is keys else keys).user_key.wipe()


def _require_base(profile: Profile, welcome: Welcome) -> None:
    """Both devices must have the same base, or no version of one would ever open on the other."""
    pinned, theirs = profile.manifest.fingerprint, welcome.fingerprint.hex()
    if pinned is not None and welcome.fingerprint != UNKNOWN_BASE and pinned != theirs:
        raise BaseChanged(
            f"the other device uses base {welcome.base!r} with fingerprint {theirs[:16]}…, "
            f"this profile is for {pinned[:16]}…",
            "make a new profile on the same base: antefix init --base",
        )


def _require_fresh(profile: Profile) -> None:
    """Versions under the keys of before would never open again; nor would other devices know this one."""
    if profile.history.versions:
        raise LinkRefused(
            "this profile has versions of its own",
            "link a new profile, and take the texts along: antefix export --what texts, antefix remember",
        )
    if len(profile.keys.devices.devices) > 1:
        raise LinkRefused("this profile is linked with other devices already", "link a new profile")
