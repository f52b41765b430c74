"""Packages with a line changed, and tests that are to notice: each run is a fork of one process.

What all of them load, PyTorch above all, takes longer than most of the tests; that process has it already,
and nothing of ours. `python -m tests.support.mutation` is that process: a request a line, an answer a line.
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


class Noticing:
    """The process to fork."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def noticed(self, package: Path, *words: str) -> bool:
        """Whether pytest's tests fail with the package in this folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"package": str(package), "words": words}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        print(answer["said"])  # shown where a test of ours fails
        assert answer["code"] in (0, 1)
        return bool(answer["code"] == 1)


@contextmanager
def noticing(repository: Path) -> Iterator[Noticing]:
    """One, while the block runs."""
    command = [sys.executable, "-m", "tests.support.mutation"]
    with subprocess.Popen(
        command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Noticing(process)
        assert process.stdin is not None
        process.stdin.close()


def serve() -> None:
    """Answer until nobody asks any more."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    load()
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not [name for name in loaded if name.startswith("antefix")], "a fork must load its own"
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                run(Path(asked["package"]), asked["words"], said.fileno())
            code = ended(child)
            said.seek(0)
            answer = {"code": code, "said": said.read().decode(errors="replace")}
        print(json.dumps(answer), flush=True)


def load() -> None:
    """What the tests need and nobody changes."""
    for name in LIBRARIES:
        importlib.import_module(name)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)  # a fork cannot use the threads of its parent
    transformers = sys.modules["transformers"]
    for name in ("Bart", "Gemma", "GPT2LMHead", "Llama", "Mistral", "OPT", "Qwen2", "T5"):
        kind = "Model" if name.endswith("Head") else "PreTrainedModel"
        getattr(transformers, f"{name}{kind}")


def run(package: Path, words: list[str], said: int) -> None:
    """In a fork; it never returns."""
    code = 3
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
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


def ended(child: int) -> int:
    """How; one that takes too long is killed."""
    until = time.monotonic() + LIMIT_S
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return -9
        time.sleep(0.02)


if __name__ == "__main__":
    serve()
