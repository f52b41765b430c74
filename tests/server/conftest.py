"""One vault per test, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix_server.vault import Vault
from tests.support import postgres
from tests.support.vaults import new_vault


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL for the whole run."""
    why = postgres.missing()
    if why is not None:
        pytest.skip(why)
    with postgres.running() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite, else the URL of an empty PostgreSQL."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return postgres.emptied(url)


@pytest.fixture
def vault(database: str | None, tmp_path: Path) -> Iterator[Vault]:
    """An open, empty vault with a mirror."""
    made = new_vault(tmp_path / "vault", database, tmp_path / "mirror.db")
    yield made
    made.close()
