"""Backup and restore of a vault. Two files, because removal must not wait for a backup to be deleted.

The backup of the records may be kept as long as one likes: without the keys nothing in it can be read, nor
told to be anybody's. The backup of the keys brings removed users back within reach of who has it and the
recovery code, so it is sealed, refused after `KEYS_KEPT_DAYS`, and has to be deleted by then. The mirror of
the removal log is neither: it is written with every removal, and tells a restore whom it must not bring back.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from antefix.common.files import sync_folder
from antefix.keys import DeviceKeys, RecoveryCode
from antefix_server.backups import key_backup
from antefix_server.backups.copying import copy_facts, copy_records
from antefix_server.errors import RestoreRefused, VaultDamaged
from antefix_server.removal_log.log import RemovalLog
from antefix_server.storage import migrate
from antefix_server.storage.database import Database
from antefix_server.storage.os_errors import database, files
from antefix_server.storage.staging import scratch
from antefix_server.vault import Vault
from antefix_server.vault.envelope import UserEnvelope
from antefix_server.vault.key_file import KeyFile
from antefix_server.vault.record_store import RecordStore
from antefix_server.vault.removal import Remover
from antefix_server.vault.settings import KEYS, LOG, RECORDS, UNFINISHED, Settings
from antefix_server.vault.user_rows import Kind

__all__ = ["KEYS_KEPT_DAYS", "Sources", "backup_keys", "backup_records", "operator_keys", "restore"]

KEYS_KEPT_DAYS = 7
_DAY_S = 86_400
_WAIT_S = 5.0
_OPERATOR = b"antefix operator"
_ODD = (
    "SELECT 1 FROM belongs WHERE typeof(tenant) <> 'blob'",
    "SELECT 1 FROM records WHERE typeof(owner) <> 'blob' OR typeof(head) <> 'blob'"
    " OR typeof(place) NOT IN ('blob', 'null')",
    "SELECT 1 FROM pieces WHERE typeof(content) <> 'blob'",
    "SELECT 1 FROM facts WHERE typeof(owner) <> 'blob' OR typeof(mark) <> 'blob' OR typeof(sealed) <> 'blob'"
    f" OR typeof(hint) NOT IN ('blob', 'null') OR kind NOT IN ({', '.join(str(int(kind)) for kind in Kind)})",
)


@dataclass(frozen=True)
class Sources:
    """What a vault is restored from.

    Attributes:
        records: file of `backup_records`, of any age.
        keys: file of `backup_keys`, 7 days old at most.
        mirror: of the removal log; from then on the restored vault's mirror. None where it is lost too.
        accept_lost_removals: restore without the mirror, or with one that is older than the keys. Who was
            removed since then **comes back**, and must be removed again.
    """

    records: Path
    keys: Path
    mirror: Path | None
    accept_lost_removals: bool = False


def operator_keys(code: RecoveryCode) -> DeviceKeys:
    """The operator's keys; the public half makes a vault, the code restores it."""
    return code.keys(tenant=_OPERATOR, user=bytes(16))


def backup_records(vault: Vault, target: Path) -> int:
    """Copy all records into a SQLite file, beside everything else that goes on. How many there were."""
    with _beside(target) as path:
        copy = RecordStore(Database.of_file(path, wait_s=_WAIT_S, create=True))
        migrate.upgrade(copy.database)
        copy.claim(vault.tenant)
        count = copy_records(vault.shelf, copy, lambda _: True)
        copy_facts(vault.shelf.database, copy.database, lambda _: True)
        copy.database.seal()
    return count


def backup_keys(vault: Vault, target: Path) -> None:
    """Seal the keys and the removal log to the operator; writers wait meanwhile. Delete it within 7 days."""
    with (
        _beside(target) as path,
        vault.paused() as keys,
        scratch(vault.folder / UNFINISHED) as temporary,
    ):
        log = temporary / LOG
        with (
            database(str(log)),
            closing(sqlite3.connect(vault.folder / LOG)) as source,
            closing(sqlite3.connect(log)) as copy,
        ):
            source.backup(copy)
        checkpoint = vault.checkpoint()
        header = key_backup.Made(int(time.time()), vault.tenant, checkpoint.size, checkpoint.root)
        with files(path), path.open("wb") as file:
            key_backup.write(file, header, keys.identity.operator, keys.copy(), keys.size, log)


