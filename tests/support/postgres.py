"""A real PostgreSQL for tests: its own cluster in a temporary folder, reached by a socket there.

$ANTEFIX_TEST_POSTGRES names another one (an empty database whose schema the tests may drop).
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.support.memory_folder import MEMORY


def missing() -> str | None:
    """Return why PostgreSQL cannot run here, or None."""
    if os.environ.get("ANTEFIX_TEST_POSTGRES") or _binaries() is not None:
        return None
    return "PostgreSQL's server programs are not installed (Debian: apt-get install postgresql)"


@contextmanager
def running() -> Iterator[str]:
    """Run a server while the block runs, and yield the URL of an empty database."""
    external = os.environ.get("ANTEFIX_TEST_POSTGRES")
    if external:
        yield external
        return
    binaries = _binaries()
    assert binaries is not None
    folder = Path(
        tempfile.mkdtemp(prefix="antefix-pg-", dir=MEMORY)
    )  # short: a socket's path has 107 bytes at most
    _run(["chown", "postgres", str(folder)] if os.geteuid() == 0 else ["true"], as_postgres=False)
    data = folder / "data"
    _run([f"{binaries}/initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])
    options = f"-k {folder} -c listen_addresses='' -c shared_buffers=32MB -c fsync=off"
    log = str(folder / "log")
    _run([f"{binaries}/pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "-t", "60", "start"])
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        _run([f"{binaries}/pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


def emptied(url: str) -> str:
    """Drop every table, and return the same URL."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


def _binaries() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian keeps them off the PATH
    on_path = shutil.which("initdb")
    return versions[-1].parent if versions else Path(on_path).parent if on_path else None


def _run(command: Sequence[str], as_postgres: bool = True) -> None:
    """PostgreSQL refuses to run as root, so there it runs as its own user."""
    user = {}
    if as_postgres and os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid}
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        check=False,
        **user,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
