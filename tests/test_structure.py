"""The house rules that a linter does not know."""

import ast
import importlib
import inspect
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grimp
import pytest

from antefix.errors import AntefixError
from tests.client.people import tiny_folder
from tests.support.public_names import ERRORS, FORMER, PUBLIC
from tests.support.source_tree import BUNDLE, PACKAGES, ROOT, code_lines, module_names, sources

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Longer than 35 lines today. The list only shrinks: a function that got short leaves it.
LONG_FUNCTIONS = {
    "antefix.generation.prefill.prefill",
    "antefix_simulations.cli.paper.paper",
    "antefix_simulations.report.html._pictures",
}
# Rooms that other packages enter beside the public modules.
SHARED_ROOMS = {
    "antefix.common": "validation, files, progress and command lines of all packages",
    "antefix.crypto": "sealed files, signed notes and trees of a profile and a server",
    "antefix.data": "a text, and its tokens",
    "antefix.generation.engines": "the decoding engine's factory,",
    "antefix.generation.interface": "its interface,",
    "antefix.generation.request": "and what it is asked",
    "antefix.http": "what the device's service and the gateway answer alike",
    "antefix.loading": "bases by name, file or folder",
    "antefix.rounds": "the protocol of rounds, which both sides speak; what happens to an update on either",
    "antefix.wire": "messages and statements, which both sides speak",
}
# A run is the server's own rounds, and measures with the server's own harness.
SHARED_WITH_SIMULATIONS = {"antefix_server.rounds", "antefix_server.bench"}
INTERNAL_IMPORTS = 24  # it only falls
TORCH_FREE = [
    "antefix.records",
    "antefix.keys",
    "antefix.wire",
    "antefix.rounds",
    "antefix.receipts",
    "antefix.grants",
    "antefix_client",
    "antefix_server",
    "antefix_simulations",
]


def inside(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


# Files and folders


def folders(root: Path) -> Iterator[Path]:
    """A folder of Python and all below it; what Python itself keeps there does not count."""
    yield root
    for path in sorted(root.rglob("*")):
        if path.is_dir() and "__pycache__" not in path.parts and any(path.rglob("*.py")):
            yield path


@pytest.mark.parametrize("root", [*PACKAGES.values(), ROOT / "tests"], ids=lambda path: path.name)
def test_a_folder_can_be_read_at_a_glance(root: Path) -> None:
    """At most 15 files, `__init__` not counted, and at most two levels."""
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders(root)
        if (count := sum(path.name != "__init__.py" for path in folder.glob("*.py"))) > 15
    }
    assert crowded == {}
    deep = [str(folder) for folder in folders(root) if len(folder.relative_to(root).parts) > 2]
    assert deep == []


def test_no_file_of_a_room_has_an_underscore() -> None:
    """What is internal is said by the layers and by `PUBLIC`, which are checked."""
    files = [source.path for source in sources() if source.path.stem.startswith("_")]
    assert [str(path) for path in files if path.stem not in ("__init__", "__main__")] == []


def test_files_stay_short() -> None:
    lengths = {str(source.path): source.lines for source in sources()}
    assert {path: lines for path, lines in lengths.items() if lines > 450} == {}
    assert (
        statistics.median(lines for lines in lengths.values() if lines > 5) <= 160
    )  # an empty __init__ is no file


def test_functions_stay_short() -> None:
    long = {
        f"{source.module}.{function.name}"
        for source in sources()
        for function in source.functions()
        if code_lines(function) > 35
    }
    assert long - LONG_FUNCTIONS == set()
    assert LONG_FUNCTIONS - long == set(), "short now: take it off the list"


# Statements


def test_no_assert_guards_anything() -> None:
    """`python -O` removes assert statements, so in the packages there are none."""
    asserts = [
        f"{source.path}:{node.lineno}"
        for source in sources()
        for node in source.nodes
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_nothing_is_unpickled() -> None:
    uses = []
    for source in sources():
        for node in source.nodes:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"{node.value.id}.{node.attr}"]
            uses += [
                f"{source.path}: {name}"
                for name in names
                if name == "torch.load" or name.split(".")[0] in UNPICKLERS
            ]
    assert uses == []


