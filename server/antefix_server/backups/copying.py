"""Copies records from one database to another in short transactions, so that no writer or removal waits.

Records do not depend on each other, so a copy needs no common moment: each record is whole, and one that is
replaced meanwhile comes again, since its row is newer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from antefix_server.errors import RecordReplaced
from antefix_server.storage.database import Database
from antefix_server.vault import user_rows
from antefix_server.vault.record_store import RecordStore, Stored


def copy_records(source: RecordStore, target: RecordStore, keeps: Callable[[Stored], bool]) -> int:
    """Copy the rows that `keeps` accepts; how many there were. Durable on return."""
    count = 0
    for rows in source.rows():
        accepted = [row for row in rows if keeps(row)]
        small = source.single_pieces([row.id for row in accepted])
        with target.database.writing(durable=False) as connection:
            previous = target.find_all(connection, [row.place for row in accepted])
            if previous:
                target.drop(connection, [row.id for row in previous.values()])
            new = [(row.place, row.owner, row.head, [small[row.id]]) for row in accepted if row.id in small]
            if new:
                target.add_all(connection, new)
        large = [row for row in accepted if row.id not in small and _copied(source, target, row)]
        count += len(new) + len(large)
    target.database.purge()
    return count


def copy_facts(source: Database, target: Database, keeps: Callable[[bytes], bool]) -> None:
    """Copy what is known of the users whose tag `keeps` accepts. Durable on return."""
    last = 0
    while True:
        with source.reading() as connection:
            rows = user_rows.pages(connection, last)
        if not rows:
            break
        with target.writing(durable=False) as connection:
            user_rows.put(connection, [row for row in rows if keeps(row.owner)])
        last = rows[-1].id
    target.purge()


def _copied(source: RecordStore, target: RecordStore, row: Stored) -> bool:
    """Copy a record of several pieces; whether it was still there."""
    upload = target.begin_upload(row.owner, row.head)
    try:
        for number in itertools.count():
            piece = source.piece(row.id, number)
            if piece is None:
                break
            target.add_piece(upload, number, piece)
    except RecordReplaced:
        with target.database.writing() as connection:
            target.drop(connection, [upload])
        return False
    with target.database.writing() as connection:
        target.settle(connection, upload, row.place, row.head)
    return True
