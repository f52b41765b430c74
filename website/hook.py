"""MkDocs' hook: a line `<!-- made: KIND WORDS -->` in a page becomes what is made from the code.

So a page is there for who reads the repository, and complete in the site (`make site`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from website import commands, errors, http_api, settings

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"^<!-- made: ([\w./ -]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with the text of each page."""
    return MARK.sub(_made, markdown)


def _made(mark: re.Match[str]) -> str:
    kind, *words = mark.group(1).split()
    return KINDS[kind](*words)


def _file(path: str) -> str:
    """A Markdown file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def _source(path: str) -> str:
    """A file of Python."""
    return f"```python\n{_file(path)}```\n"


def _python(module: str) -> str:
    """What mkdocstrings is to read: a module's docstring, and its public names."""
    names = "".join(f"        - {name}\n" for name in importlib.import_module(module).__all__)
    return f"::: {module}\n    options:\n      members:\n{names}"


KINDS: dict[str, Callable[..., str]] = {
    "commands": commands.page,
    "errors": errors.page,
    "file": _file,
    "http": http_api.page,
    "python": _python,
    "settings": settings.page,
    "source": _source,
}