# Imports


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import statement: those within functions and those for type checkers, too."""
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    """Take away what imports nothing that is left, again and again: circles stay, and what leads to them."""
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while leaves := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in leaves}
    assert {module: sorted(imported & left.keys()) for module, imported in left.items()} == {}


def test_the_graph_has_every_module(graph: grimp.ImportGraph) -> None:
    """Grimp passes over a folder without `__init__` silently, and with it over its circles."""
    assert module_names() - graph.modules == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_layer(package: str) -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    layers = [layer for one in contracts if one.get("containers") == [package] for layer in one["layers"]]
    listed = [room.strip() for layer in layers for room in layer.split("|")]
    rooms = {module.split(".")[1] for module in module_names() if module.startswith(f"{package}.")}
    assert rooms - {"__main__"} - set(listed) == former_modules(package)
    assert sorted(listed) == sorted(set(listed) & (rooms | {"migrations"})), "a room that is not there"


def former_modules(package: str) -> set[str]:
    return {module.split(".")[1] for module in FORMER if module.startswith(f"{package}.")}


def test_few_imports_enter_another_package() -> None:
    """Beside public modules and shared rooms: each such import is a promise that nobody wrote down."""
    entered = []
    for source in sources():
        package = source.module.split(".")[0]
        rooms = {*SHARED_ROOMS, *(SHARED_WITH_SIMULATIONS if package == "antefix_simulations" else ())}
        for line, modules in source.imports():
            foreign = {module for module in modules if module.split(".")[0] != package}
            internal = {module for module in foreign if module not in PUBLIC and not inside(module, rooms)}
            entered += [f"{source.path}:{line} {module}" for module in sorted(internal - ERRORS)]
    assert len(entered) <= INTERNAL_IMPORTS, "\n".join(entered)


@pytest.fixture(scope="module")
def first_with_torch() -> str:
    """Import one after another in one process, and name the first that brings torch; "" if none does."""
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name)"
    )
    return started("-c", code).stderr.strip()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_this_does_not_import_torch(module: str, first_with_torch: str) -> None:
    """Flower imports an app's package to validate it, on machines and in moments where torch is too much.

    A server that stores and checks records never needs it.
    """
    assert first_with_torch in ("", *(other for other in TORCH_FREE if other != module))


# What is public


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_those_of_the_list(name: str) -> None:
    """Who changes what others may import changes `tests/support/public_names.py` as well."""
    module = importlib.import_module(name)
    listed = list(getattr(module, "__all__", []))
    assert listed == PUBLIC[name]
    assert listed == sorted(listed, key=lambda public: (not public.isupper(), public))
    assert len(listed) <= 12
    assert [public for public in listed if not hasattr(module, public)] == []
    assert defined(name) <= set(listed)


def defined(name: str) -> set[str]:
    """What a reader would take as public: all that a package's top has, and what a module defines itself."""
    return {
        attribute
        for attribute, value in vars(importlib.import_module(name)).items()
        if not attribute.startswith("_")
        and not inspect.ismodule(value)
        and ("." not in name or getattr(value, "__module__", None) == name)
    }


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_modules_of_errors_hold_errors(name: str) -> None:
    classes = inspect.getmembers(importlib.import_module(name), inspect.isclass)
    own = [kind for _, kind in classes if kind.__module__ == name]
    assert own != []
    assert [kind.__name__ for kind in own if not issubclass(kind, AntefixError)] == []


def test_public_modules_stand_at_the_root_of_their_package() -> None:
    """Nothing else does, but for rooms and for what is listed here."""
    roots = {module for module in module_names() if module.count(".") == 1}
    files = {
        module for module in roots if not (PACKAGES[module.split(".")[0]] / module.split(".")[1]).is_dir()
    }
    inner = {"antefix_server.config", "antefix_simulations.__main__", "antefix_simulations.demo"}
    assert files - inner == {m for m in {*PUBLIC, *ERRORS, *FORMER} if m in files}
    assert {*PUBLIC, *ERRORS, *FORMER} - module_names() == set()


# What is started by name


def module_commands() -> set[str]:
    """Every module that a package starts with `python -m`; an f-string's names are looked up in its file."""
    targets = set()
    for source in sources():
        strings = dict(re.findall(r'^(_?[A-Z_]+) = "([\w.]+)"$', source.text, re.MULTILINE))
        for target in re.findall(r'"-m", f?"([^"]+)"', source.text):
            targets.add(target.format_map(strings))
    return targets - {"pip"}


def started(*words: str, descriptors: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, pass_fds=descriptors
    )


def no_socket(folder: Path) -> list[str]:
    return [str(folder / "no socket")]


def population_and_tiny_base(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "population.db")) as file, file:
        file.execute("CREATE TABLE facts (what TEXT)")
        file.execute("INSERT INTO facts VALUES ('{}')")
    return [str(folder / "population.db"), str(tiny_folder(folder / "base")), "fp32", "2", "1", "0"]


def a_database_and_a_program(folder: Path) -> list[str]:
    return [str(folder / "state.db"), "true"]


# Words with which each ends by itself, and how it ends.
MODULES: dict[str, tuple[list[str] | Callable[[Path], list[str]], int]] = {
    "antefix_client.rounds.node": (no_socket, 1),
    "antefix_server.flower.state_database": (a_database_and_a_program, 0),
    "antefix_server.gateway.process": (no_socket, 1),
    "antefix_server.processes.child": (["true"], 0),
    "antefix_server.engine_processes.worker": ([], 0),
    "antefix_simulations": (["--help"], 0),
    "antefix_simulations.bench.flower_peft.loop": (population_and_tiny_base, 0),
}


def test_every_module_that_is_started_is_tried() -> None:
    assert module_commands() == set(MODULES)


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_command_starts(module: str, tmp_path: Path) -> None:
    words, status = MODULES[module]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.shutdown(socket.SHUT_WR)  # a worker's gateway that has gone
        end = [str(theirs.fileno())] if module.endswith(".worker") else []
        done = started(
            "-m",
            module,
            *(words if isinstance(words, list) else words(tmp_path)),
            *end,
            descriptors=(theirs.fileno(),),
        )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", PYPROJECT["project"]["scripts"])
def test_every_entry_point_shows_its_help(command: str) -> None:
    module, _, function = PYPROJECT["project"]["scripts"][command].partition(":")
    code = f"import sys; sys.argv = [{command!r}, '--help']; from {module} import {function}; {function}()"
    done = started("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {command} " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "pyproject", [ROOT / "pyproject.toml", BUNDLE / "pyproject.toml"], ids=["run", "rounds"]
)
def test_every_app_that_flower_loads_is_there(pyproject: Path) -> None:
    components = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["components"]
    for component in components.values():
        module, _, attribute = component.partition(":")
        code = f"from {module} import {attribute}; print(type({attribute}).__name__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=pyproject.parent, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() in ("ServerApp", "ClientApp"), done.stderr
