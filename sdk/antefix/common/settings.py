"""Settings that are checked when they are written down, and explain the first mistake in one line."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antefix.errors import InvalidArgument

Count = Annotated[int, Field(ge=1, le=2**31)]


class Settings(BaseModel):
    """Frozen settings; a wrong value or an unknown keyword raises `InvalidArgument`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def __init__(self, /, *positional: object, **values: Any) -> None:
        """Check all values at once."""
        kind = type(self)
        if positional:
            names = ", ".join(kind.model_fields)
            raise InvalidArgument(f"{kind.__name__}() takes keywords only", f"name what you set: {names}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(kind, error) from None


def _explain(kind: type[BaseModel], error: ValidationError) -> InvalidArgument:
    """One line about the first mistake, with a near match for a misspelt keyword."""
    first = error.errors()[0]
    word = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(word, kind.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(kind.model_fields))}"
        return InvalidArgument(f"{kind.__name__} has no setting {word!r}", hint)
    message = first["msg"].removeprefix("Value error, ")
    if not word:
        return InvalidArgument(f"{kind.__name__}: {message}")
    return InvalidArgument(f"{kind.__name__}.{word} is {_shown(first['input'])}: {message.lower()}")


def _shown(given: object) -> str:
    """A number as it is; the type of anything else, which may hold a user's text."""
    if isinstance(given, int) and given.bit_length() > 64:  # Python refuses to write thousands of digits
        return f"an int of {given.bit_length():,} bits"
    return repr(given) if given is None or isinstance(given, int | float) else f"a {type(given).__name__}"
