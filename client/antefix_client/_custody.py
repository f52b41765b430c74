"""The keys of a profile, in the file `keys`: this device's seed, the user key, the list of devices."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from antefix._sealing import KEY_BYTES, Secret
from antefix.errors import DeviceListRefused, InvalidArgument
from antefix.keys import DeviceKeys, DeviceList, UserKey
from antefix_client._sealedfiles import SealedFiles
from antefix_client.errors import ProfileDamaged

NAME = "keys"
_HEAD = struct.Struct(f">I32s{2 * KEY_BYTES}s{KEY_BYTES}s")


@dataclass
class Custody:
    """Keys in memory. Private; `wipe` them.

    Attributes:
        device: this device's.
        user_key: wraps the data keys of records.
        devices: who may write records.
    """

    device: DeviceKeys
    user_key: UserKey
    devices: DeviceList
    _seed: Secret

    @classmethod
    def fresh(cls, tenant: bytes, user: bytes) -> Custody:
        """Keys of a new user on its first device."""
        seed = DeviceKeys.new_seed()
        device = DeviceKeys(seed.data)
        return cls(
            device, UserKey.generate(), DeviceList.first(tenant=tenant, user=user, device=device), seed
        )

    @classmethod
    def read(cls, sealed: SealedFiles) -> Custody:
        """Those of a profile.

        Raises:
            ProfileDamaged: they are missing or do not open.
        """
        found = sealed.read(NAME)
        damaged = ProfileDamaged(
            f"{sealed.folder / NAME} is missing or damaged",
            "put it back from a backup; the texts can be saved with: antefix export --texts",
        )
        if found is None:
            raise damaged
        with found:
            if len(found.data) < _HEAD.size:
                raise damaged
            epoch, digest, _, _ = _HEAD.unpack_from(found.data)
            seed = Secret(found.data[36 : 36 + 2 * KEY_BYTES])
            key = Secret(found.data[36 + 2 * KEY_BYTES : _HEAD.size])
            try:
                devices = DeviceList.pinned(bytes(found.data[_HEAD.size :]), digest=digest)
                return cls(DeviceKeys(seed.data), UserKey(key, epoch), devices, seed)
            except (DeviceListRefused, InvalidArgument):
                raise damaged from None

    def write(self, sealed: SealedFiles) -> None:
        """Keep them."""
        parts = (self.user_key.epoch, self.devices.digest, self._seed.data, self.user_key.secret.data)
        packed = bytearray(_HEAD.size)
        with Secret(packed):
            _HEAD.pack_into(packed, 0, *parts)
            with Secret(bytearray(packed + self.devices.to_bytes())) as whole:
                sealed.write(NAME, whole.data)

    def wipe(self) -> None:
        """Zero what can be zeroed."""
        self.user_key.wipe()
        self._seed.wipe()
