"""Grants: one version of a user's prefix for a server to use, for a time, and no key beyond that.

signed = issue_grant(record, address, key=user_key, writers=…, device=device, epoch=epoch, seconds=3600)
...
grant = Grant.from_device(device_public, signed)
with open_granted(grant, record, tenant=…, user=…, base=…, epoch=epoch_key, now=time.time()) as opened:
    prefix = opened.prefix()
"""

from antefix.common.deprecation import former_names
from antefix.records.grant import Epoch, EpochKey, Grant, issue_grant, open_granted

__all__ = ["Epoch", "EpochKey", "Grant", "issue_grant", "open_granted"]

__getattr__ = former_names(__name__, {"granted": "issue_grant"})
