"""`antefix-server grants …`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from antefix.common.table import table
from antefix_server.cli.data_access import AsJson, do, say

Name = Annotated[str, typer.Argument(help="Name of the user.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the group to a command line."""
    grants = typer.Typer(no_args_is_help=True, help="List and end what users let this server use.")
    grants.command("list")(list_grants)
    grants.command("revoke")(revoke)
    grants.command("end")(end)
    app.add_typer(grants, name="grants")


def list_grants(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """List the grants of a user that hold."""
    grants = do(context, "list_grants", name=name)
    rows = [
        (grant["id"], str(grant["version"]), grant["device"], _minute(grant["until"])) for grant in grants
    ]
    say(as_json, grants, table(("grant", "version", "device", "until"), rows))


def revoke(
    context: typer.Context,
    name: Name,
    grant: Annotated[str, typer.Argument(help="Id of the grant, 32 hex digits.", show_default=False)],
) -> None:
    """Use a grant no more. What runs under it ends within a second."""
    do(context, "revoke_grant", name=name, grant=grant)


def end(context: typer.Context, as_json: AsJson = False) -> None:
    """Destroy the keys of all grants, of everybody. Devices can grant anew."""
    result = do(context, "end_grants")
    say(as_json, result, f"{result['keys destroyed']} keys destroyed")


def _minute(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
