"""Fixtures for every test."""

import functools
import gc
import os
import random
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.memory_folder import MEMORY

if TYPE_CHECKING:
    from antefix import FrozenBase

# Before transformers is imported: no test may depend on what a hub answers today.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Nor does what a test starts: two that want all cores wait for each other in circles, four times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where no bytecode is kept, each worker and each program that a test starts compiles all of it anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of slow tests alone import what takes seconds; each worker of the fast ones would do so."""
    fast = "not slow" in config.option.markexpr and collection_path.suffix == ".py"
    return True if fast and "\npytestmark = pytest.mark.slow\n" in collection_path.read_text() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The soak first: it takes minutes, and begun last it would leave the other workers idle."""
    items.sort(key=lambda item: "test_soak.py" not in item.nodeid)


def pytest_collection_finish() -> None:
    """Take what is imported by now out of every later search for garbage: a second or two for each worker."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models gain nothing from a second thread, and lose much where tests share the cores.

    Fixtures import torch, httpx and typer: the process that hands tests to workers needs none of them.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start each test from the same random state, so that the order of tests changes nothing."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def cached_constructions() -> Iterator[None]:
    """Build once what hundreds of tests only read.

    A client of httpx reads 140 authorities, a tenth of a second with others at work; typer makes all
    commands of an application to run one.
    """
    import httpx
    import typer

    fresh, contexts = httpx.create_ssl_context, functools.cache(httpx.create_ssl_context)

    def context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        usual = verify is True and cert is None
        return contexts(trust_env=trust_env) if usual else fresh(verify, cert, trust_env)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", context)
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def real_base() -> "FrozenBase":
    """The default base, loaded once for each worker: 135 million weights."""
    from antefix import FrozenBase

    return FrozenBase.load("smollm2-135m-q4", progress=False)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is one: the tests wait for thousands of syncs of a disk."""
    with tempfile.TemporaryDirectory(prefix="antefix-", dir=MEMORY) as temporary:
        yield Path(temporary)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent
