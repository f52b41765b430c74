"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Base", "Choices", "Device", "Dtype", "Seed", "tell"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Base = Annotated[str, typer.Option(help="Base: a name, a folder or a hub id.")]
Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--run-config",
        "-c",
        help="NAME=VALUE, see docs/guides/simulate.md; several times.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")]
Dtype = Annotated[str, typer.Option(help="Computed in fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything.")]


def tell(line: str) -> None:
    """Progress goes to stderr."""
    typer.echo(line, err=True)
