"""Texts that differ only behind the cut of their prompts are one text: it never judges what it trained."""

import json
from pathlib import Path

from antefix import FrozenBase
from antefix_simulations.data.sources import population_of
from antefix_simulations.run.texts import CohortTexts
from antefix_simulations.settings import RunSettings
from tests.support import tiny_models


def texts_of(folder: Path, prompts: list[str]) -> tuple[CohortTexts, list[int]]:
    """One user whose texts have one completion and these prompts, oldest first."""
    file = folder / "texts.jsonl"
    lines = [
        {"user": "ann", "prompt": prompt, "text": "the same reply", "date": f"2026-01-{day:02}"}
        for day, prompt in enumerate(prompts, start=1)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = RunSettings.read(
        {"data": str(file), "min-texts": 2, "new-users": 0.0, "max-prompt-tokens": 20}
    )
    population = population_of(settings, folder / "population.db")
    base = FrozenBase.from_model(tiny_models.model("llama"), tiny_models.tokenizer())
    return CohortTexts(base, population, settings), population.numbers()


def test_a_held_out_text_that_is_a_training_text_once_cut_is_left_out(tmp_path: Path) -> None:
    long = "a long common beginning of a prompt, and "
    texts, users = texts_of(
        tmp_path, [long + "one", "two", "three", "four", "five", "six", long + "7", "new"]
    )
    splits, failures = texts.read(users)
    (split,) = splits.values()
    training, held_out = ({one.prompt for one in side} for side in (split.training, split.held_out))
    assert len(training) == 6
    assert held_out == {"new\n"}
    assert not failures


def test_a_user_without_a_new_text_is_told(tmp_path: Path) -> None:
    long = "a long common beginning of a prompt, and "
    texts, users = texts_of(tmp_path, [long + str(number) for number in range(8)])
    splits, failures = texts.read(users)
    assert splits == {}
    assert "max-prompt-tokens" in failures[0]["failed"]


def test_what_another_trains_on_judges_nobody_once_cut(tmp_path: Path) -> None:
    long = "a long common beginning of a prompt, and "
    file = tmp_path / "texts.jsonl"
    names = {"ann": [long + "1", "two", "three", "four"], "bob": ["five", "six", "seven", long.upper() + "8"]}
    lines = [
        {"user": user, "prompt": prompt, "text": "The same REPLY" if user == "ann" else "the same  reply"}
        for user, prompts in names.items()
        for prompt in [*prompts, f"last of {user}"]
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = {"data": str(file), "min-texts": 2, "new-users": 0.0, "max-prompt-tokens": 20, "held-out": 0.4}
    settings = RunSettings.read(asked)
    population = population_of(settings, tmp_path / "population.db")
    base = FrozenBase.from_model(tiny_models.model("llama"), tiny_models.tokenizer())
    splits, _ = CohortTexts(base, population, settings).read(population.numbers())
    names_of = population.names(population.numbers())
    kept = {names_of[user]: {one.prompt for one in split.held_out} for user, split in splits.items()}
    assert kept == {"ann": {"four\n", "last of ann\n"}, "bob": {"last of bob\n"}}
