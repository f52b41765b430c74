"""Options that several commands of `antefix` take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

HOME = Path("~/.antefix")


class SplitBy(StrEnum):
    """How a file is cut into texts."""

    paragraphs = "paragraphs"
    lines = "lines"
    json = "json"
    whole = "whole"


Folder = Annotated[
    Path,
    typer.Option(
        "--profile", envvar="ANTEFIX_PROFILE", help="Folder of the profile.", show_default="~/.antefix"
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", envvar="ANTEFIX_KEY_FILE", help="File with the key, 32 bytes.", show_default="ask"
    ),
]
NewKeyFile = Annotated[
    Path | None, typer.Option(help="Make a key in this file and unlock with it.", show_default="ask")
]
UseKeyring = Annotated[bool, typer.Option("--keyring", help="Unlock with the system's keyring.")]
Device = Annotated[str, typer.Option(envvar="ANTEFIX_DEVICE", help="Where to compute: cpu, cuda.")]
Dtype = Annotated[str, typer.Option(envvar="ANTEFIX_DTYPE", help="Compute in fp32, bf16 or fp16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
TextFile = Annotated[str, typer.Argument(help="File with texts, - for standard input.", show_default=False)]
Split = Annotated[
    SplitBy | None,
    typer.Option(help="How the file is cut into texts.", show_default="json for .jsonl, else paragraphs"),
]
NewFile = Annotated[Path, typer.Argument(help="New file.", show_default=False)]
ComparedDevice = Annotated[
    str,
    typer.Option("--device", help="Fingerprint, as the other device itself shows it.", show_default=False),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="New tokens at most.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draws, where the temperature is above 0.")]
