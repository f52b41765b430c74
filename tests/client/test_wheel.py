"""The wheel alone, in a clean environment: no Flower, no web framework, no command line; the client works."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.client.people import tiny_folder
from tests.support.trial_counts import THOROUGH

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
    run("-m", "venv", tmp_path / "clean", *([] if THOROUGH else ["--without-pip"]))
    python = tmp_path / "clean" / "bin" / "python"
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", ROOT, "--no-deps", "--wheel-dir", tmp_path / "wheels")
    (wheel,) = (tmp_path / "wheels").iterdir()
    if THOROUGH:
        run(*pip, "install", wheel, "-c", ROOT / "constraints.txt", by=python)
    else:
        run(*pip, "--python", python, "install", "--no-deps", wheel)
        (site,) = (tmp_path / "clean").glob("lib/python3*/site-packages")
        link_requirements("antefix", site)
    shown = run("-c", PROGRAM, tmp_path / "profile", base, by=python, cwd=tmp_path)
    assert "Version 1, learned from" in shown


def link_requirements(name: str, site: Path) -> None:
    """Put what a distribution requires, and what that requires, into a folder as links to what we have.

    Installing PyTorch once more takes minutes: `make thorough` does it.
    """
    (own,) = metadata.distributions(name=name, path=[str(site)])
    waiting, linked = list(own.requires or []), {canonicalize_name(name)}
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(requirement.name) in linked:
            continue
        linked.add(canonicalize_name(requirement.name))
        installed = metadata.distribution(requirement.name)
        assert installed.version in requirement.specifier, requirement
        for top in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(installed.locate_file(top))).resolve())
        waiting += installed.requires or []


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