def restore(folder: Path, sources: Sources, code: RecoveryCode, settings: Settings | None = None) -> int:
    """Make a vault from backups; removals are replayed before anything of it can be read.

    It is built beside `folder` and renamed in the end: a crash leaves none, and the same call begins anew.

    Args:
        folder: new or empty.
        sources: the backups.
        code: the operator's.
        settings: as for a new vault; its mirror is that of `sources`. A PostgreSQL must be empty.

    Returns:
        Records of living users that were restored.

    Raises:
        RestoreRefused: too old, damaged, not of one vault, or removals could be lost.
        KeyRefused: another recovery code.
    """
    settings = (settings or Settings()).model_copy(update={"mirror": sources.mirror})
    folder = folder.absolute()  # a name to build beside: "." has none
    building = folder.parent / f"{folder.name}.restoring"
    with files(folder):
        if folder.exists() and any(folder.iterdir()):
            raise RestoreRefused(f"{folder} is not empty", "give a new folder")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700, parents=True)
    try:
        header = _extracted(sources.keys, code, building)
        count = _rebuilt(building, sources, header, settings)
        settings.write(building)
        with files(folder):
            os.rename(building, folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return count


def _extracted(path: Path, code: RecoveryCode, building: Path) -> key_backup.Made:
    with files(path), path.open("rb") as source:
        result = key_backup.read_head(source)
        age = (time.time() - result.at) / _DAY_S
        if not -1 < age <= KEYS_KEPT_DAYS:
            raise RestoreRefused(
                f"the backup of the keys is {age:.1f} days old, {KEYS_KEPT_DAYS} are allowed",
                "a newer one is needed; older ones may hold the keys of removed users",
            )
        modes = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with (
            os.fdopen(os.open(building / KEYS, modes, 0o600), "wb") as keys,
            os.fdopen(os.open(building / LOG, modes, 0o600), "wb") as log,
        ):
            key_backup.extract(source, operator_keys(code), keys, log)
            for file in (keys, log):
                file.flush()
                os.fsync(file.fileno())
    return result


def _rebuilt(building: Path, sources: Sources, header: key_backup.Made, settings: Settings) -> int:
    with ExitStack() as opened:
        keys = opened.enter_context(closing(KeyFile(building / KEYS)))
        log = opened.enter_context(closing(_log(building / LOG, sources, header, settings, keys)))
        source = RecordStore(opened.enter_context(closing(Database.of_backup(sources.records))))
        _require_plain(source)
        source.require(keys.identity.tenant)
        target = RecordStore(opened.enter_context(closing(_database(building, settings))))
        migrate.upgrade(target.database)
        if (count := target.count()) > 0:
            raise RestoreRefused(f"{target.database.name} has {count} records", "give an empty database")
        target.claim(keys.identity.tenant)
        Remover(keys, target, log).replay()
        living = _tags(keys)
        copy_facts(source.database, target.database, living.__contains__)
        return copy_records(source, target, lambda row: row.owner in living)


def _require_plain(source: RecordStore) -> None:
    """Refuse a file in which a table is a view, or a column holds anything but bytes.

    SQLite lets them; of a number Python would make as many zero bytes.
    """
    tables = (
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table'"
        " AND name IN ('records', 'pieces', 'belongs', 'facts')"
    )
    with source.database.reading() as connection:
        odd = connection.execute(text(tables)).scalar() != 4
        for query in _ODD:
            odd = odd or connection.execute(text(query)).first() is not None
    if odd:
        raise VaultDamaged(
            f"{source.database.name} is no backup of records", "give the file that a backup wrote"
        )


def _log(
    path: Path, sources: Sources, header: key_backup.Made, settings: Settings, keys: KeyFile
) -> RemovalLog:
    mirror = sources.mirror if sources.mirror is not None and sources.mirror.exists() else None
    if mirror is None and not sources.accept_lost_removals:
        raise RestoreRefused(
            "without the mirror of the removal log, users removed since the backup would come back",
            "give the mirror, or accept that they must be removed again",
        )
    size = 0 if mirror is None else RemovalLog.size_of(mirror)
    if size < header.log_size and not sources.accept_lost_removals:
        raise RestoreRefused(
            f"the mirror has {size} entries, the backup of the keys is from after {header.log_size}",
            "give the newest mirror, or accept that users removed since must be removed again",
        )
    signing = keys.identity.signing
    log = RemovalLog(path, sources.mirror, settings.origin, signing, _WAIT_S)
    if sources.accept_lost_removals and log.size > log.removals:
        log.skip_to_fresh()  # else what is published next could have a number that devices know otherwise
    return log


def _database(building: Path, settings: Settings) -> Database:
    if settings.url is None:
        return Database.of_file(building / RECORDS, wait_s=_WAIT_S, create=True)
    return Database.of_url(settings.url, wait_s=_WAIT_S)


def _tags(keys: KeyFile) -> set[bytes]:
    """What stands for each living user in the database."""
    tags = set()
    for _, user, key in keys.living():
        with UserEnvelope(keys.identity.tenant, user, key) as owner:
            tags.add(owner.tag)
    return tags


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` when all is written."""
    with files(target), scratch(target.with_name(f".{target.name}.unfinished")) as temporary:
        path = temporary / target.name
        yield path
        path.chmod(0o600)
        os.replace(path, target)
        sync_folder(target.parent)
