"""One holder at a time; a holder that ends, however it ends, lets the next one in."""

import os
from pathlib import Path

import pytest

from antefix.common.file_lock import hold_lock, try_lock, unlock
from antefix.errors import InvalidArgument

BUSY = InvalidArgument("somebody has it")


def test_a_second_holder_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path, BUSY):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(InvalidArgument, match="somebody has it"), hold_lock(path, BUSY):
            pass
    with hold_lock(path, BUSY):
        pass


def test_what_fails_meanwhile_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(tmp_path / "lock", BUSY):
        raise KeyError
    with hold_lock(tmp_path / "lock", BUSY):
        pass


def test_a_folder_can_be_locked_and_let_go_before_it_is_closed(tmp_path: Path) -> None:
    one, two = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    assert try_lock(one)
    assert try_lock(one)
    assert not try_lock(two)
    unlock(one)
    assert try_lock(two)
    os.close(one)
    os.close(two)
