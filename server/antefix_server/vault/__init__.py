"""The vault: users' sealed records on the server, and their removal.

A user is a random id of 16 bytes that `enrol` gives; names and addresses have no place here. Records come
sealed (`antefix.records`) and stay so; the vault reads their covers only. It encrypts them once more under a
key of its own per user (`antefix_server.vault.key_file` says why), and removal overwrites that key.

One process writes, any number read. Every method that changes something is durable when it returns, may be
called from any thread, and changes all or nothing.

    with Vault.open(folder) as vault:
        user = vault.enrol()
        vault.put(record)                       # the first one
        vault.put(newer, replaces=1)            # compare-and-swap
        receipt = vault.remove(user)
"""

from antefix.common.deprecation import former_names
from antefix_server.vault.vault import RecordMeta, Vault

__all__ = ["RecordMeta", "Vault"]

__getattr__ = former_names(__name__, {"Head": "RecordMeta"})
