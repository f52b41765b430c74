"""What crosses a line between gateway and engine, as JSON and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from antefix import Generated
from antefix.crypto.aead import SecretBytes
from antefix.errors import AntefixError
from antefix.generation.request import TokenLogprob
from antefix.records import Address, OpenedRecord, RecordVersion
from antefix_server import errors as _errors

__all__ = ["error", "generated", "logprobs", "of_error", "of_generated", "of_logprobs", "of_opened", "opened"]

Json = dict[str, Any]
_ADDRESS = ("tenant", "user", "prefix", "base", "shape")


def of_error(error: AntefixError) -> Json:
    """An error of ours: its kind, and what it says."""
    wait = getattr(error, "retry_after_s", None)
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint, "wait": wait}


def error(said: Json) -> AntefixError:
    """The same error again; one of an unknown kind is an `EngineLost`."""
    kind = _kinds().get(said["type"], _errors.EngineLost)
    result = kind.__new__(kind)
    AntefixError.__init__(result, said["message"], said["hint"])
    if isinstance(result, _errors.EngineBusy):
        result.retry_after_s = said["wait"]
    return result


def of_generated(found: Generated) -> Json:
    """Private."""
    return {
        "text": found.text,
        "tokens": found.tokens,
        "finish": found.finish,
        "logprobs": of_logprobs(found.logprobs),
    }


def generated(said: Json) -> Generated:
    """The same result again."""
    return Generated(said["text"], tuple(said["tokens"]), said["finish"], logprobs(said["logprobs"]))


def of_logprobs(found: Iterable[TokenLogprob]) -> list[Any]:
    """Private."""
    return [[entry.token, entry.logprob, entry.top] for entry in found]


def logprobs(said: list[Any]) -> tuple[TokenLogprob, ...]:
    """The same again."""
    return tuple(TokenLogprob(token, value, tuple(map(tuple, top))) for token, value, top in said)


def of_opened(opened: OpenedRecord) -> Json:
    """Where it belongs; its payload goes beside this."""
    at = opened.edition.address
    return {
        **{name: getattr(at, name).hex() for name in _ADDRESS},
        "version": opened.edition.version,
        "previous": opened.edition.previous.hex(),
        "digest": opened.digest.hex(),
        "writer": opened.writer.hex(),
    }


def opened(said: Json, payload: SecretBytes) -> OpenedRecord:
    """The same record again; it takes over the payload."""
    address = Address(*(bytes.fromhex(said[name]) for name in _ADDRESS))
    edition = RecordVersion(address, said["version"], bytes.fromhex(said["previous"]))
    digest, writer = bytes.fromhex(said["digest"]), bytes.fromhex(said["writer"])
    return OpenedRecord(edition, digest, writer, payload, len(payload.data), start=0)


def _kinds() -> dict[str, type[AntefixError]]:
    return {kind.__name__: kind for kind in _below(AntefixError)}


def _below(kind: type[AntefixError]) -> Iterator[type[AntefixError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _below(subclass)
