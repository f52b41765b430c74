"""`antefix-server up`: the real processes, on loopback."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from antefix.keys import DeviceKeys
from antefix.wire import Invitation, NodeKey
from antefix_server.cli import federate
from antefix_server.errors import FlowerUnreachable
from antefix_server.flower import processes as flower_processes
from antefix_server.processes import supervisor as supervisor_module
from antefix_server.registry.retired_nodes import Retired
from antefix_server.rounds.config import RoundConfig
from tests.client.people import tiny_folder
from tests.support.records import some_bytes
from tests.support.server.gateway import enrolled, remote
from tests.support.server.processes import answers, command, free_port, listens, part, started, up, wait_for

pytestmark = pytest.mark.slow
PHONE = DeviceKeys(some_bytes("phone", 64))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("up") / "data"
    command(folder, "init", folder)
    return folder


def test_commands_work_while_it_runs_and_while_it_does_not(data: Path) -> None:
    command(data, "users", "add", "before")
    with up(data, "--no-rounds") as (url, _):
        code = json.loads(command(data, "users", "add", "during", "--json"))["invitation"]
        names = [user["name"] for user in json.loads(command(data, "users", "list", "--json"))]
        assert names[-2:] == ["before", "during"]
        token = enrolled(url, Invitation.parse(code), PHONE).token
        with remote(url, Invitation.parse(code), token) as device:
            assert device.record(bytes(16), None) == (None, None)
        assert "there is a user" in command(data, "users", "add", "BEFORE", code=1)
    assert not (data / "admin.sock").exists()
    assert len(json.loads(command(data, "users", "list", "--json"))) == len(names)


def test_what_is_killed_comes_back_and_nothing_is_left_behind(data: Path) -> None:
    with up(data, "--no-rounds") as (url, supervisor):
        gateway = part(supervisor, "gateway.process")
        gateway.kill()
        gateway.wait(10)
        wait_for(lambda: answers(url))
        again = part(supervisor, "gateway.process")
        assert again.pid != gateway.pid
        supervisor.kill()
        again.wait(20)
    command(data, "status")


def test_a_port_in_use_and_a_second_server_are_told(data: Path) -> None:
    with up(data, "--no-rounds") as (url, _):
        port = url.rsplit(":", 1)[1]
        assert "another process" in command(data, "up", "--no-rounds", "--port", free_port(), code=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        assert f"127.0.0.1:{port} cannot be used" in command(
            data, "up", "--no-rounds", "--port", port, code=1
        )


def test_a_base_that_is_none_is_told_before_anything_starts(data: Path) -> None:
    (data / "server.toml").write_text('inference = "smollm2-135"')
    try:
        said = command(data, "up", "--no-rounds", code=1)
    finally:
        (data / "server.toml").unlink()
    assert "did you mean 'smollm2-135m-q4'" in said


def test_a_command_waits_for_a_server_that_still_loads_its_base(data: Path) -> None:
    """It holds the vault by then; without waiting the command would be told that another process does."""
    folder = data / "base"
    tiny_folder(folder)
    (data / "server.toml").write_text(f'inference = "{folder}"')
    try:
        with started(data, "--no-rounds") as (url, _):
            wait_for(lambda: listens(data / "admin.sock"), 60)
            assert not answers(url)
            command(data, "users", "add", "early")
            assert answers(url)
    finally:
        (data / "server.toml").unlink()


def test_flower_is_out_of_reach_but_for_devices(data: Path) -> None:
    """Before the real SuperLink: its control routes are not there, its fleet routes ask for a token."""
    with up(data) as (url, supervisor):
        part(supervisor, "superlink")
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/control/list-nodes"):
            assert httpx.post(url + path, verify=False, content=b"").status_code == 404
        assert httpx.post(f"{url}/v1/fleet/pull-messages", verify=False, content=b"").status_code == 401
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(40)
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(data) in " ".join(one.info["cmdline"] or [])
    ]


def test_the_node_of_a_removed_user_leaves_flower(data: Path) -> None:
    def states() -> list[str]:
        listed = federate._flwr(data, "supernode", "list", flower_processes.CONNECTION, "--format", "json")
        return [one["status"] for one in json.loads(listed)["nodes"]]

    with up(data) as (url, _):
        code = Invitation.parse(json.loads(command(data, "users", "add", "gone", "--json"))["invitation"])
        headers = {"Authorization": f"Bearer {enrolled(url, code, PHONE).token}"}
        key = NodeKey.proved(ec.generate_private_key(ec.SECP384R1()), PHONE.id)
        said = key.model_dump()
        # Flower's SuperLink comes up later than the gateway.
        wait_for(lambda: httpx.put(f"{url}/v1/node", json=said, headers=headers, verify=False).is_success, 60)
        assert states() == ["registered"]
        assert Retired(data).nodes() == []
        command(data, "users", "remove", "gone")
        wait_for(lambda: Retired(data).nodes() == [], 30)
        assert states() == ["unregistered"]


@pytest.mark.alone
def test_a_run_that_nothing_takes_up_fails(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federate, "_START_S", 10.0)
    with up(data) as (_, supervisor):
        assert federate._runs(data) == []
        superexec = part(supervisor, "superexec")
        superexec.suspend()
        with pytest.raises(FlowerUnreachable, match="not begun within 10 s, so it was stopped"):
            federate._run(data, RoundConfig().model_dump(by_alias=True))
        assert [one["status"] for one in federate._runs(data)] == ["finished:stopped"]
        superexec.resume()


def test_a_log_that_grows_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_LOG_BYTES", 1000)
    shell = ["sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; sleep 0.01; done"]
    supervisor = supervisor_module.Supervisor([supervisor_module.Part("loud", shell)], tmp_path / "logs")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # not the main thread
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    time.sleep(4)
    supervisor.stop()
    thread.join(20)
    log, older = tmp_path / "logs" / "loud.log", tmp_path / "logs" / "loud.log.1"
    assert older.stat().st_size > 1000
    assert log.stat().st_size < 3000
    assert b"\0" not in log.read_bytes()


@pytest.mark.alone
def test_a_run_that_fails_says_why(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At once, in a line: nobody takes part."""
    with up(data):
        config = RoundConfig(round_timeout_s=1).model_dump(by_alias=True)
        begun = time.monotonic()
        assert federate._run(data, config) == 1
        took = time.monotonic() - begun
    shown = "".join(capfd.readouterr())
    assert "antefix-server: error: " in shown
    assert "Traceback" not in shown
    assert took < 45  # a run whose heartbeat is missed ends after a minute
