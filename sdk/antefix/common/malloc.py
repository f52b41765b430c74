"""Keeps large memory blocks between training steps.

glibc hands every freed block above 128 KiB (32 MiB at most, once it has learned) back to the kernel
and faults it in again page by page at the next step. For activations that is up to 40 % of a step.
Inside `retain_large_blocks()` they come from the heap and stay there; leaving it gives them back.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h: parameter numbers and glibc's own defaults.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_DEFAULTS = {_M_TRIM_THRESHOLD: 128 * 1024, _M_TOP_PAD: 128 * 1024, _M_MMAP_MAX: 65_536}
# Other threads than the first have heaps of 64 MiB, of which a free one goes back whatever the threshold,
# unless it is smaller than the pad.
_KEPT = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20, _M_MMAP_MAX: 0}

_lock = threading.Lock()
_holders = 0


@contextmanager
def retain_large_blocks() -> Iterator[None]:
    """Keep freed memory for reuse within the block; nests; does nothing where libc is not glibc."""
    global _holders
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            _set(libc, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _set(libc, _DEFAULTS)
                libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # macOS, Windows, musl
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
