"""A small task, and cells of it, for the tests of the paper's tables."""

import json
from pathlib import Path
from typing import Any

from antefix import FrozenBase
from antefix_simulations.paper.cell import Cell, PaperSettings
from antefix_simulations.paper.source import Source
from antefix_simulations.paper.work import CellRunner
from tests.support import tiny_models

SETTINGS = PaperSettings(
    budget=1_500,
    tests=4,
    beams=2,
    new_tokens=4,
    max_prompt_tokens=40,
    samples=1,
    factors=(1.0,),
    beyond=(),
)
WORDS = ("red", "blue", "green", "small", "big", "old")


def write_task(path: Path) -> Path:
    """Enough texts for every table, half of the test unseen."""
    rows = [
        {
            "split": split,
            "input": f"name[{number}], colour[{WORDS[number % 6]}]",
            "text": f"{number} is {WORDS[number % 6]}.",
            "seen": split != "test" or number % 2 == 0,
        }
        for split, count in (("train", 500), ("dev", 40), ("test", 12))
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def work_of(base: FrozenBase, data: Path, out: Path, **more: Any) -> CellRunner:
    settings = SETTINGS.model_copy(update=more)
    source = Source(data, base, settings)
    tasks = ("e2e", "webnlg", "summarise")
    return CellRunner(base, dict.fromkeys(tasks, source), settings, out, lambda line: None)


def cell_of(method: str, inputs: int = 20, **more: Any) -> Cell:
    under = method.startswith("prefix") or method in ("infix", "embedding-only")
    own: dict[str, Any] = {"length": 4, "start": '"summarize"'} if under else {}
    return Cell("e2e", method, inputs, **own, **more)


def fake_cell(work: CellRunner, cell: Cell, source: Source, rate: float) -> tuple[float, dict[str, Any]]:
    """Figures without any computing, for the form of tables."""
    names = ("BLEU", "NIST", "METEOR", "ROUGE-1", "ROUGE-2", "ROUGE-L", "CIDEr", "TER")
    scores = {name: {"value": 1.0 + cell.length, "spread": 0.5, "missing": ""} for name in names}
    scores["METEOR"] = {"value": None, "spread": None, "missing": "needs Java"}
    part = {"inputs": 4, "nats_per_token": 2.0, "scores": scores}
    return 2.0, {
        "rate": rate,
        "numbers": 7,
        "tokens": 9,
        "parts": dict.fromkeys(("seen", "unseen", "all"), part),
    }


def saved(folder: Path) -> Path:
    """A tiny base as a folder, with room for the longest prefix."""
    model = tiny_models.model("llama")
    model.config.max_position_embeddings = 1024
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder
