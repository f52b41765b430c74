"""Each test is in a folder of its own: a command without `--out` writes to `runs/` of where it is called."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the folder that the tests were started in, which may have a demo of its owner's."""
    monkeypatch.chdir(tmp_path)
