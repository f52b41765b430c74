"""Backup and restore of a vault. Two files, because removal must not wait for a backup to be deleted.

The backup of the records may be kept as long as one likes: without the keys nothing in it can be read, nor
told to be anybody's. The backup of the keys brings removed users back within reach of who has it and the
recovery code, so it is sealed, refused after `KEYS_KEPT_DAYS`, and has to be deleted by then. The mirror of
the removal log is neither: it is written with every removal, and tells a restore whom it must not bring back.
"""

from antefix_server.backups.backup import (
    KEYS_KEPT_DAYS,
    Sources,
    backup_keys,
    backup_records,
    operator_keys,
    restore,
)

__all__ = ["KEYS_KEPT_DAYS", "Sources", "backup_keys", "backup_records", "operator_keys", "restore"]
