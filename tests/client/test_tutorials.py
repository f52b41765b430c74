"""The tutorials' console blocks, run as they stand; a block's output is compared where the page shows any."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.people import tiny_folder

PAGES = Path(__file__).resolve().parents[2] / "docs" / "start"
DIARY = [f"Day {day}: the lighthouse keeper wrote {day * 7} lines." for day in range(1, 13)]


def steps(page: Path) -> list[tuple[str, str]]:
    """Each command with what the page says that it prints."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["notes.md", "promises.md", "../guides/devices.md"])
def test_a_page_says_what_happens(name: str, tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base")
    (tmp_path / "diary.txt").write_text("\n\n".join(DIARY), "utf-8")
    (tmp_path / "notes.py").write_text((PAGES / "notes.py").read_text("utf-8"), "utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANTEFIX_BASE": str(base),
        "NOTES_BASE": str(base),
        "NOTES": str(tmp_path / "notes"),
        "NOTES_PASSPHRASE": "words of the tests",
        "LC_ALL": "C",
    }
    script = "set -o pipefail\n"
    done = steps(PAGES / name)
    assert len(done) > 8
    for number, (command, _) in enumerate(done):
        script += f"echo '=== {number}'\n{{ {command}\n}} 2>&1\n"
    shown = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    ).stdout
    outputs = re.split(r"^=== \d+\n", shown, flags=re.MULTILINE)[1:]
    for (command, wanted), found in zip(done, outputs, strict=True):
        assert "Traceback" not in found, (command, found)
        if wanted.strip():
            assert found.split("\n") == [*wanted.rstrip("\n").split("\n"), ""], command


def test_the_application_is_short() -> None:
    assert len((PAGES / "notes.py").read_text("utf-8").splitlines()) <= 60
