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


def test_blocks_are_faulted_in_once() -> None:
    outside = faults()
    with large_blocks_kept(), large_blocks_kept():
        faults()
        inside = faults()
    # No narrower: the kernel may give huge pages at one time and small ones at another.
    assert inside * 2 < outside
    assert inside * 2 < faults()
