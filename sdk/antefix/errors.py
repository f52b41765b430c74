"""Every error a user of Antefix can meet.

AntefixError
├── InvalidArgument        a setting or keyword that cannot be meant (also a TypeError)
├── BaseError              about the frozen base model
│   ├── BaseNotFound       no base of that name, folder or hub id
│   ├── BaseUnavailable    known, but its files could not be fetched
│   ├── BaseDamaged        its files are not the pinned ones
│   └── BaseUnsuitable     it cannot take a prefix exactly, or its settings are odd
├── PrefixError            about a prefix or its file
│   ├── PrefixFileRefused  truncated, pickled, wrong names, shapes, NaN …
│   └── PrefixMismatch     trained on another base, or of another shape
├── ExampleError           about a user's texts: there are none, or one is empty
│   └── TextTooLong        more tokens than the base can see
├── OutOfMemory            the device has none left for what is computed at once
├── CheckpointMismatch     a checkpoint of another run, or damaged
├── RecordError            about a sealed record
│   ├── RecordMismatch     its public fields are not those asked for
│   └── RecordRefused      it does not open
├── KeyRefused             a sealed key that does not open here
├── DeviceListRefused      not the next device list
├── GrantRefused           a grant that opens nothing here
├── ReceiptRefused         a receipt that proves nothing
├── ReleaseRefused         a release or announcement that this device must not use
├── RoundRefused           a round that this device must not take part in
└── UpdateRefused          an update of the shared prefix that does not count

The server adds `VaultError` (antefix_server.errors).

A message says what failed, both values, and the next step. It never holds a user's text or a
prefix's values: messages end up in logs.
"""

import warnings


class AntefixError(Exception):
    """Base of all errors raised on purpose; the command line shows them without a traceback.

    Args:
        message: what failed, with both values.
        hint: the next step, printed on a line of its own.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}; {hint}" if hint else message)


class InvalidArgument(AntefixError, TypeError):
    """An argument, setting or keyword that cannot be meant."""


class BaseError(AntefixError):
    """About the frozen base model."""


class BaseNotFound(BaseError):
    """No base of that name, folder or hub id."""


class BaseUnavailable(BaseError):
    """A known base whose files could not be fetched."""


class BaseDamaged(BaseError):
    """A base whose files are not the pinned ones."""


class BaseUnsuitable(BaseError):
    """A base with a layer that cannot take a prefix exactly, or with settings that nothing can run."""


class PrefixError(AntefixError):
    """About a prefix or its file."""


class PrefixFileRefused(PrefixError):
    """A prefix file that is truncated, pickled, or holds anything but what it should."""


class PrefixMismatch(PrefixError):
    """A prefix of another base or another shape than the one in use."""


class ExampleError(AntefixError):
    """About a user's texts: there are none, or a completion has no characters in it.

    Attributes:
        number: of the text among those that were given, from 0; None where it is about all of them.
    """

    number: int | None = None


class TextTooLong(ExampleError):
    """A text with more tokens than the base can see."""


class OutOfMemory(AntefixError):
    """The device's memory does not hold what is to be computed at once. Nothing that was finished is lost."""


class CheckpointMismatch(AntefixError):
    """A checkpoint that belongs to another run, or is not what a run has written."""


class RecordError(AntefixError):
    """About a sealed record."""


class RecordMismatch(RecordError):
    """A record's public fields are not what was asked for; no key was used. Shows both values."""


class RecordRefused(RecordError):
    """A record that does not open. The message is the same whatever the reason."""

    def __init__(self) -> None:
        super().__init__(
            "the record does not open here: it was damaged, forged, or sealed for another place or key",
            "fetch it again, or restore an earlier version",
        )


class KeyRefused(AntefixError):
    """A sealed key that does not open here. The message is the same whatever the reason."""

    def __init__(self) -> None:
        super().__init__(
            "the sealed key does not open here: it is for another device, user or epoch, or was damaged",
            "add this device again from one that works, or use the recovery code",
        )


class DeviceListRefused(AntefixError):
    """A device list that is not the next one of the list before, or not signed by a device on it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the device list is refused: {why}", "ask another device of this user for its list")


class ReceiptRefused(AntefixError):
    """A receipt of a removal that does not prove it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the receipt is refused: {why}", "ask the server for it again, and for the log's key elsewhere"
        )


class ReleaseRefused(AntefixError):
    """A release or announcement that is forged, older than what is known, or not to be used here."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(
            f"the release is refused: {why}", hint or "nothing was changed; ask the operator of the server"
        )


class GrantRefused(AntefixError):
    """A grant that is over, revoked, forged, or about something else. Nothing was opened."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the grant is refused: {why}", "the device can grant anew")


class RoundRefused(AntefixError):
    """A round that is forged, over, or not about what this device has. Nothing was sent."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the round is refused: {why}", "nothing was sent; ask the operator of the server")


class UpdateRefused(AntefixError):
    """An update of the shared prefix that does not count: forged, of another round, or out of bounds."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the update is refused: {why}", "the round goes on without it")


def __getattr__(name: str) -> object:
    """Serve former names for one release (PEP 562); this module imports nothing of ours."""
    if name not in ("NoExamples", "EmptyText"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"{__name__}.{name} is called {__name__}.ExampleError; the former name goes with the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return ExampleError
