"""The command `antefix-sim`. Exit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted.

Results go to stdout, progress and errors to stderr. torch is imported by a command that runs, not by help.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix._command import application, say
from antefix_simulations import _bench_cli

if TYPE_CHECKING:
    from antefix import Example


app = application(
    "antefix-sim",
    "Many users of Antefix on one machine: a demo, benches, and how much a private prefix is worth.",
)

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")]
Base = Annotated[str, typer.Option(help="Base: a name, a folder or a hub id.")]
Length = Annotated[int, typer.Option(min=2, help="Positions of each prefix.")]
SomeTokens = Annotated[
    int | None,
    typer.Option(min=64, help="Tokens of a row with in-context examples.", show_default="all it sees"),
]
SomeUsers = Annotated[
    int | None, typer.Option(min=0, help="Users with in-context examples, the slow arm.", show_default="all")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Texts, .jsonl or .jsonl.gz.", show_default="a sample of eight invented writers"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for prefixes, metrics and picture.")] = Path("runs/demo"),
    users: Annotated[int, typer.Option(min=2, help="Users at most, the first of the data.")] = 8,
    base: Base = "smollm2-135m-q4",
    length: Length = 8,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of the order of texts.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps at most, for a quick look.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a private prefix for each of a few writers in one batch, and compare.

    The last quarter of each user's texts is held out. Takes minutes on two cores.
    """
    from antefix import FrozenBase
    from antefix_simulations import _demo, _demo_report
    from antefix_simulations._data import SAMPLE
    from antefix_simulations._output import require_usable

    settings = _demo.Demo(length=length, users=users, seed=seed, steps=steps)
    writers = _demo.choose_writers(_read(data), settings, data or SAMPLE)
    if require_usable(out, _demo_report.files(list(writers)), "demo"):
        _say(f"an earlier demo in {out} will be replaced")
    loaded = FrozenBase.load(base, device=device)
    result = _demo.run_demo(loaded, writers, settings, say=_say)
    sizes = _demo_report.write(result, out)
    if as_json:
        typer.echo(json.dumps(_demo_report.as_json(result, sizes, out), indent=2))
    else:
        typer.echo(_demo_report.as_text(result, sizes, out))


@app.command()
def quality(
    data: Annotated[Path, typer.Option(help="Texts of many users, .jsonl or .jsonl.gz, best with dates.")],
    out: Annotated[Path, typer.Option(help="Folder for results; a killed run goes on.")] = Path(
        "runs/quality"
    ),
    users: Annotated[int, typer.Option(min=2, help="Users to evaluate.")] = 40,
    shared_users: Annotated[int, typer.Option(min=1, help="Other users, for the shared prefix.")] = 24,
    train_texts: Annotated[int, typer.Option(min=1, help="Texts of each user to train on.")] = 64,
    held_out: Annotated[int, typer.Option(min=1, help="Newest texts of each user, scored.")] = 24,
    seeds: Annotated[int, typer.Option(min=1, help="Runs to average over.")] = 3,
    others: Annotated[int, typer.Option(min=1, help="Other users' prefixes to read each user under.")] = 3,
    length: Length = 8,
    learning_rate: Annotated[float, typer.Option(help="Of private prefixes.")] = 5e-3,
    passes: Annotated[float, typer.Option(help="Over a user's texts.")] = 3,
    shared_passes: Annotated[float, typer.Option(help="Over the texts for the shared prefix.")] = 2,
    shared_batch_size: Annotated[int, typer.Option(min=1, help="Texts per step of the shared prefix.")] = 8,
    shared_learning_rate: Annotated[float, typer.Option(help="Of the shared prefix.")] = 1e-2,
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Cut prompts to that many.")] = 64,
    context: SomeTokens = None,
    in_context_users: SomeUsers = None,
    lone: Annotated[bool, typer.Option("--lone", help="Also train without the shared start.")] = False,
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Computed in fp32, bf16 or fp16.")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Measure what a private prefix is worth to real users: hours on two cores.

    Compares it with no prefix, in-context examples, the shared prefix and other users' private ones.
    """
    from antefix import FrozenBase
    from antefix_simulations import _panel, _quality, _quality_report

    asked = {name: value for name, value in locals().items() if name in _quality.Quality.model_fields}
    settings = _quality.Quality(**asked)
    panel = _panel.choose_panel(_panel.read_by_date(data), settings, data)
    loaded = FrozenBase.load(base, device=device, dtype=dtype)
    ledger = _quality.run_quality(loaded, panel, settings, out, say=_say)
    found = _quality_report.report(ledger, settings)
    (out / "report.json").write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else found.as_text())


@app.command()
def tune(
    data: Annotated[Path, typer.Option(help="Texts of several users, .jsonl or .jsonl.gz.")],
    out: Annotated[Path, typer.Option(help="Folder for results; a killed run goes on.")] = Path("runs/tune"),
    users: Annotated[int, typer.Option(min=1, help="The first with enough texts.")] = 4,
    texts: Annotated[
        list[int] | None, typer.Option(min=1, help="Texts of each user.", show_default="8, 24, 64")
    ] = None,
    completions_only: Annotated[bool, typer.Option("--completions-only", help="Leave prompts out.")] = False,
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="Computed in fp32, bf16 or fp16.")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Try lengths, learning rates and passes on users with few and many texts, as a device learns alone."""
    from antefix import Example, FrozenBase
    from antefix_simulations._data import choose_users, cut_prompts, read_users
    from antefix_simulations._tune import Grid, run_tuning, tuning_table

    grid = Grid(users=users, texts=tuple(texts or (8, 24, 64)))
    chosen = choose_users(read_users(data), users, max(grid.texts) + grid.held_out, data)
    loaded = FrozenBase.load(base, device=device, dtype=dtype)
    own = {user: cut_prompts(one, loaded.tokenizer, 64) for user, one in chosen.items()}
    if completions_only:
        own = {user: [Example(text.completion) for text in one] for user, one in own.items()}
    rows = run_tuning(loaded, own, grid, out, _say)
    typer.echo(json.dumps(rows, indent=2) if as_json else tuning_table(rows))


_bench_cli.register(app)


def main() -> None:
    """Run `antefix-sim`."""
    app(prog_name="antefix-sim")


def _read(data: Path | None) -> dict[str, list[Example]]:
    from antefix_simulations._data import SAMPLE, read_users

    return read_users(data or SAMPLE)


def _say(line: str) -> None:
    say("antefix-sim", line)
