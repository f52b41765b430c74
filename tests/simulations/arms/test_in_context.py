"""Examples in front of a text, intervals of means, and the log of results."""

from pathlib import Path

import numpy as np
import pytest
import torch

from antefix import Example, score
from antefix.data.tokenization import encode
from antefix.errors import InvalidArgument
from antefix_simulations.arms.context_prefix import fit_examples
from antefix_simulations.common.bootstrap import interval
from antefix_simulations.common.results_log import ResultsLog
from tests.support import tiny_models


def texts(user: str, count: int) -> list[Example]:
    return [Example(f"{user} wrote {number}", "write\n") for number in range(count)]


def test_the_newest_examples_that_fit_stand_in_front_of_a_text() -> None:
    base = tiny_models.base("llama")
    training, held_out = texts("a", 9), [Example("goal", "last prompt\n"), Example("g", "p")]
    found = fit_examples(base, training, held_out, 100)
    assert 1 < found.texts < 9
    front = "".join(f"{each.prompt}{each.completion}</s>" for each in training[9 - found.texts :])
    assert base.tokenizer.decode(found.tokens) == front
    longest = encode(base, held_out[0], None).tokens
    assert len(found.tokens) + longest <= 100
    more = encode(base, training[8 - found.texts], None).tokens + 1
    assert len(found.tokens) + more + longest > 100
    assert fit_examples(base, training, held_out, 64).texts < found.texts


def test_examples_in_front_are_read_as_one_text() -> None:
    base = tiny_models.base("llama")
    training, goal = texts("a", 3), Example("goal", "last prompt\n")
    found = fit_examples(base, training, [goal], None)
    assert found.texts == 3
    ids = torch.tensor([[*found.tokens, *encode(base, goal, None).inputs]])
    targets = torch.tensor(encode(base, goal, None).targets)
    logits = tiny_models.model("llama")(ids).logits[0, -len(targets) :]
    expected = torch.nn.functional.cross_entropy(logits, targets).item()
    assert score(base, [goal], found.prefix(base)) == pytest.approx(expected, abs=1e-5)
    assert fit_examples(base, training, [goal], 20).prefix(base) is None


def test_more_context_than_the_base_has_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="context is 512, and base 'tiny-llama' sees 256"):
        fit_examples(tiny_models.base("llama"), texts("a", 2), texts("b", 1), 512)


def test_the_interval_of_known_numbers() -> None:
    same = interval([0.5] * 10)
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    values = np.arange(100.0)
    found = interval(list(values))
    margin = 1.96 * values.std() / 10  # the mean of 100 is as good as normal
    assert found.mean == 49.5
    assert found.low == pytest.approx(49.5 - margin, abs=0.3)
    assert found.high == pytest.approx(49.5 + margin, abs=0.3)
    assert found.excludes_zero
    assert not interval([-1.0, 1.0, -2.0, 2.0]).excludes_zero
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}\n", b'{"run": "tune"}\n{"arm": "own", "seed": 0, "user": "a"}\n']
)
def test_a_log_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InvalidArgument, match="is not the metrics of a tune run"):
        ResultsLog(tmp_path, {"run": "tune"})
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    ResultsLog(tmp_path, {"run": "tune"}).add("own", 0, "a", 1.5)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"arm": "own", "se')  # cut off by a kill
    again = ResultsLog(tmp_path, {"run": "tune"})
    assert again.lines["own", 0, "a"]["nats_per_token"] == 1.5
    assert list(again.lines) == [("own", 0, "a")]
    with pytest.raises(InvalidArgument):
        ResultsLog(tmp_path, {"run": "tune", "base": "another"})
