"""`antefix-server base …`: which shared base devices are to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from antefix.common.table import table
from antefix_server.cli.data_access import AsJson, day, do, say

Version = Annotated[int, typer.Argument(min=1, help="Version of a release.", show_default=False)]

Shared = Annotated[
    Path | None, typer.Option(help="Shared prefix, the start of everybody's own.", show_default="none")
]
FreshShared = Annotated[
    int | None,
    typer.Option(
        min=2, max=512, help="Make a first shared prefix of that length, for rounds.", show_default="none"
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        help="Where devices find the files, too: https://example.com/base/ and a file's name. "
        "Up to four times.",
        show_default="this server alone",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group to a command line."""
    base = typer.Typer(no_args_is_help=True, help="Publish shared bases, and say which one devices use.")
    for command in (publish, list_base, promote, withdraw, prune):
        base.command(command.__name__.removesuffix("_base"))(command)
    app.add_typer(base, name="base")


def publish(
    context: typer.Context,
    base: Annotated[
        str, typer.Argument(help="Name of the catalogue, folder, or hub id.", show_default=False)
    ],
    shared: Shared = None,
    fresh_shared: FreshShared = None,
    source: Sources = None,
    note: Annotated[str, typer.Option(help="For people.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Publish a base, with or without a shared prefix. No device uses it before it is promoted."""
    if shared is not None and fresh_shared is not None:
        raise typer.BadParameter("give --shared or --fresh-shared")
    path = None if shared is None else str(shared.absolute())
    content = None if fresh_shared is None else _fresh(base, fresh_shared)
    facts = do(
        context, "publish", base=_whole(base), shared=path, content=content, sources=source or [], note=note
    )
    say(as_json, facts, "\n".join(f"{name:12} {value}" for name, value in facts.items() if value))
    typer.echo(
        f"antefix-server: to have devices use it: antefix-server base promote {facts['version']}", err=True
    )


def list_base(context: typer.Context, as_json: AsJson = False) -> None:
    """List all releases."""
    releases = do(context, "list_releases")
    say(as_json, releases, _list(releases))


def promote(context: typer.Context, version: Version, as_json: AsJson = False) -> None:
    """Have devices use a release from now on."""
    _say_announced(as_json, do(context, "promote", version=version))


def withdraw(context: typer.Context, version: Version, as_json: AsJson = False) -> None:
    """Have devices use a release no more, for good; the newest good one before it takes its place."""
    _say_announced(as_json, do(context, "withdraw", version=version))


def prune(
    context: typer.Context,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest stay.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Delete old releases and their files. The newest stay, and the current one."""
    gone = do(context, "prune", keep=keep)
    say(as_json, {"deleted": gone}, f"{len(gone)} releases deleted")


def _say_announced(as_json: bool, announcement: dict[str, Any]) -> None:
    current = announcement["current"]
    use = "devices are to use nothing" if current is None else f"devices are to use version {current}"
    say(as_json, announcement, f"announcement {announcement['announcement']}: {use}")


def _fresh(base: str, length: int) -> bytes:
    """Made here; the server loads the base too, to see that its first shared prefix fits."""
    from antefix import FrozenBase
    from antefix.training.neutral_prefix import neutral_prefix

    return neutral_prefix(FrozenBase.load(base), length).to_bytes()


def _whole(base: str) -> str:
    """The server runs in another folder."""
    return str(Path(base).absolute()) if Path(base).is_dir() else base


def _list(releases: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            str(release["version"]),
            release["state"],
            day(release["created"]),
            release["base"],
            release["fingerprint"][:12],
            "no" if release["shared"] is None else "yes",
            release["note"][:60],
        )
        for release in releases
    ]
    return table(("version", "state", "created", "base", "fingerprint", "shared", "note"), rows)
