"""What the pages name is there: commands, options, settings, modules, files; their Python can be imported."""

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from click import BadOptionUsage, ClickException

from antefix_server.config import Configuration
from antefix_simulations.settings import RunSettings
from website import commands, hook, settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
pytestmark = pytest.mark.slow

PACKAGES = ("sdk", "client", "server", "simulations", "tests")
PROGRAM = r"antefix(?:-server|-sim)?"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
# A command begins its line, or stands behind what a shell has in front of one.
COMMAND = re.compile(rf"(?:^|[|;&(]|\$ |\b[A-Z_]+=\S*) *({PROGRAM}(?: .*)?)$")
SHELL = re.compile(r"\s#.*|\s*(?:\|\|?|&&|;|\d?>|<|\)).*| [….].*")
# A name that looks like a module's and is another thing.
NO_MODULES = {"antefix.json"}


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    """Each page in turn."""
    assert isinstance(request.param, Path)
    return request.param


def fenced(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block."""
    for _, language, text in FENCE.findall(page.read_text("utf-8")):
        yield language, textwrap.dedent(text)


def command_lines(page: Path) -> Iterator[str]:
    """Everything that calls one of the three programs, in blocks and in the text."""
    text = page.read_text("utf-8")
    for language, block in fenced(page):
        if language in ("", "sh", "bash", "console"):
            yield from commands_in(block)
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        yield from commands_in(code)


def commands_in(text: str) -> Iterator[str]:
    """Commands of ours in lines of a shell; a comment, a pipe or a redirection ends one."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\|\|?|&&|;|\$\(", line):
            found = COMMAND.search(part.strip().removeprefix("$ "))
            if found is not None:
                yield SHELL.sub("", found.group(1)).strip()


def understood(line: str) -> None:
    """Let the program's own parser read a command.

    Raises:
        LookupError: no such command.
        ClickException: no such option, or too many arguments.
    """
    name, *rest = shlex.split(re.sub(r"\[(-[^\]]+)\]", r"\1", line))  # what may be left out is written too
    command = commands.made(name)
    while True:
        context = typer.Context(command, info_name=name)
        try:
            _, left, _ = command.make_parser(context).parse_args(list(rest))
        except BadOptionUsage as error:
            if rest[-1] == error.option_name:  # a sentence names the option, without its value
                return
            raise
        below = getattr(command, "commands", None)
        if not left or left[0] == "COMMAND" or left[0].startswith("$"):
            return
        if below is None:
            raise ClickException(f"too many arguments: {left}")
        name, *rest = left
        command = below[name]


def test_every_command_exists_and_takes_its_options(page: Path) -> None:
    for line in command_lines(page):
        try:
            understood(line)
        except (LookupError, ClickException) as error:
            pytest.fail(f"{line!r}: {error!r}")


def test_every_setting_exists(page: Path) -> None:
    of_flower = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    known = {field.alias or name for name, field in RunSettings.model_fields.items()} | set(of_flower)
    for name in re.findall(r"-c ['\"]?([a-z][a-z-]*)=", page.read_text("utf-8")):
        assert name in known, f"there is no setting {name}"


def test_every_variable_is_read_somewhere(page: Path) -> None:
    for name in re.findall(r"\bANTEFIX_[A-Z_]+[A-Z]", page.read_text("utf-8")):
        assert name in variables(), f"nothing reads {name}"


