"""The personal model on the real base."""

import subprocess
import sys
from pathlib import Path

import pytest

from antefix import FrozenBase
from antefix_client import PersonalModel
from tests.client.people import KEY, NOTES

PROGRAM = """
import sys
from antefix_client import Budget, PersonalModel

with PersonalModel.open(sys.argv[1], unlock=bytes.fromhex(sys.argv[2])) as model:
    model.learn(budget=Budget(memory_mb=int(sys.argv[3]), tokens=2000), progress=False)
# Not ru_maxrss, which starts with what the parent had.
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("budget_mb", [1200, 1700])
def test_a_budget_of_memory_is_kept(budget_mb: int, tmp_path: Path) -> None:
    FrozenBase.load("smollm2-135m-q4", progress=False)  # converting it once takes more
    with PersonalModel.create(tmp_path / "profile", unlock=KEY) as model:
        model.remember([" ".join(NOTES[at : at + 8]) for at in range(16)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "profile"), KEY.hex(), str(budget_mb)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 900 < int(done.stdout) <= budget_mb


@pytest.mark.real
@pytest.mark.slow
def test_learning_brings_texts_nearer_than_the_context_does(tmp_path: Path, real_base: FrozenBase) -> None:
    """On later notes of the same hand, against the same notes in front of each."""
    from antefix import Example, score
    from antefix_simulations.arms.context_prefix import fit_examples

    base = real_base
    notes = [
        f"{note} Seen on day {at}, noted by the keeper at {at % 24}:00." for at, note in enumerate(NOTES)
    ]
    training, later = notes[:16], [Example(note) for note in notes[16:]]
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=base) as model:
        model.remember(training)
        assert model.learn(progress=False).kept
        learned = model.score(later)
    context = fit_examples(base, [Example(note) for note in training], later, None)
    assert learned < score(base, later) - 1
    assert learned < score(base, later, context.prefix(base)) + 0.5
