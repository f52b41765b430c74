"""Run tests against a package with a changed line, to see whether a test fails.

Each run is a fork of one process. Loading PyTorch takes longer than most of the tests; the process has loaded
the libraries, and no module of Antefix. `python -m tests.support.mutation` is that process: it reads a
request a line, and writes an answer a line.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 600
LIBRARIES = (
    "alembic.command",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "httpx",
    "hypothesis.strategies",
    "psycopg",
    "pydantic",
    "pytest",
    "safetensors.torch",
    "sqlalchemy",
    "torch",
    "transformers",
    "typer.testing",
)


class MutationRunner:
    """The process that forks for each run."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def detects(self, package: Path, *words: str) -> bool:
        """Run pytest with the package in this folder, and say whether a test fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"package": str(package), "words": words}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        print(answer["output"])  # shown where a test of ours fails
        assert answer["code"] in (0, 1)
        return bool(answer["code"] == 1)


@contextmanager
def mutation_runner(repository: Path) -> Iterator[MutationRunner]:
    """Start the process; it ends with the block."""
    command = [sys.executable, "-m", "tests.support.mutation"]
    with subprocess.Popen(
        command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield MutationRunner(process)
        assert process.stdin is not None
        process.stdin.close()


def serve() -> None:
    """Answer requests until the input ends."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    load()
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not [name for name in loaded if name.startswith("antefix")], "a fork must load its own"
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                run(Path(request["package"]), request["words"], output.fileno())
            code = wait_for_exit(child)
            output.seek(0)
            answer = {"code": code, "output": output.read().decode(errors="replace")}
        print(json.dumps(answer), flush=True)


def load() -> None:
    """Import the libraries that the tests need."""
    for name in LIBRARIES:
        importlib.import_module(name)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)  # a fork cannot use the threads of its parent
    transformers = sys.modules["transformers"]
    for name in ("Bart", "Gemma", "GPT2LMHead", "Llama", "Mistral", "OPT", "Qwen2", "T5"):
        kind = "Model" if name.endswith("Head") else "PreTrainedModel"
        getattr(transformers, f"{name}{kind}")


def run(package: Path, words: list[str], output: int) -> None:
    """Run pytest in a fork, and leave with its exit code."""
    code = 3
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["PYTHONPATH"] = str(package)  # for programs that the tests start
        sys.path.insert(0, str(package))
        import pytest

        loaded = "ignore::pytest.PytestAssertRewriteWarning"  # anyio and others whose asserts are not ours
        code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", loaded, *words]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for_exit(child: int) -> int:
    """Wait for a fork, and return its exit code; kill a fork that takes too long."""
    until = time.monotonic() + LIMIT_S
    while True:
        ended_child, status = os.waitpid(child, os.WNOHANG)
        if ended_child:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return -9
        time.sleep(0.02)


if __name__ == "__main__":
    serve()