@functools.cache
def variables() -> set[str]:
    """Those that sources name, and one for each setting of a server."""
    texts = (path.read_text("utf-8") for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
    named = {name for text in texts for name in re.findall(r"\bANTEFIX_[A-Z_]+[A-Z]", text)}
    return named | {f"ANTEFIX_SERVER_{name.upper()}" for name in Configuration.model_fields}


def test_every_module_and_name_exists(page: Path) -> None:
    text = re.sub(r"https?://\S+", "", page.read_text("utf-8"))
    for name in re.findall(
        r"(?<![\w/.@~-])antefix(?:_client|_server|_simulations)?(?:\.[A-Za-z_]\w*)+(?![\w-])", text
    ):
        if name not in NO_MODULES:
            assert resolved(name), f"there is no {name}"


def resolved(dotted: str) -> bool:
    """Whether it is a module, or a name in one."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_file_of_the_repository_exists(page: Path) -> None:
    """Those of the packages are named as they are imported, without the folder in front."""
    text = page.read_text("utf-8")
    for path in re.findall(
        r"(?<![\w/.-])((?!antefix/v1)(?:tests|docs|website|antefix\w*)/[\w/.-]*\w/?)(?![\w*-])", text
    ):
        folders = [ROOT, *(ROOT / folder for folder in PACKAGES)]
        assert any((folder / path).exists() for folder in folders), f"there is no {path}"


def test_every_python_block_compiles_and_its_imports_are_there(page: Path) -> None:
    for language, text in fenced(page):
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    assert all(importlib.util.find_spec(each.name) for each in node.names), ast.unparse(node)
                elif isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, each.name) for each in node.names), ast.unparse(node)


def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", FENCE.sub("", page.read_text("utf-8"))):
        assert (page.parent / target).exists(), f"it links to {target}"


def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [name for _, block in fenced(page) for name in re.findall(r"^make ([a-z]+)", block, re.MULTILINE)]
    named += re.findall(r"`make ([a-z]+)[`\s]", page.read_text("utf-8"))
    assert set(named) <= targets


def test_every_mark_becomes_text(page: Path) -> None:
    text = page.read_text("utf-8")
    shown = hook.on_page_markdown(text)
    assert hook.MARK.search(shown) is None
    assert hook.MARK.search(text) is None or len(shown) > len(text)


@pytest.mark.parametrize("program", commands.APPS)
def test_a_page_of_commands_has_every_command_and_option(program: str) -> None:
    page = commands.page(program)
    for words, command in list(commands.commands(program))[1:]:
        _, _, section = page.partition(f"## {' '.join(words)}\n")
        section, _, _ = section.partition("\n## ")
        assert all(f"`{name}`" in section for name in commands.options(command) - {"--help"}), words


@pytest.mark.parametrize("which", settings.MODELS)
def test_every_setting_has_a_meaning(which: str) -> None:
    fields = settings.MODELS[which].model_fields
    assert [name for name in fields if not settings.help_of(which, name)] == []


def test_every_public_module_has_a_page() -> None:
    """Public is what a package's root has with names for others; errors have a page of their own."""
    pages = {path.stem for path in (ROOT / "docs" / "reference" / "python").glob("*.md")}
    for package in ("antefix", "antefix_client", "antefix_server"):
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            module = importlib.import_module(found.name)
            listed = getattr(module, "__all__", [])
            elsewhere = all(hasattr(importlib.import_module(package), name) for name in listed)
            if not elsewhere and not found.name.endswith("_app"):  # Flower's
                assert found.name in pages, f"{found.name} has no page"


WRONG = [
    (test_every_command_exists_and_takes_its_options, "```sh\nantefix rember notes.txt\n```\n"),
    (test_every_command_exists_and_takes_its_options, "`antefix-server up --prot 9`\n"),
    (test_every_command_exists_and_takes_its_options, "```\n$ antefix status today\n```\n"),
    (test_every_command_exists_and_takes_its_options, "```sh\necho x | antefix complet - >/dev/null\n```\n"),
    (test_every_setting_exists, "`antefix-sim run -c hostil=2`\n"),
    (test_every_variable_is_read_somewhere, f"`ANTEFIX_{'gone'.upper()}`\n"),
    (test_every_module_and_name_exists, "`antefix_server.gone`\n"),
    (test_every_module_and_name_exists, "`antefix.records.Gone`\n"),
    (test_every_file_of_the_repository_exists, "`tests/server/test_gone.py`\n"),
    (test_every_python_block_compiles_and_its_imports_are_there, "```python\ndef\n```\n"),
    (
        test_every_python_block_compiles_and_its_imports_are_there,
        "```python\nfrom antefix import Gone\n```\n",
    ),
    (test_every_link_leads_somewhere, "[gone](gone.md)\n"),
    (test_every_make_target_exists, "```sh\nmake gone\n```\n"),
    (test_every_mark_becomes_text, "<!-- made: commands gone -->\n"),
]


@pytest.mark.parametrize(("check", "text"), WRONG)
def test_a_wrong_page_is_found(check: Callable[[Path], None], text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text, "utf-8")
    with pytest.raises((AssertionError, LookupError, SyntaxError, pytest.fail.Exception)):
        check(tmp_path / "page.md")
