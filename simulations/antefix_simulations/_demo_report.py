"""What the demo leaves behind: a table, a picture, metrics and the prefixes.

`metrics.jsonl` has one JSON object a line; the field that comes first tells its kind:

* `run` (`"demo"`, the first line): `base`, `fingerprint`, `settings`, `users`, `shared_users` (whose training
  texts the shared prefix has seen), `seconds`.
* `prefix` (file name): `user` (null for the shared one), `bytes` of the file, `length`, `steps`, `tokens`
  (real ones, computed in training), `training_texts`, `diverged` (ended by NaN: the start is what is there).
* `user`: `held_out_texts`, and held-out loss in nats per token: `none`, `shared`, `own`, `others` (mean over
  the other users' prefixes), `by_prefix` (by the user whose private prefix it is).
* `prompt`: the answers of one batch: `none`, `shared`, and `private` by user.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from antefix import TrainedUser
from antefix._files import write_whole
from antefix.errors import InvalidArgument
from antefix_simulations._demo import LEARNING_RATE, DemoResult
from antefix_simulations._output import METRICS, file_stem, json_lines
from antefix_simulations._terminal import aligned, printable

PICTURE = "heatmap.png"
SHARED = "shared.safetensors"


def files(users: list[str]) -> list[str]:
    """Names of all files that a demo with these users writes."""
    return [METRICS, PICTURE, SHARED, *(f"{file_stem(user)}.safetensors" for user in users)]


def write(result: DemoResult, out: Path) -> dict[str, int]:
    """Write all files, readable by their owner only; the bytes of each user's prefix.

    Raises:
        InvalidArgument: the folder cannot be written to.
    """
    users = list(result.writers)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # First, so that whatever else is found there later is known to be of a demo.
        write_whole(out / METRICS, json_lines([run_record(result)]))
        result.shared.prefix.save(out / SHARED)
        paths = {u: result.private[u].prefix.save(out / f"{file_stem(u)}.safetensors") for u in users}
        write_whole(out / PICTURE, _picture(result))
        sizes = {user: path.stat().st_size for user, path in paths.items()}
        write_whole(out / METRICS, json_lines(records(result, sizes, (out / SHARED).stat().st_size)))
    except OSError as error:
        raise InvalidArgument(
            f"{out} cannot be written to: {error.strerror}", "choose another --out"
        ) from error
    return sizes


def _picture(result: DemoResult) -> bytes:
    from antefix_simulations._heatmap import draw

    losses, users = result.losses, list(result.writers)
    table = [[losses.none[u], losses.shared[u], *(losses.private[u][v] for v in users)] for u in users]
    title = f"Held-out loss, nats per token ({result.base}, prefixes of {result.settings.length} positions)"
    return draw(title, users, ["no prefix", "shared"], table)


def run_record(result: DemoResult) -> dict[str, Any]:
    """First line of the metrics."""
    return {
        "run": "demo",
        "base": result.base,
        "fingerprint": result.fingerprint,
        "settings": result.settings.model_dump(),
        "users": list(result.writers),
        "shared_users": [user for user, writer in result.writers.items() if writer.in_shared],
        "seconds": round(result.seconds, 1),
    }


def records(result: DemoResult, sizes: dict[str, int], shared_bytes: int) -> list[dict[str, Any]]:
    """All lines of the metrics."""
    losses, writers = result.losses, result.writers
    seen = sum(len(writer.training) for writer in writers.values() if writer.in_shared)
    lines = [run_record(result), _prefix_record(SHARED, None, result.shared, shared_bytes, seen)]
    for user, writer in writers.items():
        name, trained = f"{file_stem(user)}.safetensors", result.private[user]
        lines.append(_prefix_record(name, user, trained, sizes[user], len(writer.training)))
    for user, writer in writers.items():
        lines.append(
            {
                "user": user,
                "held_out_texts": len(writer.held_out),
                "none": losses.none[user],
                "shared": losses.shared[user],
                "own": losses.own(user),
                "others": losses.others(user),
                "by_prefix": losses.private[user],
            }
        )
    return [*lines, vars(result.answers)]


def _prefix_record(
    name: str, user: str | None, trained: TrainedUser, size: int, texts: int
) -> dict[str, Any]:
    return {
        "prefix": name,
        "user": user,
        "bytes": size,
        "length": trained.prefix.length,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "training_texts": texts,
        "diverged": trained.diverged,
    }


def as_json(result: DemoResult, sizes: dict[str, int], out: Path) -> dict[str, Any]:
    """The lines of the metrics as one object: `run`, `prefixes`, `users`, `answers`, and the folder `out`."""
    run, *lines = records(result, sizes, (out / SHARED).stat().st_size)
    return {
        "run": run,
        "prefixes": [line for line in lines if "prefix" in line],
        "users": [line for line in lines if "held_out_texts" in line],
        "answers": lines[-1],
        "out": str(out),
    }


def as_text(result: DemoResult, sizes: dict[str, int], out: Path) -> str:
    """The result as lines for a terminal."""
    return "\n".join([*_table(result, sizes), "", *_answers(result), "", *_where(result, out)])


def _table(result: DemoResult, sizes: dict[str, int]) -> list[str]:
    losses, writers = result.losses, result.writers
    rows = [["user", "texts", "no prefix", "shared", "own", "others'", "bytes"]]
    for user, writer in writers.items():
        numbers = [losses.none[user], losses.shared[user], losses.own(user), losses.others(user)]
        name = printable(user, 24) + (" *" if writer.in_shared else "")
        rows.append([name, str(len(writer.training)), *(f"{n:.2f}" for n in numbers), f"{sizes[user]:,}"])
    means = [
        fmean(losses.none.values()),
        fmean(losses.shared.values()),
        fmean(losses.own(user) for user in writers),
        fmean(losses.others(user) for user in writers),
    ]
    rows.append(["mean", "", *(f"{n:.2f}" for n in means), ""])
    return [
        "Held-out loss in nats per token, lower is better: texts that no prefix was trained on,",
        "read with no prefix, the shared one, the user's own, and the other users' (mean).",
        "",
        *aligned(rows),
        "",
        *_verdict(result),
    ]


def _verdict(result: DemoResult) -> list[str]:
    """The honest count, and who had a part in the shared prefix."""
    losses, users = result.losses, list(result.writers)
    seen = [user for user in users if result.writers[user].in_shared]
    fresh = [user for user in users if user not in seen]
    over_shared = sum(losses.own(user) < losses.shared[user] for user in users)
    over_others = sum(losses.own(user) < losses.others(user) for user in users)
    gain = fmean(losses.shared[user] - losses.own(user) for user in fresh)
    return [
        f"Own beats shared for {over_shared} of {len(users)} users, "
        f"and the mean of the others' for {over_others} of {len(users)}.",
        f"* The shared prefix was trained on the training texts of these {len(seen)} of {len(users)} users, "
        f"so it has seen their style.",
        f"  For the other {len(fresh)}, whom it has not, their own prefix gains {gain:.2f} over it.",
        *_diverged(result),
    ]


def _diverged(result: DemoResult) -> list[str]:
    """Whose training came to nothing, which the table alone would not tell."""
    trained = {"(shared)": result.shared, **result.private}
    lost = ", ".join(printable(name, 24) for name, each in trained.items() if each.diverged)
    told = f"Training at learning rate {LEARNING_RATE:g} diverged, and the start was kept, for {lost}."
    return [told] if lost else []


def _answers(result: DemoResult) -> list[str]:
    answers = result.answers
    named = {"(no prefix)": answers.none, "(shared)": answers.shared, **answers.private}
    width = max(len(printable(name, 24)) for name in named)
    return [
        "One prompt, answered in one batch, each row under its own prefix:",
        f"  {printable(answers.prompt.strip(), 100)}",
        *(f"  {printable(name, 24):<{width}}  {_line(text)}" for name, text in named.items()),
    ]


def _line(text: str) -> str:
    """An answer on one line; its line ends show."""
    return printable(" ⏎ ".join(line.strip() for line in text.strip().splitlines()), 160) or "(nothing)"


def _where(result: DemoResult, out: Path) -> list[str]:
    return [
        f"Wrote {len(result.private)} private prefixes, {SHARED}, {METRICS} and {PICTURE} to {out}.",
        "The prefix files are in the clear: they can be probed for the texts they were trained on.",
    ]
