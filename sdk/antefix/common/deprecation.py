"""Former names of public things: they work for one release, and warn."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Make a module's `__getattr__` (PEP 562) that serves former names.

    Args:
        module: `__name__` of the module.
        names: former name to the name in use, both of that module.
    """

    def lookup(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name} is called {module}.{names[name]}")
        return getattr(importlib.import_module(module), names[name])

    return lookup


def former_module(module: str, target: str) -> Callable[[str], object]:
    """Make the `__getattr__` of a module that stands where another module was before.

    Args:
        module: `__name__` of the module.
        target: where the content is.
    """

    def lookup(name: str) -> object:
        if name.startswith("__"):  # the import system asks for these; they are no use of the module
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module} has moved to {target}")
        return getattr(importlib.import_module(target), name)

    return lookup


class FormerAttribute:
    """A former name of a method or property, in the class that has it under another name."""

    def __init__(self, name: str) -> None:
        """Take the name in use."""
        self._name = name

    def __set_name__(self, owner: type, former: str) -> None:
        """Learn the former name from the class's own body."""
        self._former = former

    def __get__(self, instance: object, owner: type) -> Any:
        """What has the other name now."""
        _warn(f"{owner.__name__}.{self._former} is called {owner.__name__}.{self._name}")
        return getattr(owner if instance is None else instance, self._name)


def _warn(message: str) -> None:
    """Blame the caller's line: this function, `lookup` and the import system stand between."""
    warnings.warn(f"{message}; the former name goes with the next release", DeprecationWarning, stacklevel=3)
