"""Which extra brings a library that is not installed: one line of a command, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_EXTRAS = {
    "cli": ("typer", "click", "rich"),
    "service": ("starlette", "uvicorn"),
    "server": ("sqlalchemy", "alembic", "fastapi", "pydantic_settings"),
    "federated": ("flwr", "dp_accounting", "httpx"),
    "postgres": ("psycopg",),
    "keyring": ("keyring",),
    "simulation": ("matplotlib", "jinja2", "sacrebleu", "rouge_score"),
    "peft": ("peft",),
}
_ALL_OF = {
    "antefix-server": ("server", ("cli", "service", "server", "httpx")),
    "antefix-sim": ("simulation", ("cli", "service", "server", "federated")),
}
NOT_INSTALLED = 2  # as wrong usage: the installation is to be mended, no data was refused


def missing(command: str, error: ModuleNotFoundError) -> str | None:
    """What to say of a library that is not there; None where it is none of an extra's.

    Args:
        command: that needs it; `antefix-server` has all but Flower's and PostgreSQL's in one extra, and
            `antefix-sim` those and Flower's.
        error: of the import.
    """
    name = (error.name or "").split(".")[0]
    extra = next((extra for extra, names in _EXTRAS.items() if name in names), None)
    if extra is None:
        return None
    whole, parts = _ALL_OF.get(command, (extra, ()))
    return f"{name} is not installed: pip install 'antefix[{whole if {extra, name} & {*parts} else extra}]'"


@contextmanager
def imported_by(command: str) -> Iterator[None]:
    """Around the imports of a command; without typer nothing else is there yet to report it."""
    try:
        yield
    except ModuleNotFoundError as error:
        explanation = missing(command, error)
        if explanation is None:
            raise
        print(f"{command}: {explanation}", file=sys.stderr)
        raise SystemExit(NOT_INSTALLED) from None
