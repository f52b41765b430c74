"""Flower's database, then its SuperLink.

    python -m antefix_server.flower.state_database DATABASE PROGRAM ARGUMENTS…

Flower brings its database up to date when it starts, in steps that SQLite does not undo together: a SuperLink
that is killed there never starts again (`duplicate column name`). So the steps are done on a copy, which then
takes the database's place.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from antefix.common.files import atomic_write


def main() -> None:
    """Prepare, then become the program."""
    brought_up_to_date(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


def brought_up_to_date(database: Path) -> None:
    """Make a database, or an older Flower's, that of the Flower installed here; whole or not at all."""
    mark, copy, flower = Path(f"{database}.flower"), Path(f"{database}.new"), version("flwr")
    if database.is_file() and mark.is_file() and mark.read_text("utf-8") == flower:
        return
    copy.unlink(missing_ok=True)
    if database.is_file():
        with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
    _migrate(copy)
    copy.chmod(0o600)
    copy.replace(database)
    atomic_write(mark, flower.encode())


def _migrate(database: Path) -> None:
    from flwr.supercore.state.alembic.utils import run_migrations
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{database}")
    run_migrations(engine)
    engine.dispose()


if __name__ == "__main__":
    main()
