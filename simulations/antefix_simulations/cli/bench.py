"""`antefix-sim bench …`: train, serve, federation, gpu. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antefix_simulations.cli.options import AsJson, Base, Device, Dtype, tell

if TYPE_CHECKING:
    from antefix import Example, FrozenBase
    from antefix_simulations.bench.harness import BenchReport

_PROMPT_TOKENS = 64

Data = Annotated[
    Path | None,
    typer.Option(help="Texts, .jsonl or .jsonl.gz.", show_default="a sample of eight invented writers"),
]
Users = Annotated[
    int | None,
    typer.Option(min=1, help="Users, the first that have enough texts.", show_default="all, 32 at most"),
]
Length = Annotated[int, typer.Option(min=2, help="Positions of each prefix.")]
Repetitions = Annotated[int, typer.Option(min=1, help="Of every arm, in turn; the median counts.")]


def register(app: typer.Typer) -> None:
    """Add the group `bench` to a command line."""
    group = typer.Typer(no_args_is_help=True, help="Measure Antefix beside PEFT on this machine.")
    group.command("train")(train)
    group.command("serve")(serve)
    group.command("federation")(federation)
    group.command("gpu")(gpu)
    app.add_typer(group, name="bench")


def train(
    data: Data = None,
    users: Users = None,
    rows: Annotated[int, typer.Option(min=1, help="Texts per user.")] = 8,
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    length: Length = 16,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per user and step.")] = 4,
    repetitions: Repetitions = 3,
    as_json: AsJson = False,
) -> None:
    """Train a prefix for every user: Antefix, PEFT prefix tuning, and Antefix one user at a time.

    Compares real tokens per second: no padding, no dummies.
    """
    from antefix import FrozenBase
    from antefix_simulations.bench.train import TrainBench, bench_train

    settings = TrainBench(length=length, batch_size=batch_size, repetitions=repetitions)
    texts = _texts(data, users, rows)
    loaded = FrozenBase.load(base, device=device, dtype=dtype)
    _print(bench_train(loaded, _cut(loaded, texts), settings), as_json)


def serve(
    data: Data = None,
    users: Users = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens generated for each user.")] = 32,
    base: Base = "smollm2-135m-q4",
    device: Device = "cpu",
    dtype: Dtype = "fp32",
    length: Length = 16,
    repetitions: Repetitions = 3,
    served: Annotated[bool, typer.Option("--served", help="Measure a gateway that hosts them, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate for every user at once: Antefix, PEFT prefix tuning, PEFT LoRA, and Antefix two more ways.

    Compares new tokens per second.
    """
    from antefix import FrozenBase
    from antefix_simulations.bench.serve import ServeBench, bench_serve

    settings = ServeBench(length=length, new_tokens=new_tokens, repetitions=repetitions, served=served)
    texts = _texts(data, users, 1)
    loaded = FrozenBase.load(base, device=device, dtype=dtype)
    _print(bench_serve(loaded, _cut(loaded, texts), settings), as_json)


def _texts(data: Path | None, users: int | None, rows: int) -> dict[str, list[Example]]:
    from antefix_simulations.data.user_texts import SAMPLE, choose_users, read_users

    path = data or SAMPLE
    return choose_users(read_users(path), users, rows, path)


def _cut(base: FrozenBase, users: dict[str, list[Example]]) -> dict[str, list[Example]]:
    from antefix_simulations.data.user_texts import cut_prompts

    return {user: cut_prompts(texts, base.tokenizer, _PROMPT_TOKENS) for user, texts in users.items()}


def _print(report: BenchReport, as_json: bool) -> None:
    from antefix_simulations.bench.table import table

    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else table(report))


def federation(
    data: Annotated[str, typer.Option(help="Texts, as for antefix-sim run.")] = "sample",
    users: Annotated[int, typer.Option(min=1, help="Users of every round.")] = 8,
    texts: Annotated[int, typer.Option(min=2, help="Texts of each at most.")] = 22,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 4 texts, of each user in a round.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes of Flower's engine.")] = 2,
    arms: Annotated[str, typer.Option(help="Which, by commas: ours, flower, loop.")] = "ours,flower,loop",
    base: Base = "smollm2-135m-q4",
    dtype: Dtype = "fp32",
    length: Length = 8,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A base of 2 layers and made-up texts, in place of those given.")
    ] = False,
    repetitions: Repetitions = 1,
    as_json: AsJson = False,
) -> None:
    """Compare rounds of many users with Flower and PEFT, a user for each message, and with PEFT in a loop.

    Each arm runs in processes of its own, from nothing: what it takes to start counts.
    """
    from antefix_simulations.bench.federation import FederationBench, bench_federation, federation_table

    settings = FederationBench(
        data=data,
        base=base,
        dtype=dtype,
        users=users,
        texts=texts,
        steps=steps,
        rounds=rounds,
        length=length,
        workers=workers,
        repetitions=repetitions,
        arms=tuple(arms.split(",")),
        tiny=tiny,
    )
    report = bench_federation(settings, tell)
    typer.echo(json.dumps(report, indent=2) if as_json else federation_table(report))


def gpu(
    shapes: Annotated[
        list[str] | None, typer.Option(help="tiny, 135m, 8b; several times.", show_default="135m, 8b")
    ] = None,
    device: Device = "cuda",
    users: Annotated[int, typer.Option(min=1, help="That train and generate together.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens generated for each user.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Check a GPU against the CPU and user against user, and time it; random weights in known shapes.

    Ends with 1 where a check failed.
    """
    from antefix_simulations.bench.gpu import bench_gpu, gpu_table

    report = bench_gpu(shapes or ["135m", "8b"], device, users, new_tokens, tell)
    typer.echo(json.dumps(report, indent=2) if as_json else gpu_table(report))
    if not all(check["ok"] for check in report["checks"].values()):
        raise typer.Exit(1)
