"""The sources of the four packages, parsed once, and what they import."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "antefix": ROOT / "sdk/antefix",
    "antefix_client": ROOT / "client/antefix_client",
    "antefix_server": ROOT / "server/antefix_server",
    "antefix_simulations": ROOT / "simulations/antefix_simulations",
}
BUNDLE = (
    PACKAGES["antefix_server"] / "bundle"
)  # the app that Flower carries: held byte for byte by its digest


@dataclass(frozen=True)
class Source:
    """A file of Python.

    Attributes:
        path: relative to the repository.
        module: its dotted name.
        nodes: every node of its tree.
    """

    path: Path
    module: str
    text: str
    nodes: tuple[ast.AST, ...]

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method."""
        return (node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def imports(self) -> Iterator[tuple[int, set[str]]]:
        """Yield the line of each import statement, and the modules of the four packages that it names."""
        known = module_names()
        for node in self.nodes:
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names = (inner & known) | ({node.module} if inner - known else set())
            if names & known:
                yield getattr(node, "lineno", 1), names & known


@functools.cache
def sources() -> tuple[Source, ...]:
    """Parse every file of the packages, without the bundle."""
    parsed = []
    for path, module in _files():
        text = path.read_text(encoding="utf-8")
        parsed.append(Source(path.relative_to(ROOT), module, text, tuple(ast.walk(ast.parse(text)))))
    return tuple(parsed)


@functools.cache
def module_names() -> frozenset[str]:
    """The dotted name of every module of the packages."""
    return frozenset(module for _, module in _files())


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring and decorators."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def _files() -> Iterator[tuple[Path, str]]:
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            if not path.is_relative_to(BUNDLE):
                parts = path.relative_to(folder).with_suffix("").parts
                yield path, ".".join((name, *(part for part in parts if part != "__init__")))
