"""Grants of a vault's users: which prefixes this server may use, until when, by whose word.

grants = Grants(vault, epochs)
grants.put(session, signed)                    # from a device
with grants.open(user, id, base) as opened:    # the id of a grant
    prefix = opened.prefix()
grants.revoke(user, id)                        # by device or operator
"""

from antefix_server.grants.grants import Grants

__all__ = ["Grants"]
