"""Flower's database is made whole, or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from antefix_server.flower import state_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning"),  # Flower's
]


def columns(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as one:
        return {row[1] for row in one.execute("PRAGMA table_info(node)")}


def test_it_is_made_once(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    state_database.brought_up_to_date(database)
    assert "location" in columns(database)
    inode = database.stat().st_ino
    state_database.brought_up_to_date(database)
    assert database.stat().st_ino == inode


def test_one_that_was_cut_off_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "state.db"

    def cut(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state_database, "_migrate", cut)
        with pytest.raises(KeyboardInterrupt):
            state_database.brought_up_to_date(database)
    assert not database.exists()
    state_database.brought_up_to_date(database)
    assert "location" in columns(database)


def test_an_older_one_keeps_what_it_holds(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    state_database.brought_up_to_date(database)
    with closing(sqlite3.connect(database)) as one:
        one.execute("CREATE TABLE kept (what TEXT)")
        one.commit()
    (tmp_path / "state.db.flower").write_text("1.0.0")
    state_database.brought_up_to_date(database)
    with closing(sqlite3.connect(database)) as one:
        assert one.execute("SELECT name FROM sqlite_master WHERE name = 'kept'").fetchall()
    assert not (tmp_path / "state.db.new").exists()
