"""One program's commands, with usage and tables of arguments and options."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import typer

from antefix_client.cli import app as client
from antefix_server.cli import app as server
from antefix_simulations.cli import app as simulations
from website.markdown import code, plain, table

APPS = {"antefix": client, "antefix-server": server, "antefix-sim": simulations}
_USUAL = {"--help", "--install-completion", "--show-completion"}


def page(program: str) -> str:
    """All commands of a program, from `##` on."""
    return "\n".join(_section(words, command) for words, command in commands(program))


def commands(program: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group as one types it, the program itself first."""
    yield from _below((program,), made(program))


def options(command: Any) -> set[str]:
    """All names of a command's options."""
    own = {
        name
        for each in command.params
        if not _is_argument(each)
        for name in (*each.opts, *each.secondary_opts)
    }
    return own | {"--help"}


@functools.cache
def made(program: str) -> Any:
    """Typer makes all commands anew each time it is asked."""
    return typer.main.get_command(APPS[program])


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _below((*words, name), below)


def _section(words: tuple[str, ...], command: Any) -> str:
    context = typer.Context(command, info_name=" ".join(words))
    usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
    arguments = [each for each in command.params if _is_argument(each)]
    chosen = [each for each in command.params if not _is_argument(each) and not _USUAL & set(each.opts)]
    title = [f"## {' '.join(words)}\n"] if len(words) > 1 else []  # that of the program is the page's
    parts = [*title, f"{_help(command)}\n", f"```text\n{usage}\n```\n"]
    below = getattr(command, "commands", {})
    if below:
        rows = [(_link(words, name), plain(each.get_short_help_str(200))) for name, each in below.items()]
        parts.append(table(("command", "what it does"), rows))
    parts.append(
        table(
            ("argument", "meaning", "default"),
            [(code(each.human_readable_name), plain(each.help), _default(each)) for each in arguments],
        )
    )
    parts.append(
        table(
            ("option", "value", "meaning", "default", "environment"),
            [_option(each, context) for each in chosen],
        )
    )
    return "\n".join(part for part in parts if part)


def _option(option: Any, context: typer.Context) -> tuple[str, ...]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    value = "" if option.is_flag else code(option.make_metavar(context))
    environment = option.envvar if isinstance(option.envvar, str) else ""
    return names, value, plain(option.help), _default(option), code(environment)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    said, default = getattr(parameter, "show_default", None), parameter.default
    if isinstance(said, str):
        return said
    if said is False or default is None or callable(default) or default is False or default == ():
        return ""
    return code("on" if default is True else getattr(default, "value", default))


def _help(command: Any) -> str:
    """Paragraphs of a command's help."""
    return "\n\n".join(plain(paragraph) for paragraph in (command.help or "").split("\n\n"))


def _link(words: tuple[str, ...], name: str) -> str:
    anchor = "-".join((*words, name))
    return f"[`{name}`](#{anchor})"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")
