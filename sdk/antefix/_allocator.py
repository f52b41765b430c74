"""Keeps large memory blocks between training steps.

glibc hands every freed block above 128 KiB (32 MiB at most, once it has learned) back to the kernel
and faults it in again page by page at the next step. For activations that is up to 40 % of a step.
Inside `large_blocks_kept()` they come from the heap and stay there; leaving it gives them back.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h: parameter numbers and glibc's own defaults.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536
_NEVER_TRIM = 2**31 - 1

_lock = threading.Lock()
_holders = 0


@contextmanager
def large_blocks_kept() -> Iterator[None]:
    """Keep freed memory for reuse within the block; nests; does nothing where libc is not glibc."""
    global _holders
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
                libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # macOS, Windows, musl
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
