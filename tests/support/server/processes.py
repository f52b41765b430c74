"""A real server and real devices, each in processes of its own, on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from antefix import FrozenBase
from antefix_client import PersonalModel
from antefix_client.membership import Membership
from tests.support.records import some_bytes

SERVER = [sys.executable, "-c", "from antefix_server.cli import main; main()"]
CLIENT = [sys.executable, "-c", "from antefix_client.cli import main; main()"]
KEY = some_bytes("a key of 32 bytes", 32)


def command(data: Path, *words: object, code: int = 0) -> str:
    """Run an operator's command, and return what it prints: stdout, or stderr if it should fail."""
    done = subprocess.run(
        [*SERVER, *map(str, words)], env=environment(data), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@contextmanager
def federating(data: Path, log: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `antefix-server federate` with its output in a log; kill it when the block ends."""
    with log.open("ab") as file:
        run = subprocess.Popen(
            [*SERVER, "federate", *options], env=environment(data), stdout=file, stderr=file
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait(10)


def environment(data: Path) -> dict[str, str]:
    """Copy our environment without the folder of our Python: a service manager activates no environment."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(entry for entry in os.environ["PATH"].split(os.pathsep) if entry != own)
    return {**os.environ, "PATH": path, "ANTEFIX_DATA": str(data), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Call until the result is true, and return it."""
    until = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < until, "it did not come in time"
        time.sleep(0.2)
    return result


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", verify=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def started(data: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server; yield its address and its supervisor at once."""
    port = free_port()
    process = subprocess.Popen(
        [*SERVER, "up", "--port", str(port), *options], env=environment(data), stdout=subprocess.DEVNULL
    )
    try:
        yield f"https://localhost:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def up(data: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server; yield its address and its supervisor when it answers."""
    with started(data, *options) as (url, supervisor):
        wait_for(lambda: answers(url), 180)  # several programs load PyTorch at once, on a busy machine
        yield url, supervisor


def part(supervisor: psutil.Process, word: str) -> psutil.Process:
    """Find a program of a server by the end of a word of its command line."""
    return next(
        child for child in supervisor.children() if any(arg.endswith(word) for arg in child.cmdline())
    )


def listens(path: Path) -> bool:
    """Say whether a program listens there; httpx would leave a refused socket open."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Device:
    """A profile, and the process that serves it."""

    def __init__(self, folder: Path, base: FrozenBase, base_folder: Path | str, texts: Iterable[str]) -> None:
        self.folder, self.base, self._base_folder = folder, base, base_folder
        with PersonalModel.create(folder, unlock=KEY, base=str(base_folder)) as model:
            model.remember(texts)
        self.key = folder.with_suffix(".key")
        self.key.write_bytes(KEY)
        self.process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def opened(self) -> Iterator[PersonalModel]:
        """Open the profile in this process; no process may serve it meanwhile."""
        with PersonalModel.open(self.folder, unlock=KEY, base=self.base) as model:
            yield model

    def join(self, code: str, url: str, *, rounds: bool = True) -> None:
        with self.opened() as model:
            membership = Membership(model)
            membership.join(code, url, name=self.folder.name)
            membership.take_part(rounds)
            membership.follow(progress=False)

    def serve(self) -> None:
        words = ["serve", "--profile", str(self.folder), "--key-file", str(self.key)]
        log = self.folder.with_suffix(".log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*CLIENT, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
            )

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Ask the device's service; None if it does not listen."""
        if not listens(self.folder / "service.sock"):
            return None
        transport = httpx.HTTPTransport(uds=str(self.folder / "service.sock"))
        try:
            with httpx.Client(transport=transport, base_url="http://antefix", timeout=60) as http:
                return json.loads(http.request(method, f"/antefix/v1/{path}", **given).content)
        except httpx.HTTPError:
            return None

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.ask("GET", "server") or {}
        return state

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None
