"""A command whose extra is not installed says in one line which one it is."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from {package}.cli import main
main()
"""


def without(library: str, package: str, *words: object) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(library=library, package=package)
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("library", "package", "words", "said"),
    [
        (
            "typer",
            "antefix_client",
            ["status"],
            "antefix: typer is not installed: pip install 'antefix[cli]'",
        ),
        (
            "typer",
            "antefix_server",
            ["status"],
            "antefix-server: typer is not installed: pip install 'antefix[server]'",
        ),
        (
            "sqlalchemy",
            "antefix_server",
            ["--data", "FOLDER", "users", "list"],
            "antefix-server: sqlalchemy is not installed: pip install 'antefix[server]'",
        ),
        (
            "typer",
            "antefix_simulations",
            ["--help"],
            "antefix-sim: typer is not installed: pip install 'antefix[simulation]'",
        ),
        *(
            (
                library,
                "antefix_simulations",
                ["run", "--out", "FOLDER"],
                f"antefix-sim: {library} is not installed: pip install 'antefix[simulation]'",
            )
            for library in ("flwr", "sqlalchemy")
        ),
    ],
)
def test_one_line_says_which_extra(
    library: str, package: str, words: list[str], said: str, tmp_path: Path
) -> None:
    found = without(library, package, *(tmp_path if word == "FOLDER" else word for word in words))
    assert (found.returncode, found.stdout, found.stderr) == (2, "", said + "\n")


def test_a_library_of_no_extra_is_still_a_traceback() -> None:
    """It is a fault of ours, or of the installation, that no extra mends."""
    assert "Traceback" in without("pydantic", "antefix_client", "status").stderr
