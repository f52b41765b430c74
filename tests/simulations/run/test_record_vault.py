"""The vault of a run: made whole or not at all, and never without what opens it."""

import os
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from antefix.errors import InvalidArgument
from antefix_simulations.run.record_vault import RecordVault

MAKE = "import sys; from pathlib import Path; from antefix_simulations.run.record_vault import Keeping; {}"


def files(out: Path) -> int:
    return sum(path.is_file() for path in out.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("step", range(7))
def test_who_is_killed_while_it_is_made_makes_it_again(tmp_path: Path, step: int) -> None:
    ready = "print(flush=True); sys.stdin.read(1); Keeping(Path(sys.argv[1]), 300)"
    with Popen([sys.executable, "-c", MAKE.format(ready), str(tmp_path)], stdin=PIPE, stdout=PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdout.readline()
        one.stdin.close()
        while files(tmp_path) < step and one.poll() is None:
            time.sleep(0)
        one.send_signal(signal.SIGKILL)
    with RecordVault(tmp_path, 300) as keeping:
        assert len({keeping.id(user) for user in range(300)}) == 300
    assert not (tmp_path / "vault.unfinished").exists()


@pytest.mark.parametrize("gone", ["keys", "ids"])
def test_without_what_opens_it_nothing_is_made_anew(tmp_path: Path, gone: str) -> None:
    RecordVault(tmp_path, 2).close()
    os.remove(tmp_path / gone)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidArgument, match=f"{gone} is gone"):
        RecordVault(tmp_path, 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_opened_again_it_has_the_same_users(tmp_path: Path) -> None:
    with RecordVault(tmp_path, 3) as keeping:
        before = [keeping.id(user) for user in range(3)]
    with RecordVault(tmp_path, 3) as keeping:
        assert [keeping.id(user) for user in range(3)] == before
