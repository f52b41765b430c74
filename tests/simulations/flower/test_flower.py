"""`flwr run .`, for real: Flower's daemon, engine and actors; and the same numbers as in one process."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from antefix.errors import InvalidArgument
from antefix_simulations.cli import app
from antefix_simulations.flower.local import local_flower
from antefix_simulations.flower.messages import result_in, result_of, task_in, task_of
from antefix_simulations.flower.processes import end_family
from antefix_simulations.run.task import Result, Task
from antefix_simulations.settings import RunSettings
from tests.client.people import tiny_folder
from tests.support.server.processes import free_port

# Who starts us in the background may have SIGINT ignored, and all that is started then ignores it too.
STOPPABLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from antefix_simulations.cli import main; main()"
)
CONFIG = {"cohort-size": 3, "steps": 2, "num-server-rounds": 2, "max-texts": 12}


def test_the_run_config_is_the_settings(repository: Path) -> None:
    """Flower takes no key that its file does not have."""
    said = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["tool"]["flwr"]["app"]["config"]
    assert said.pop("out") == "runs/flower"
    assert said == RunSettings().model_dump(by_alias=True)


def test_every_key_has_a_line_in_the_docs(repository: Path) -> None:
    page = (repository / "docs" / "guides" / "simulate.md").read_text("utf-8")
    assert [key for key in RunSettings().model_dump(by_alias=True) if f"`{key}`" not in page] == []


def test_tasks_and_results_go_through_messages() -> None:
    task = Task("round", 3, [4, 5], 2, b"prefix")
    assert task_in(task_of(task, "/out", "{}")) == (task, "/out", "{}")
    result = Result(facts=[{"user": 4}], weight=2.0, records={4: b"sealed", 5: b"too"}, seconds=1.5, tokens=7)
    back = result_in(result_of(result))
    assert (back.facts, back.weight, back.records, back.sum) == (result.facts, 2.0, result.records, None)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antefix_simulations.flower.local.find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="needs Ray") as refused, local_flower():
        pass
    assert refused.value.hint == "pip install 'antefix[ray]'"


def test_more_workers_than_cores_share_them_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would start none of them: it is told of as many cores as are asked for."""
    asked: list[str] = []

    class Engine:
        def run(self, app: Path, federation: str, config: object) -> None:
            asked.append(federation)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("antefix_simulations.flower.local.local_flower", lambda: nullcontext(Engine()))
    words = ["flower", "--workers", "3", "--cpus", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "6 cores are asked for, 2 are there: workers share them" in result.stderr
    assert "num-supernodes=3 client-resources-num-cpus=2" in asked[0]
    assert "init-args-num-cpus=6" in asked[0]


@pytest.mark.slow
@pytest.mark.parametrize("obeys", [True, False])
def test_what_flower_started_ends_with_it(
    obeys: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In sessions of their own, as Flower's are: a signal to the first one's group does not reach them."""
    monkeypatch.setattr("antefix_simulations.flower.processes._WAIT_S", 5.0 if obeys else 0.5)
    deaf = "" if obeys else "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    last = (
        f"import signal, time, pathlib\n{deaf}pathlib.Path({str(tmp_path / 'up')!r}).touch()\ntime.sleep(99)"
    )
    middle = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {last!r}], start_new_session=True)"
    )
    head = subprocess.Popen([sys.executable, "-c", middle], start_new_session=True)
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    (child,) = psutil.Process(head.pid).children()
    end_family(head)
    assert head.returncode is not None
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def ended(
    words: list[str], log: Path, seconds: float, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """The exit code, and all that was said.

    Into a file: what Flower starts would hold a pipe open, and whoever reads it would wait for that too.
    """
    with log.open("wb") as file:
        running = subprocess.Popen(words, env=environment, stdout=file, stderr=file)
    try:
        return running.wait(seconds), log.read_text()
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it did not end: {log.read_text()[-5000:]}") from None
    finally:
        end_family(running)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Flower of its own: nothing is fetched or told, and the daemon is stopped at the end."""
    home, port = tmp_path / "flower", free_port()
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "local"\n[superlink.local]\naddress = ":local-in-memory:"\n'
    )
    yield {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
    }
    for one in psutil.process_iter(["cmdline"]):
        if str(port) in (one.info["cmdline"] or []):
            family = [*one.children(recursive=True), one]
            for member in family:
                with suppress(psutil.NoSuchProcess):  # its children may end before it is their turn
                    member.terminate()
            psutil.wait_procs(family, timeout=10)


@pytest.mark.slow
def test_flower_and_one_process_find_the_same(
    environment: dict[str, str], tmp_path: Path, repository: Path
) -> None:
    config = {**CONFIG, "base": str(tiny_folder(tmp_path / "base"))}
    said = " ".join(
        f"{name}={json.dumps(one)}" for name, one in (config | {"out": str(tmp_path / "a")}).items()
    )
    size = "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=2"
    words = ["flwr", "run", str(repository), "local", "--stream", "--federation-config", size, "-c", said]
    _, said_there = ended(words, tmp_path / "log", 300, environment)
    assert "everything is in" in said_there, said_there[-5000:]
    here = [word for name, one in config.items() for word in ("-c", f"{name}={json.dumps(one)}")]
    words = [sys.executable, "-m", "antefix_simulations", "run", "--out", str(tmp_path / "b"), *here]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    for name in ("metrics.jsonl", "rounds/00002/shared.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_a_run_that_fails_is_told(tmp_path: Path) -> None:
    """`flwr run` itself would end with 0."""
    words = [sys.executable, "-m", "antefix_simulations", "flower", "--out", str(tmp_path / "out")]
    code, told = ended([*words, "-c", f"base={tmp_path / 'nothing'}"], tmp_path / "log", 200)
    assert code == 1, told
    assert "antefix-sim: error: Flower's run is finished:failed" in told
    assert "antefix-sim: error: " in told.split("Flower's run is")[0]  # the reason, from the run's log
    assert "Traceback" not in told
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if "antefix-flower-" in str(one.info["cmdline"])
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_no_process(sign: signal.Signals, code: int, tmp_path: Path) -> None:
    """Flower's engine and Ray once went on to the end of the run."""
    config = {**CONFIG, "base": str(tiny_folder(tmp_path / "base")), "num-server-rounds": 500}
    words = [word for name, one in config.items() for word in ("-c", f"{name}={json.dumps(one)}")]
    out, log = tmp_path / "out", tmp_path / "log"
    with log.open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, "-c", STOPPABLE, "flower", "--out", str(out), *words],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 240
        while not (out / "rounds" / "00002").exists() and time.monotonic() < until:
            time.sleep(0.5)
        family = psutil.Process(running.pid).children(recursive=True)
        assert any("flwr-simulation" in " ".join(one.cmdline()) for one in family), log.read_text()[-2000:]
        os.killpg(running.pid, sign)
        assert running.wait(90) == code, log.read_text()[-5000:]
    finally:
        end_family(running)
    _, left = psutil.wait_procs(family, timeout=5)
    assert [one.cmdline() for one in left if one.status() != psutil.STATUS_ZOMBIE] == []
    said = log.read_text()
    assert "Traceback" not in said
    assert ("the same command goes on" in said) == (sign == signal.SIGINT)
