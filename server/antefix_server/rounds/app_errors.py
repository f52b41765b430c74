"""How a ServerApp fails: with a line, not with a traceback.

Flower writes an exception of the app to the run's log with its traceback. `SystemExit` goes past it: the log
is lost, and the run counts as failed a minute later, when its heartbeat is missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from antefix.errors import AntefixError


class RunFailed(Exception):
    """Why, in a line."""


@contextmanager
def report_errors(command: str) -> Iterator[None]:
    """Let errors of ours end a run as a line that begins with the name of a command."""
    logger = logging.getLogger("flwr")
    logger.addFilter(_without_traceback)
    try:
        yield
    except AntefixError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise RunFailed(f"{command}: error: {error.message}{hint}") from None


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, RunFailed):
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
    return True
