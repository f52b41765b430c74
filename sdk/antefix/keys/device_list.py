"""A user's devices: a list that only a device on it can change.

A server hands the list around and cannot add a device of its own, leave one out, or bring back an old list:
each version names the one before and is signed by a device of that one. The first is signed by its only
device and pinned by its digest.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.common.deprecation import FormerAttribute
from antefix.errors import DeviceListRefused, InvalidArgument
from antefix.keys.device_keys import DeviceKeys, DevicePublic

_MAGIC = b"ANTEFIXD"
_HEAD = struct.Struct(">8s16s16sQI32sH")
_ENTRY = struct.Struct(">1216s32s")
_END = struct.Struct(">16s64s")
_MAX_DEVICES = 64
_FIRST = bytes(32)


@dataclass(frozen=True)
class DeviceList:
    """One version of the list; make the next with `adding` and `removing`.

    Attributes:
        tenant, user: 16 bytes each.
        version: 1 for the first.
        epoch: of the user key that these devices hold.
        previous: digest of the version before, 32 bytes.
        devices: public keys; the recovery code's are one of them.
        signer: id of the device that signed.
        signature: 64 bytes.
    """

    tenant: bytes
    user: bytes
    version: int
    epoch: int
    previous: bytes
    devices: tuple[DevicePublic, ...]
    signer: bytes
    signature: bytes

    followed_by = FormerAttribute("apply")
    introduced = FormerAttribute("trust_initial")
    pinned = FormerAttribute("from_digest")

    @classmethod
    def first(cls, *, tenant: bytes, user: bytes, device: DeviceKeys) -> DeviceList:
        """The list of a new user with one device."""
        return cls(tenant, user, 1, 1, _FIRST, (device.public,), device.id, b"")._signed(device)

    @property
    def digest(self) -> bytes:
        """What a device remembers, and the next version names, 32 bytes."""
        return hashlib.sha256(b"antefix/v1/device list\0" + self.to_bytes()).digest()

    @property
    def writers(self) -> dict[bytes, Ed25519PublicKey]:
        """Who may write records, by id."""
        return {device.id: device.signing for device in self.devices}

    def adding(self, device: DevicePublic, *, signer: DeviceKeys) -> DeviceList:
        """The next version, with one more device; it gets the user key of this epoch.

        Raises:
            InvalidArgument: it is on the list, the list is full, or the signer is not on it.
        """
        if device.id in self.writers or len(self.devices) >= _MAX_DEVICES:
            raise InvalidArgument(f"device {device.id.hex()} is on the list, or {_MAX_DEVICES} others are")
        return self._next((*self.devices, device), self.epoch, signer)

    def removing(self, device: bytes, *, signer: DeviceKeys) -> DeviceList:
        """The next version, without one device, for the next epoch: rotate the user key with it.

        Raises:
            InvalidArgument: it is not on the list, is the last one, or the signer is not on it.
        """
        remaining = tuple(member for member in self.devices if member.id != device)
        if len(remaining) == len(self.devices) or not remaining:
            raise InvalidArgument(f"device {device.hex()} is not on the list, or is the last one")
        return self._next(remaining, self.epoch + 1, signer)

    def to_bytes(self) -> bytes:
        """The list as it is stored and sent."""
        return self._body() + _END.pack(self.signer, self.signature)

    def apply(self, content: bytes) -> DeviceList:
        """Verify and return the next version, from bytes that anyone may have made.

        Raises:
            DeviceListRefused: not the next version of this list, or not signed by a device on it.
        """
        following = parse_device_list(content)
        expected = (self.tenant, self.user, self.version + 1, self.digest)
        for name, ours in zip(("tenant", "user", "version", "previous"), expected, strict=True):
            theirs = getattr(following, name)
            if theirs != ours:
                raise DeviceListRefused(f"{name} is {_shown(theirs)}, expected {_shown(ours)}")
        if following.epoch not in (self.epoch, self.epoch + 1):
            raise DeviceListRefused(f"epoch is {following.epoch}, expected {self.epoch} or {self.epoch + 1}")
        if following.epoch == self.epoch and not set(self.devices) <= set(following.devices):
            raise DeviceListRefused(f"a device has left and the epoch is still {self.epoch}")
        following._verify(self.writers)
        return following

    @classmethod
    def from_digest(cls, content: bytes, *, digest: bytes) -> DeviceList:
        """A list of which the caller knows the digest.

        Raises:
            DeviceListRefused: it is another one.
        """
        devices = parse_device_list(content)
        if devices.digest != digest:
            raise DeviceListRefused(f"its digest is {devices.digest.hex()}, expected {digest.hex()}")
        return devices

    @classmethod
    def trust_initial(cls, content: bytes, *, by: bytes) -> DeviceList:
        """A list of which only the device is known that hands it over: a person compared its fingerprint.

        Args:
            content: the list, from anywhere.
            by: id of that device, 16 bytes. It is a digest of its keys, so no other keys on a list have it.

        Raises:
            DeviceListRefused: that device is not on it, or did not sign it.
        """
        devices = parse_device_list(content)
        if devices.signer != by:
            raise DeviceListRefused(f"it is signed by {devices.signer.hex()}, expected {by.hex()}")
        if by not in devices.writers:
            raise DeviceListRefused(f"device {by.hex()} has signed it and is not on it")
        devices._verify(devices.writers)
        return devices

    def _next(self, devices: tuple[DevicePublic, ...], epoch: int, signer: DeviceKeys) -> DeviceList:
        if signer.id not in self.writers:
            raise InvalidArgument(f"device {signer.id.hex()} is not on the list and cannot change it")
        changed = replace(self, version=self.version + 1, epoch=epoch, previous=self.digest, devices=devices)
        return changed._signed(signer)

    def _body(self) -> bytes:
        head = (_MAGIC, self.tenant, self.user, self.version, self.epoch, self.previous, len(self.devices))
        entries = b"".join(_ENTRY.pack(device.kem_bytes, device.signing_bytes) for device in self.devices)
        return _HEAD.pack(*head) + entries

    def _signed(self, device: DeviceKeys) -> DeviceList:
        unsigned = replace(self, signer=device.id)
        return replace(unsigned, signature=device.sign(_message(unsigned._body(), device.id)))

    def _verify(self, writers: dict[bytes, Ed25519PublicKey]) -> None:
        if self.signer not in writers:
            raise DeviceListRefused(f"it is signed by {self.signer.hex()}, which is not on the list before")
        try:
            writers[self.signer].verify(self.signature, _message(self._body(), self.signer))
        except InvalidSignature:
            raise DeviceListRefused("its signature is not that of its signer") from None


def parse_device_list(content: bytes) -> DeviceList:
    """The fields; nothing is verified."""
    count = max(0, len(content) - _HEAD.size - _END.size) // _ENTRY.size
    if not 1 <= count <= _MAX_DEVICES or len(content) != _HEAD.size + count * _ENTRY.size + _END.size:
        raise DeviceListRefused(f"it has {len(content)} bytes, which no list has")
    magic, tenant, user, version, epoch, previous, stated = _HEAD.unpack_from(content)
    if magic != _MAGIC or stated != count:
        raise DeviceListRefused(f"it says {magic!r} and {stated} devices, expected {_MAGIC!r} and {count}")
    entries = _ENTRY.iter_unpack(content[_HEAD.size : -_END.size])
    devices = tuple(DevicePublic(*entry) for entry in entries)
    if len({device.id for device in devices}) != count:
        raise DeviceListRefused("a device stands on it twice")
    signer, signature = _END.unpack_from(content, len(content) - _END.size)
    return DeviceList(tenant, user, version, epoch, previous, devices, signer, signature)


def _message(body: bytes, signer: bytes) -> bytes:
    return b"antefix/v1/device list signature\0" + body + signer


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
