"""A change of a user's devices, as it travels to the others: the next list, and the user key of its epoch.

Who carries it learns public keys and who left. It opens for no device that is not on the new list, and none
believes it that has not the list before.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from antefix.common.deprecation import FormerAttribute
from antefix.errors import DeviceListRefused
from antefix.keys.device_keys import DeviceKeys, DevicePublic, UserKey
from antefix.keys.device_list import DeviceList, parse_device_list

_MAGIC = b"ANTEFIXC"
_HEAD = struct.Struct(">8s16sI")
_SEALED, _SIGNATURE = 1168, 64
_LABEL = b"antefix/v1/device change\0"
_NOBODY = bytes(16)


@dataclass(frozen=True)
class DeviceChange:
    """One change; make it with `adding` and `removing`, read it with `following`.

    Attributes:
        devices: the list from now on.
        left: id of the device that was removed, 16 bytes; None where one was added.
        sealed: the new user key for each device of the list, in its order; empty where none has left.
        content: the change as it is stored and sent.
    """

    devices: DeviceList
    left: bytes | None
    sealed: tuple[bytes, ...]
    content: bytes

    introduced = FormerAttribute("trust_initial")

    @classmethod
    def adding(cls, devices: DeviceList, device: DevicePublic, *, signer: DeviceKeys) -> DeviceChange:
        """One device more; the welcome brings it the user key.

        Raises:
            InvalidArgument: as `DeviceList.adding`.
        """
        return cls._signed(devices.adding(device, signer=signer), _NOBODY, (), signer)

    @classmethod
    def removing(
        cls, devices: DeviceList, device: bytes, *, key: UserKey, signer: DeviceKeys
    ) -> DeviceChange:
        """One device less, and the next user key for those that are left.

        Args:
            devices: the list before.
            device: id of the one that goes, 16 bytes.
            key: the user key, `rotated`.
            signer: another device of the list.

        Raises:
            InvalidArgument: as `DeviceList.removing`.
        """
        after = devices.removing(device, signer=signer)
        of = {"tenant": after.tenant, "user": after.user}
        sealed = tuple(key.seal_for(member, **of) for member in after.devices)
        return cls._signed(after, device, sealed, signer)

    @classmethod
    def following(cls, content: bytes, before: DeviceList) -> DeviceChange:
        """Read and verify the change that comes next after a list.

        Raises:
            DeviceListRefused: it is none, not the next, or not written by a device of that list.
        """
        left, listed, sealed = _parse(content)
        after = before.apply(listed)
        change = cls._verified(content, left, after, sealed, before.writers[after.signer])
        if (after.epoch == before.epoch) != (change.left is None):
            raise DeviceListRefused(f"epoch {after.epoch} and who has left do not go together")
        gone = {device.id for device in before.devices} - {device.id for device in after.devices}
        if gone != ({change.left} if change.left else set()):
            raise DeviceListRefused(f"{len(gone)} devices have left, and it names another")
        return change

    @classmethod
    def trust_initial(cls, content: bytes, *, by: bytes) -> DeviceChange:
        """Read one of which the list before is not known, from the device that wrote it.

        Args:
            content: the change.
            by: id of that device, 16 bytes, known from elsewhere.

        Raises:
            DeviceListRefused: it is none, or that device is not on its list or did not write it.
        """
        left, listed, sealed = _parse(content)
        after = DeviceList.trust_initial(listed, by=by)
        return cls._verified(content, left, after, sealed, after.writers[by])

    @staticmethod
    def version_of(content: bytes) -> int:
        """Version of the list in a change, to find its place; nothing is verified.

        Raises:
            DeviceListRefused: it is none.
        """
        return parse_device_list(_parse(content)[1]).version

    def key_for(self, device: DeviceKeys) -> UserKey:
        """The new user key.

        Raises:
            KeyRefused: that device is not on the list, or what was sealed for it does not open.
        """
        ids = [member.id for member in self.devices.devices]
        sealed = self.sealed[ids.index(device.id)] if device.id in ids and self.sealed else b""
        of = self.devices
        return device.open_user_key(sealed, tenant=of.tenant, user=of.user, epoch=of.epoch)

    @classmethod
    def _signed(
        cls, devices: DeviceList, left: bytes, sealed: tuple[bytes, ...], signer: DeviceKeys
    ) -> DeviceChange:
        listed = devices.to_bytes()
        content = _HEAD.pack(_MAGIC, left, len(listed)) + listed + b"".join(sealed)
        gone = None if left == _NOBODY else left
        return cls(devices, gone, sealed, content + signer.sign(_LABEL + content))

    @classmethod
    def _verified(
        cls, content: bytes, left: bytes, devices: DeviceList, sealed: bytes, writer: Ed25519PublicKey
    ) -> DeviceChange:
        """HPKE names no sender: the sealed keys are worth what this signature is worth."""
        try:
            writer.verify(content[-_SIGNATURE:], _LABEL + content[:-_SIGNATURE])
        except InvalidSignature:
            raise DeviceListRefused("the change was not written by the device that signed the list") from None
        wanted = 0 if left == _NOBODY else len(devices.devices) * _SEALED
        if len(sealed) != wanted or left in devices.writers:
            raise DeviceListRefused(f"it has {len(sealed):,} bytes of user keys, expected {wanted:,}")
        keys = tuple(sealed[at : at + _SEALED] for at in range(0, len(sealed), _SEALED))
        return cls(devices, None if left == _NOBODY else left, keys, content)


def _parse(content: bytes) -> tuple[bytes, bytes, bytes]:
    """Who left, the list, the sealed keys; nothing is verified."""
    if len(content) < _HEAD.size + _SIGNATURE or content[:8] != _MAGIC:
        raise DeviceListRefused("this is no change of devices")
    _, left, size = _HEAD.unpack_from(content)
    end = len(content) - _SIGNATURE
    if size > end - _HEAD.size:
        raise DeviceListRefused(f"its list has {size:,} bytes, {end - _HEAD.size:,} are there")
    at = _HEAD.size + size
    return left, content[_HEAD.size : at], content[at:end]
