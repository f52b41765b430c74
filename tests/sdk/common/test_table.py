"""One printer of tables: plain and whole in a pipe, by rich and cut to its width on a terminal."""

import sys

import pytest

from antefix.common.table import align, table

HEAD, ROWS = ("name", "id"), [("al\x1b[31m", "1"), ("[bold]bo[/]", "22")]


def test_in_a_pipe_columns_are_plain_and_whole() -> None:
    assert table(HEAD, ROWS).splitlines() == ["name         id", "al?[31m      1", "[bold]bo[/]  22"]
    assert table(HEAD, []) == "name  id"


def test_on_a_terminal_a_name_is_no_markup_and_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    shown = table(HEAD, ROWS)
    assert "al?[31m" in shown
    assert "[bold]bo[/]" in shown
    assert "\x1b" not in shown.replace("\x1b[", "")  # rich's own colours


def test_numbers_are_flush_right() -> None:
    assert align([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]
    assert align([["a", "b"], ["ccc", "d"]], left=2) == ["a    b", "ccc  d"]
