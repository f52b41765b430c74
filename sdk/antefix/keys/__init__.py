"""Keys of a user: one user key in numbered epochs, one pair of keys per device.

The user key wraps the data keys of records (`antefix.records`). Each device gets it sealed to its own public
key, so a device is removed by a new epoch that is not sealed to it; `records.rewrap` takes each record along.
Private keys never leave their device; what a server sees is public keys, sealed user keys and device lists.
"""

from antefix.keys.device_change import DeviceChange
from antefix.keys.device_keys import DeviceKeys, DevicePublic, UserKey
from antefix.keys.device_list import DeviceList
from antefix.keys.passphrase import Cost, open_with_passphrase, seal_under_passphrase
from antefix.keys.recovery_code import RecoveryCode

__all__ = [
    "Cost",
    "DeviceChange",
    "DeviceKeys",
    "DeviceList",
    "DevicePublic",
    "RecoveryCode",
    "UserKey",
    "open_with_passphrase",
    "seal_under_passphrase",
]
