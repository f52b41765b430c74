"""Memory stays for reuse within the block, and goes back after it."""

import resource
import sys

import pytest
import torch

from antefix._allocator import large_blocks_kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")


def faults() -> int:
    """Page faults of filling and freeing 64 MiB five times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def kept() -> bool:
    outside = faults()
    with large_blocks_kept(), large_blocks_kept():
        faults()
        inside = faults()
    return inside * 2 < min(outside, faults())


def test_blocks_are_faulted_in_once() -> None:
    # The kernel may give huge pages at one time and small ones at another, by which a single look is fooled.
    assert any(kept() for _ in range(5))
