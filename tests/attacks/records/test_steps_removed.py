"""Each check of a record is taken out in turn: some test must notice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mutation

TESTS = [
    "tests/sdk/records/test_vectors.py",
    "tests/sdk/records/test_records.py",
    "tests/attacks/records/test_grant_forged.py",
    "tests/attacks/records/test_record_forged.py",  # the longest last: the first failure ends a run
]
WORDS = ["-k", "not many and not large and not 300", *TESTS]  # what takes minutes, and notices no more
STEPS = {
    "1, too short or too long": ("if not BODY_OFFSET <= len(record) <= RECORD_LIMIT:", "if False:"),
    "2, magic and suite": ("if (parts.core.magic, parts.core.suite) != (MAGIC, SUITE):", "if False:"),
    "3, body length": ("if whole and parts.core.body_bytes != len(parts.body):", "if False:"),
    **{
        f"4, {name}": (
            '("tenant", "user", "prefix", "base", "shape")',
            str(tuple(n for n in ("tenant", "user", "prefix", "base", "shape") if n != name)),
        )
        for name in ("tenant", "user", "prefix", "base", "shape")
    },
    "5, version": ("if core.version < known.min_version:", "if False:"),
    "6, digest": (
        "if known.digest is not None and core.version == known.min_version and parts.digest != known.digest:",
        "if False:",
    ),
    "6, previous": ("if known.previous is not None and core.previous != known.previous:", "if False:"),
    "7, epoch": ("if parts.wrap.epoch != epoch:", "if False:"),
    "7, writer": ("if parts.wrap.writer not in writers:", "if False:"),
    "8, signature": ("writer.verify(parts.signature, signed(parts.header, parts.body_hash))", "pass"),
    "9, data key": ("if data_key is None:", "if False:"),
    "10, body": ("if content is None:", "if False:"),
    "11, length": ("if not 0 <= rest < BUCKET or any(", "if any("),
    "11, padding": (" or any(content.data[4 + size :])", ""),
    "12, base": ("if bytes.fromhex(stored.base_fingerprint) != address.base:", "if False:"),
    "12, shape": (
        "if shape_of(stored.layout.digest, prefix.length, stored.dtype) != address.shape:",
        "if False:",
    ),
    **{
        f"grant 2, {name}": (f'("{name}", grant.{name}, {ours}),', "")
        for name, ours in (
            ("tenant", "tenant.hex()"),
            ("user", "user.hex()"),
            ("base", "base.hex()"),
            ("epoch", "epoch.id.hex()"),
        )
    },
    "grant 1, the device": ("if grant.device != device.id.hex():", "if False:"),
    "grant 3, since": ("if not grant.since <= now + _CLOCK_SKEW_S or", "if"),
    "grant 3, until": (" or now >= min(grant.until, epoch.until):", ":"),
    "grant 4, version": ("if parts.core.version != grant.version:", "if False:"),
    "grant 5, signature": ("verify(parts, {bytes.fromhex(grant.writer): key})", "pass"),
    "grant 6, the terms": ("cls.label + json.dumps(terms, ", "cls.label + json.dumps({}, "),
    "the context binds the version": ("self.version, at.base", "0, at.base"),
    "the context names its purpose": ("label + b", "b"),
}


def copied(repository: Path, folder: Path, old: str, new: str) -> None:
    """Copy the package with one line changed."""
    shutil.copytree(repository / "sdk", folder / "sdk")
    changed = 0
    for name in ("verification.py", "record.py", "header.py", "grant.py"):
        path = folder / "sdk" / "antefix" / "records" / name
        text = path.read_text()
        if old in text and not changed:
            path.write_text(text.replace(old, new, 1))
            changed += 1
    assert changed == 1, f"no such line any more: {old}"


@pytest.fixture(scope="module")
def runner(repository: Path) -> Iterator[mutation.MutationRunner]:
    with mutation.mutation_runner(repository) as runner:
        yield runner


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_taken_out_is_missed(
    step: str, repository: Path, tmp_path: Path, runner: mutation.MutationRunner
) -> None:
    copied(repository, tmp_path, *STEPS[step])
    assert runner.detects(tmp_path / "sdk", *WORDS)


@pytest.mark.slow
def test_nothing_is_missed_where_nothing_is_taken_out(
    repository: Path, tmp_path: Path, runner: mutation.MutationRunner
) -> None:
    copied(repository, tmp_path, "SUITE):  # 2", "SUITE):  # 2 as it was")
    assert not runner.detects(tmp_path / "sdk", *WORDS)
