"""Keys of a user: one user key in numbered epochs, one pair of keys per device.

The user key wraps the data keys of records (`antefix.records`). Each device gets it sealed to its own public
key, so a device is removed by a new epoch that is not sealed to it; `records.rewrap` takes each record along.
Private keys never leave their device; what a server sees is public keys, sealed user keys and device lists.
"""

from antefix._devicechange import DeviceChange
from antefix._devicelist import DeviceList
from antefix._devices import DeviceKeys, DevicePublic, UserKey
from antefix._passphrase import Cost, open_with_passphrase, seal_under_passphrase
from antefix._recovery import RecoveryCode

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
