"""Writes `docs/commands.md`: the help text of every command. `make docs` calls it."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import typer
from click.testing import CliRunner

from antefix_client.cli import app as client
from antefix_server.cli import app as server
from antefix_simulations.cli import app as simulations

APPS = {"antefix": client, "antefix-server": server, "antefix-sim": simulations}
FRAME = "─│╭╮╰╯"


def page() -> str:
    """The whole page."""
    parts = ["# Commands\n\nWhat `--help` says, command by command. Written by `make docs`.\n"]
    for words in commands():
        parts.append(f"## {' '.join(words)}\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group, as one types it."""
    for name in APPS:
        yield from _below(_made(name), (name,))


def help_of(words: tuple[str, ...]) -> str:
    """Its help text, 100 columns wide."""
    # Not TERMINAL_WIDTH, which typer reads once, when whoever comes first imports it.
    wide = {"COLUMNS": "100"}
    shown = CliRunner().invoke(
        _made(words[0]), [*words[1:], "--help"], prog_name=words[0], color=False, env=wide
    )
    assert shown.exit_code == 0, shown.output
    return "\n".join(line.rstrip() for line in shown.output.strip().splitlines())


def said(text: str) -> list[str]:
    """Its words, however they are framed and broken into lines."""
    return re.sub(f"[{FRAME}]", " ", text).split()


@functools.cache
def _made(name: str) -> Any:
    """Typer's own runner would make all commands anew for the help of each."""
    return typer.main.get_command(APPS[name])


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from _below(below, (*words, name))


if __name__ == "__main__":
    print(page(), end="")
