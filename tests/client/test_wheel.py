"""The wheel alone, in a clean environment: no Flower, no web framework, no command line; the client works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.people import tiny_folder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib.util, sys
from antefix_client import PersonalModel

folder, base = sys.argv[1:]
absent = ("flwr", "ray", "fastapi", "starlette", "uvicorn", "sqlalchemy", "keyring", "matplotlib", "peft")
there = [name for name in absent if importlib.util.find_spec(name)]
sys.exit(f"{there} came with the wheel") if there else None
model = PersonalModel.create(folder, base=base, unlock="some words of mine")
model.remember([f"Note {number}: the roof of house {number} has an ornament." for number in range(24)])
assert "torch" not in sys.modules
print(model.learn(progress=False))
print(model.generate("Note 3:", max_new_tokens=4))
"""


@pytest.mark.slow
def test_the_client_needs_the_core_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("wheel")  # on the disk: PyTorch is large
    base = tiny_folder(tmp_path / "base")
    run("-m", "venv", tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", ROOT, "--no-deps", "--wheel-dir", tmp_path / "wheels", by=python)
    (wheel,) = (tmp_path / "wheels").iterdir()
    run(*pip, "install", wheel, "-c", ROOT / "constraints.txt", by=python)
    shown = run("-c", PROGRAM, tmp_path / "profile", base, by=python, cwd=tmp_path)
    assert "Version 1, learned from" in shown


def run(*words: object, by: Path | str = sys.executable, cwd: Path = ROOT) -> str:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(by), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=plain,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
