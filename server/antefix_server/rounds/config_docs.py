"""Writes what a settings class says as TOML and as help: neither is kept by hand."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["Setting", "help_text", "settings", "toml_block"]

_SIGNS = {
    annotated_types.Ge: ("≥", "ge"),
    annotated_types.Gt: (">", "gt"),
    annotated_types.Le: ("≤", "le"),
    annotated_types.Lt: ("<", "lt"),
    annotated_types.MultipleOf: ("a multiple of", "multiple_of"),
}


@dataclass(frozen=True)
class Setting:
    """A field as people read it: its name with dashes, its default as TOML, its values, its description."""

    name: str
    default: str
    values: str
    text: str


def settings(model: type[BaseModel]) -> Iterator[Setting]:
    """The fields of a settings class that have defaults, in their order."""
    for name, field in model.model_fields.items():
        text = " ".join((field.description or "").split())
        yield Setting(field.alias or name.replace("_", "-"), json.dumps(field.default), _values(field), text)


def toml_block(model: type[BaseModel]) -> str:
    """Defaults as lines of TOML, as Flower's `[tool.flwr.app.config]` has them."""
    return "".join(f"{setting.name} = {setting.default}\n" for setting in settings(model))


def help_text(model: type[BaseModel], without: Collection[str] = ()) -> str:
    """A paragraph for each setting, but for those that a command has options of its own for."""
    return "\n\n".join(
        f"{setting.name}: {setting.text} [{setting.values}, default {setting.default}]"
        for setting in settings(model)
        if setting.name not in without
    )


def _values(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    bounds = [
        f"{sign} {getattr(bound, attribute):,g}"
        for bound in field.metadata
        for known, (sign, attribute) in _SIGNS.items()
        if isinstance(bound, known)
    ]
    words = {bool: "true or false", str: "text", int: "whole number", float: "number"}
    return " ".join([words.get(kind, str(kind)), ", ".join(bounds)]).strip()
