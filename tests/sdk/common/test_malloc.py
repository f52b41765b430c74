"""Memory stays for reuse within the block, and goes back after it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from antefix.common.malloc import retain_large_blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")


def faults() -> int:
    """Page faults of filling and freeing 64 MiB five times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def alone() -> None:
    """In a process of its own: what other tests have left in a heap decides, too, where a block goes."""
    outside, before = faults(), resident()
    with retain_large_blocks(), retain_large_blocks():
        for _ in range(4):  # the heap takes a few rounds to find a place that fits
            inside = faults()
        kept = resident()
    after = resident()
    said = f"faults {outside}, {inside} inside; MB {before}, {kept} inside, {after} after"
    if not (inside * 2 < outside and kept > before + 32 and after < before + 32):
        sys.exit(said)


def resident() -> int:
    """Memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


@pytest.mark.slow
def test_blocks_are_faulted_in_once(repository: Path) -> None:
    code = "from tests.sdk.common.test_malloc import alone; alone()"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, timeout=100)
