"""Fixtures for every test."""

import gc
import os
import random
from pathlib import Path

import pytest

# Before transformers is imported: no test may depend on what a hub answers today.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

# Tiny models gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Take what is imported by now out of every later search for garbage: a second or two for each worker."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start each test from the same random state, so that the order of tests changes nothing."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent
