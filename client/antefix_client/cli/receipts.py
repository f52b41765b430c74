"""`antefix receipt …`: check what a server gave when it removed somebody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_client.cli.options import AsJson

if TYPE_CHECKING:
    from antefix.receipts import Receipt


def register(app: typer.Typer) -> None:
    """Add the group `receipt` to a command line."""
    group = typer.Typer(no_args_is_help=True, help="Receipts of removals.")
    group.callback()(_group)
    group.command()(verify)
    app.add_typer(group, name="receipt")


def _group() -> None:
    """Receipts of removals."""


def verify(
    file: Annotated[Path, typer.Argument(help="The receipt.", show_default=False)],
    key: Annotated[str, typer.Option(help="Key of the server's removal log: one line, or a file with it.")],
    user: Annotated[str | None, typer.Option(help="Whose removal it must be: id, 32 hex digits.")] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="Key of a witness that must have signed too.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt offline: that the server's log says this user was removed, and cannot take it back."""
    from antefix.receipts import LogKey, verify_receipt

    who = None if user is None else _id(user)
    witnesses = [LogKey.parse(_line(line)) for line in witness or ()]
    receipt = verify_receipt(_text(file), LogKey.parse(_line(key)), user=who, witnesses=witnesses)
    typer.echo(json.dumps(_facts(receipt), indent=2) if as_json else _sentence(receipt, len(witnesses)))


def _facts(receipt: Receipt) -> dict[str, object]:
    removal, tree = receipt.removal, receipt.checkpoint
    return {
        "user": removal.user.hex(),
        "tenant": removal.tenant.hex(),
        "day": removal.date.isoformat(),
        "records": removal.heads.hex(),
        "log": tree.origin,
        "index": receipt.index,
        "size": tree.size,
    }


def _sentence(receipt: Receipt, witnesses: int) -> str:
    facts = _facts(receipt)
    witnessed = (
        f"and by {witnesses} witnesses"
        if witnesses
        else "and by no witness: another log could be shown to others"
    )
    return (
        f"The receipt is good: {facts['log']} says that user {facts['user']} was removed on {facts['day']}.\n"
        f"It is entry {facts['index']} of {facts['size']}, signed by the log {witnessed}."
    )


def _text(path: Path) -> str:
    from antefix.common.files import readable
    from antefix.errors import ReceiptRefused

    try:
        with readable(path), path.open("rb") as file:
            return file.read(2**20).decode("utf-8")
    except UnicodeDecodeError:
        raise ReceiptRefused("it is no text") from None


def _line(given: str) -> str:
    """The key itself, or the file it is in."""
    return given if "+" in given else _text(Path(given))


def _id(text: str) -> bytes:
    from antefix.errors import InvalidArgument

    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        raise InvalidArgument(f"a user id of {len(text):,} characters", "it has 32 hex digits: 0-9, a-f")
    return bytes.fromhex(text)
