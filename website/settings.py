"""Tables of settings, from the pydantic models that read them: name, type, default, limits, help."""

from __future__ import annotations

import inspect
import re
import types
import typing
from enum import Enum

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from antefix_server.config import Configuration
from antefix_server.gateway import Limits
from antefix_server.rounds.config import RoundConfig
from antefix_simulations.data.columns import Columns
from antefix_simulations.data.prepare import Choice
from antefix_simulations.settings import RunSettings
from website.markdown import attributes, code, plain, table

MODELS: dict[str, type[BaseModel]] = {"server": Configuration, "round": RoundConfig, "run": RunSettings}
# Where they say "see" another class, that one describes the field.
_OTHERS: dict[str, tuple[type, ...]] = {"server": (Limits,), "run": (Choice, Columns)}
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}


def page(which: str) -> str:
    """A table of one kind of settings; those of a run come without those of its rounds."""
    model = MODELS[which]
    inherited = set(RoundConfig.model_fields) if which == "run" else set()
    changed = {
        name
        for name in inherited
        if RoundConfig.model_fields[name].default != model.model_fields[name].default
    }
    rows = [
        (code(field.alias or name), kind(field), _default(field), help_of(which, name))
        for name, field in model.model_fields.items()
        if name not in inherited - changed
    ]
    return table(("setting", "type", "default", "meaning"), rows)


def help_of(which: str, name: str) -> str:
    """What a field says of itself, or the docstring of its class says of it."""
    for model in (MODELS[which], *_OTHERS.get(which, ())):
        for one in model.__mro__:
            fields = getattr(one, "model_fields", {})
            text = (fields[name].description if name in fields else None) or attributes(
                one.__doc__ or ""
            ).get(name, "")
            if text and not re.match("see `|as `gateway", text):
                return plain(text)
    return ""


def kind(field: FieldInfo) -> str:
    """Its type in words, with the limits of a number."""
    limits = {word: getattr(one, word) for one in field.metadata for word in _LIMITS if hasattr(one, word)}
    parts = [_type(field.annotation)]
    if {"ge", "le"} <= set(limits):
        parts.append(f"{limits.pop('ge'):,} to {limits.pop('le'):,}")
    return ", ".join([*parts, *(f"{_LIMITS[word]} {limit:,}" for word, limit in limits.items())])


def _type(annotation: object) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return " or ".join(code(one) for one in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in args if one is not type(None))
    if origin in (list, tuple):
        return f"list of {_type(args[0])}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " or ".join(code(one.value) for one in annotation)
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "Path": "path",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, list):
        return code("[" + ", ".join(f'"{one}"' for one in value) + "]")
    return code(f"{value:g}" if isinstance(value, float) else value)
