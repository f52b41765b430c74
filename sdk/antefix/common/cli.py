"""What the command lines share: an error of ours is two lines and an exit code, never a traceback.

Needs the extra `cli`; imported by the commands alone.
"""

from __future__ import annotations

import sys
import unicodedata
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from antefix.common.extras import NOT_INSTALLED, missing


class ErrorReportingGroup(TyperGroup):
    """The one place where an error of ours becomes two lines.

    Exit codes: 1 refused, 2 a library is not installed, 130 interrupted.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        name = ctx.find_root().info_name
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say(name, "interrupted")
            raise typer.Exit(130) from None
        except ModuleNotFoundError as error:
            explanation = missing(str(name), error)
            if explanation is None:
                raise
            say(name, explanation)
            raise typer.Exit(NOT_INSTALLED) from None
        except Exception as error:
            errors = sys.modules.get("antefix.errors")  # where it is not imported, nothing of it was raised
            if errors is None or not isinstance(error, errors.AntefixError):
                raise
            say(name, f"error: {error.message}")
            if error.hint:
                say(name, f"hint: {error.hint}")
            raise typer.Exit(1) from None


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        typer.echo(f"{context.find_root().info_name} {version('antefix')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
]


def application(name: str, about: str, *, completion: bool = False) -> typer.Typer:
    """A command with the house's settings: `-h`, `--version`, and errors of ours in two lines.

    Args:
        name: of the command.
        about: one sentence for its help.
        completion: offer to install the shell's completion.
    """
    app = typer.Typer(
        name=name,
        cls=ErrorReportingGroup,
        help=about,
        no_args_is_help=True,
        add_completion=completion,
        context_settings={"help_option_names": ["--help", "-h"]},
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(version: Version = False) -> None:
        """Take the options that stand before a command."""

    return app


def run_command(app: typer.Typer) -> None:
    """Run a command line under its own name, however it was started."""
    app(prog_name=app.info.name)


def say(name: str | None, line: str) -> None:
    """A line on stderr."""
    typer.echo(strip_control_chars(f"{name}: {line}"), err=True)


def strip_control_chars(text: str) -> str:
    """Without control characters: names of files, and what a model writes, may hold what a terminal obeys."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) == "Cc" and character not in "\n\t"
        else character
        for character in text
    )
