"""Fixtures for every test."""

import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before transformers is imported: no test may depend on what a hub answers today.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from tests.memory import MEMORY

# Tiny models gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)
# Where no bytecode is kept, each worker and each program that a test starts compiles all of it anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Take what is imported by now out of every later search for garbage: a second or two for each worker."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start each test from the same random state, so that the order of tests changes nothing."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is one: the tests wait for thousands of syncs of a disk."""
    with tempfile.TemporaryDirectory(prefix="antefix-", dir=MEMORY) as temporary:
        yield Path(temporary)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent
