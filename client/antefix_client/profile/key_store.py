"""The keys of a profile, in the file `keys`: this device's seed, the user key, the list of devices.

The file also says whose profile it is. So a device that goes over to another user does so with one write, and
the card, where the same ids stand in the clear, follows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from antefix.crypto.aead import KEY_BYTES, SecretBytes
from antefix.errors import DeviceListRefused, InvalidArgument
from antefix.keys import DeviceKeys, DeviceList, UserKey
from antefix_client.errors import ProfileDamaged
from antefix_client.profile.encrypted_files import EncryptedFiles

NAME = "keys"
_HEAD = struct.Struct(f">I32s{2 * KEY_BYTES}s{KEY_BYTES}s")
_ID = 16


@dataclass
class KeyStore:
    """Keys in memory. Private; `wipe` them.

    Attributes:
        device: this device's.
        user_key: wraps the data keys of records.
        devices: who may write records; it says which user this is.
        prefix: id of the prefix, 16 bytes.
    """

    device: DeviceKeys
    user_key: UserKey
    devices: DeviceList
    prefix: bytes
    _seed: SecretBytes

    @classmethod
    def generate(cls, tenant: bytes, user: bytes, prefix: bytes) -> KeyStore:
        """Keys of a new user on its first device."""
        seed = DeviceKeys.new_seed()
        device = DeviceKeys(seed.data)
        first = DeviceList.first(tenant=tenant, user=user, device=device)
        return cls(device, UserKey.generate(), first, prefix, seed)

    @classmethod
    def read(cls, sealed: EncryptedFiles, prefix: bytes) -> KeyStore:
        """Those of a profile.

        Args:
            sealed: its files.
            prefix: id of the prefix as the card has it; older files of keys have none.

        Raises:
            ProfileDamaged: they are missing or do not open.
        """
        stored = sealed.read(NAME)
        damaged = ProfileDamaged(
            f"{sealed.folder / NAME} is missing or damaged",
            "put it back from a backup; the texts can be saved: antefix rescue FILE, PersonalModel.rescue()",
        )
        if stored is None:
            raise damaged
        with stored:
            if len(stored.data) < _HEAD.size:
                raise damaged
            epoch, digest, _, _ = _HEAD.unpack_from(stored.data)
            seed = SecretBytes(stored.data[36 : 36 + 2 * KEY_BYTES])
            key = SecretBytes(stored.data[36 + 2 * KEY_BYTES : _HEAD.size])
            rest = bytes(stored.data[_HEAD.size :])
            try:
                devices, prefix = _list_and_prefix(rest, digest, prefix)
                return cls(DeviceKeys(seed.data), UserKey(key, epoch), devices, prefix, seed)
            except (DeviceListRefused, InvalidArgument):
                raise damaged from None

    def write(self, sealed: EncryptedFiles) -> None:
        """Keep them."""
        parts = (self.user_key.epoch, self.devices.digest, self._seed.data, self.user_key.secret.data)
        packed = bytearray(_HEAD.size)
        with SecretBytes(packed):
            _HEAD.pack_into(packed, 0, *parts)
            with SecretBytes(bytearray(packed + self.devices.to_bytes() + self.prefix)) as whole:
                sealed.write(NAME, whole.data)

    @property
    def ids(self) -> dict[str, str]:
        """Whose these keys are, as the card names it."""
        ids = {"tenant": self.devices.tenant, "user": self.devices.user, "prefix": self.prefix}
        return {name: value.hex() for name, value in ids.items()}

    def wipe(self) -> None:
        """Zero what can be zeroed."""
        self.user_key.wipe()
        self._seed.wipe()


def _list_and_prefix(content: bytes, digest: bytes, prefix: bytes) -> tuple[DeviceList, bytes]:
    """What follows the keys: the list, then the prefix's id, which older files do not have.

    Raises:
        DeviceListRefused: neither; the digest tells which.
    """
    try:
        return DeviceList.from_digest(content[:-_ID], digest=digest), content[-_ID:]
    except DeviceListRefused:
        return DeviceList.from_digest(content, digest=digest), prefix
