"""The welcome: what a device of a user writes for a new one, signed.

A server may carry it. It learns ids, the base's name and public keys; the user key in it opens on the new
device alone, and a changed byte is refused there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature

from antefix.errors import DeviceListRefused
from antefix.keys import DeviceKeys, DeviceList
from antefix_client.devices.link_request import format_fingerprint
from antefix_client.errors import LinkRefused

_MAGIC = b"ANTEFIXW"
_HEAD = struct.Struct(">8s16s16s16s16s16s32sI1168sB")
_SIGNATURE = 64
_LABEL = b"antefix/v1/welcome\0"
UNKNOWN_BASE = bytes(32)
"""Fingerprint of a base that was never loaded."""


class _Head(NamedTuple):
    magic: bytes
    sender: bytes
    receiver: bytes
    tenant: bytes
    user: bytes
    prefix: bytes
    fingerprint: bytes
    epoch: int
    sealed_key: bytes
    name_bytes: int


@dataclass(frozen=True)
class Welcome:
    """What it says; `from_bytes` gives only what the sender has signed.

    Attributes:
        sender, receiver: ids of the two devices, 16 bytes each.
        prefix: id of the user's prefix, 16 bytes.
        fingerprint: of the base, 32 bytes; zeros where it is not known.
        base: what the sender calls the base, for a person; at most 255 bytes.
        sealed_key: the user key for the receiver, 1,168 bytes.
        devices: the list of devices, which names tenant, user and epoch.
    """

    sender: bytes
    receiver: bytes
    prefix: bytes
    fingerprint: bytes
    base: str
    sealed_key: bytes
    devices: DeviceList

    def to_bytes(self, device: DeviceKeys) -> bytes:
        """Signed by the sender."""
        name, of = self.base.encode(errors="replace")[:255].decode(errors="ignore").encode(), self.devices
        head = _HEAD.pack(
            _MAGIC,
            self.sender,
            self.receiver,
            of.tenant,
            of.user,
            self.prefix,
            self.fingerprint,
            of.epoch,
            self.sealed_key,
            len(name),
        )
        content = head + name + of.to_bytes()
        return content + device.sign(_LABEL + content)

    @classmethod
    def from_bytes(cls, content: bytes, *, sender: bytes) -> Welcome:
        """Read and verify one.

        Args:
            content: the welcome, from anywhere.
            sender: id of the device that a person has compared, 16 bytes.

        Raises:
            LinkRefused: it is none, from another device, or was changed.
        """
        if len(content) <= _HEAD.size + _SIGNATURE or content[:8] != _MAGIC:
            raise LinkRefused("this is not a welcome", "make one on the other device: antefix device admit")
        head = _Head(*_HEAD.unpack_from(content))
        if head.sender != sender:
            raise LinkRefused(
                f"the welcome is from device {format_fingerprint(head.sender)}, "
                f"you compared {format_fingerprint(sender)}"
            )
        signed, signature = content[:-_SIGNATURE], content[-_SIGNATURE:]
        list_at = _HEAD.size + head.name_bytes
        try:
            # The id is a digest of the keys, so the list can hold no other keys for the compared device.
            devices = DeviceList.trust_initial(signed[list_at:], by=sender)
            devices.writers[sender].verify(signature, _LABEL + signed)
            name = signed[_HEAD.size : list_at].decode()
        except (DeviceListRefused, InvalidSignature, UnicodeDecodeError):
            raise LinkRefused("the welcome was changed on its way") from None
        if (devices.tenant, devices.user, devices.epoch) != (head.tenant, head.user, head.epoch):
            raise LinkRefused("the welcome and its list of devices are of two users")
        return cls(sender, head.receiver, head.prefix, head.fingerprint, name, head.sealed_key, devices)
