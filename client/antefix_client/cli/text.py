"""`antefix complete`, `chat`, `score`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antefix.common.cli import strip_control_chars
from antefix_client.cli.options import (
    HOME,
    AsJson,
    Device,
    Dtype,
    Folder,
    KeyFile,
    MaxTokens,
    Seed,
    Split,
    Temperature,
    TextFile,
)
from antefix_client.cli.unlocking import open_model

if TYPE_CHECKING:
    from antefix_client import PersonalModel


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (complete, chat, score):
        app.command()(command)


def complete(
    prompt: Annotated[
        str, typer.Argument(help="What it goes on from, - for standard input.", show_default=False)
    ],
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    as_json: AsJson = False,
) -> None:
    """Go on from a prompt in your own way."""
    text = sys.stdin.read() if prompt == "-" else prompt
    settings: dict[str, Any] = {"max_new_tokens": max_tokens, "temperature": temperature, "seed": seed}
    with open_model(folder, key_file, device, dtype) as model:
        _say_if_untaught(model)
        if as_json:
            typer.echo(json.dumps({"text": model.generate(text, **settings)}))
            return
        for piece in model.stream(text, **settings):
            typer.echo(strip_control_chars(piece), nl=False)
        typer.echo()


def chat(
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
) -> None:
    """Talk with the personal model; an empty line or Ctrl-D ends it. Nothing of it is kept."""
    from antefix_client.cli.conversation import Conversation

    with open_model(folder, key_file, device, dtype) as model:
        _say_if_untaught(model)
        talk = Conversation(model, max_new_tokens=max_tokens, temperature=temperature)
        while line := _typed():
            for piece in talk.answer(line, seed=seed + talk.turns):
                typer.echo(strip_control_chars(piece), nl=False)
            typer.echo()


def score(
    file: TextFile,
    split: Split = None,
    folder: Folder = HOME,
    key_file: KeyFile = None,
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    as_json: AsJson = False,
) -> None:
    """Say how well texts are predicted: mean nats per token, lower is better."""
    from antefix_client.cli.text_files import name_lines, read_texts

    texts = read_texts(file, split, newest=False)
    with open_model(folder, key_file, device, dtype) as model, name_lines(file, texts):
        loss = model.score([text for _, text in texts])
    typer.echo(json.dumps({"nats_per_token": loss, "texts": len(texts)}) if as_json else f"{loss:.3f}")


def _say_if_untaught(model: PersonalModel) -> None:
    """Else whoever has not learned yet takes the base's way for their own."""
    if not model.versions():
        typer.echo("antefix: nothing was learned yet, see antefix learn", err=True)


def _typed() -> str:
    """A line from the terminal; empty at its end."""
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    return sys.stdin.readline().strip()
