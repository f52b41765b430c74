"""What the three commands have in common: their version, `-h`, and the name that they go by."""

import importlib
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

import antefix

COMMANDS = [
    ("antefix", "antefix_client.cli"),
    ("antefix-server", "antefix_server.cli"),
    ("antefix-sim", "antefix_simulations.cli"),
]


def test_the_package_knows_its_version() -> None:
    assert antefix.__version__ == version("antefix")


@pytest.mark.parametrize(("name", "module"), COMMANDS)
def test_a_command_says_its_version(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["started by another name", "--version"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{name} {antefix.__version__}\n"


@pytest.mark.parametrize(("name", "module"), COMMANDS)
def test_h_is_help_of_a_command_and_of_what_is_below_it(name: str, module: str) -> None:
    app = importlib.import_module(module).app
    below = {"antefix": "learn", "antefix-server": "up", "antefix-sim": "run"}[name]
    for words in ([], [below]):
        short, long = (
            CliRunner().invoke(app, [*words, option], prog_name=name) for option in ("-h", "--help")
        )
        assert (short.exit_code, short.output) == (0, long.output)
        assert "Usage" in short.output
