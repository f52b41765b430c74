"""Profiles for tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix_client import PersonalModel
from tests.client.people import KEY
from tests.support import tiny_models


@pytest.fixture
def model(tmp_path: Path) -> Iterator[PersonalModel]:
    """A new profile on a tiny base."""
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as made:
        yield made
