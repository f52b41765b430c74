"""The house rules that a linter does not know."""

import ast
import importlib
import inspect
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from antefix.errors import AntefixError

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    ROOT / "sdk/antefix",
    ROOT / "client/antefix_client",
    ROOT / "server/antefix_server",
    ROOT / "simulations/antefix_simulations",
]
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
PUBLIC = sorted(
    package.name if path.stem == "__init__" else f"{package.name}.{path.stem}"
    for package in PACKAGES[:2]
    for path in package.glob("*.py")
    if path.stem == "__init__" or not path.stem.startswith(("_", "cli"))
)
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of every source, and where it is."""
    return [
        (f"{at}:{getattr(node, 'lineno', 1)}", node)
        for at, text in ((path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in SOURCES)
        for node in ast.walk(ast.parse(text))
    ]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring and decorators."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {str(path): n for path, n in lengths.items() if n > 450} == {}
    assert statistics.median(n for n in lengths.values() if n > 5) <= 160  # an empty __init__ is no file


@pytest.mark.slow
def test_functions_stay_short(nodes: list[tuple[str, ast.AST]]) -> None:
    functions = [
        (where, node) for where, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [(where, node.name) for where, node in functions if code_lines(node) > 70] == []


@pytest.mark.slow
def test_no_assert_guards_anything(nodes: list[tuple[str, ast.AST]]) -> None:
    """`python -O` removes assert statements, so in the packages there are none."""
    assert [where for where, node in nodes if isinstance(node, ast.Assert)] == []


def test_nothing_is_unpickled(nodes: list[tuple[str, ast.AST]]) -> None:
    found = []
    for where, node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        found += [(where, name) for name in names if name == "torch.load" or name.split(".")[0] in UNPICKLERS]
    assert found == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_listed_sorted_and_few(name: str) -> None:
    module = importlib.import_module(name)
    if name.endswith(".errors"):
        classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == name]
        assert [c.__name__ for c in classes if not issubclass(c, AntefixError)] == []
        return
    listed = module.__all__
    assert list(listed) == sorted(listed)
    assert len(listed) <= 12
    assert [public for public in listed if not hasattr(module, public)] == []
    assert exported(name) <= set(listed)


def exported(name: str) -> set[str]:
    """Return the names that a reader would take as public.

    The top package exports what it imports; a submodule only what it defines.
    """
    module = importlib.import_module(name)
    return {
        attribute
        for attribute, value in vars(module).items()
        if not attribute.startswith("_")
        and not inspect.ismodule(value)
        and ("." not in name or getattr(value, "__module__", None) == name)
    }


@pytest.mark.parametrize("package", ["antefix_client", "antefix_server", "antefix_simulations"])
def test_importing_a_package_does_not_import_torch(package: str) -> None:
    """Flower imports an app's package to validate it, on machines and in moments where torch is too much."""
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
