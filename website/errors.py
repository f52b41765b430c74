"""The classes of errors, from their modules."""

from __future__ import annotations

import importlib
import inspect

from website.markdown import code, plain, table

MODULES = ("antefix.errors", "antefix_client.errors", "antefix_server.errors")


def page(module: str) -> str:
    """A table of the errors that a module defines, each with the one that it is a kind of."""
    rows = [
        (code(each.__name__), code(each.__bases__[0].__name__), meaning(each)) for each in classes(module)
    ]
    return table(("error", "is a", "meaning"), rows)


def classes(module: str) -> list[type[BaseException]]:
    """Errors that a module defines, in their order there."""
    found = vars(importlib.import_module(module)).values()
    return [
        one
        for one in found
        if inspect.isclass(one) and one.__module__ == module and issubclass(one, BaseException)
    ]


def meaning(error: type[BaseException]) -> str:
    """The first paragraph of its docstring."""
    return plain((inspect.getdoc(error) or "").partition("\n\n")[0])
