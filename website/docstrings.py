"""An extension of griffe, which reads docstrings: each name of a list gets a line of its own.

The house writes `device, dtype: of the base`, and after `Raises:` bare lists such as `ProfileAbsent,
ProfileInUse.` where the errors say it all by their names. Griffe wants a name and a sentence; of a bare error
that is the first one of its own docstring.
"""

from __future__ import annotations

import ast
import functools
import re
from typing import Any

import griffe

from website import errors

_SECTION = re.compile(r"(?<=\n)(Args|Attributes|Raises):\n((?: {4}.*(?:\n|$)|\n(?= {4}))+)")


class Lists(griffe.Extension):
    """Spreads the lists of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with everything that is read."""
        docstring, owner = obj.docstring, obj.parent
        if docstring is None or owner is None:
            return
        if obj.name == "__init__" and docstring.value.startswith("Use `"):
            owner.del_member("__init__")  # not for users: the class has methods that make one
        else:
            docstring.value = _SECTION.sub(_spread, docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called with each class: settings take fields by name, and their defaults are said with them."""
        made = cls.members.get("__init__")
        if isinstance(made, griffe.Function) and [one.name for one in made.parameters] == _ANYTHING:
            cls.del_member("__init__")
        if cls.docstring is not None and any(str(base).endswith("Settings") for base in cls.bases):
            cls.docstring.value = _SECTION.sub(_spread, cls.docstring.value)
            for name, field in cls.attributes.items():
                default = _default(field)
                if default:
                    entry = re.compile(rf"(?<=\n)    {name}: ((?:.|\n {{5,}})+)")
                    cls.docstring.value = entry.sub(
                        rf"    {name}: \1 Default: `{default}`.", cls.docstring.value
                    )


_ANYTHING = ["self", "positional", "values"]


def _default(field: griffe.Attribute) -> str:
    """As it stands in the source, `Field(default=…)` or alone; empty for none, and where it is None."""
    if field.value is None:
        return ""
    value = ast.parse(str(field.value), mode="eval").body
    if isinstance(value, ast.Call):
        given = {one.arg: one.value for one in value.keywords}
        value = given.get("default", ast.Constant(None))
    text = ast.unparse(value)
    return "" if text in ("None", "''", "()") else text


def _spread(section: re.Match[str]) -> str:
    title, body = section.groups()
    lines, rest = [], []
    for entry in re.split(r"\n(?= {4}\S)", body.rstrip()):
        names, colon, text = entry.strip().partition(": ")
        if colon and re.fullmatch(r"[\w\s,.*]+", names):
            lines += [f"    {name}: {text}" for name in re.split(r",\s+", names)]
        else:
            words = re.split(r"[,;]\s+", entry.strip().rstrip("."))
            lines += [f"    {word}: {_meanings()[word]}" for word in words if word in _meanings()]
            rest += [word for word in words if word not in _meanings()]
    return "\n".join([f"{title}:", *lines, "", *(f"Also raised: {', '.join(rest)}." for _ in rest[:1])])


@functools.cache
def _meanings() -> dict[str, str]:
    return {one.__name__: errors.meaning(one) for module in errors.MODULES for one in errors.classes(module)}
