"""How a base's name is understood, and what the hub's answers become."""

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer

from antefix.errors import BaseNotFound, BaseUnavailable
from antefix.loading.base_folder import _VOCABULARIES
from antefix.loading.source import resolve
from tests.sdk.saved_models import save_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_base(tmp_path / "base")


# Names


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "..", "C:\\models"])
def test_a_path_that_does_not_exist_is_said_to_be_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "..":
        name = "../nowhere"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseNotFound, match=r"^folder .* does not exist"):
        resolve(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name_is_not_the_current_folder(name: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    with pytest.raises(BaseNotFound, match="needs a name"):
        resolve(name)


def test_a_file_is_not_a_base(base: Path) -> None:
    with pytest.raises(BaseNotFound, match="is a file"):
        resolve(str(base / "config.json"))


@pytest.mark.parametrize("name", ["two words", "x..y", "a\nb", "nul\0", "n" * 5000])
def test_a_name_that_cannot_be_a_hub_id_lists_what_is_known(name: str) -> None:
    with pytest.raises(BaseNotFound, match=r"cannot be a hub id.*smollm2-135m-q4"):
        resolve(name)


@pytest.mark.parametrize("name", ["smollm2-135m", "SmolLM2-135M-Q4", "smollm2-135m-q8"])
def test_a_misspelt_catalogue_name_is_put_right(name: str) -> None:
    with pytest.raises(BaseNotFound, match="did you mean 'smollm2-135m-q4'"):
        resolve(name)


# The hub, played by a function


Hub = Callable[..., str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hub], None]:
    return lambda answer: monkeypatch.setattr("huggingface_hub.snapshot_download", answer)


class Unknown(RepositoryNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self, "401 Client Error")  # the real one wants a whole response


class Gated(GatedRepoError):
    def __init__(self) -> None:
        Exception.__init__(self, "403 Client Error")


def test_a_cached_repository_needs_no_network(base: Path, hub: Callable[[Hub], None]) -> None:
    def answer(name: str, *, local_files_only: bool = False, **_: object) -> str:
        assert local_files_only
        return str(base)

    hub(answer)
    assert resolve("some/base").folder == base


def test_an_incomplete_cached_repository_is_fetched(
    tmp_path: Path, base: Path, hub: Callable[[Hub], None]
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(base / "config.json", part)
    hub(lambda name, *, local_files_only=False, **_: str(part if local_files_only else base))
    assert resolve("some/base", progress=False).folder == base


def test_only_safe_files_of_a_repository_are_asked_for(base: Path, hub: Callable[[Hub], None]) -> None:
    safe = {"config.json", "model-00001-of-00002.safetensors", "source.spm", "tokenizer.json", "vocab.txt"}
    rest = {"pytorch_model.bin", "modeling_x.py", "onnx/model.safetensors", "consolidated.safetensors"}
    asked = []

    def answer(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: object) -> str:
        wanted = {file for file in safe | rest if any(fnmatch(file, p) for p in allow_patterns)}
        asked.append({file for file in wanted if not any(fnmatch(file, p) for p in ignore_patterns)})
        return str(base)

    hub(answer)
    resolve("some/base")
    assert asked == [safe]


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (Unknown(), BaseNotFound, "hub does not know it.*smollm2-135m-q4"),
        (Gated(), BaseUnavailable, "log in"),
        (
            LocalEntryNotFoundError("Got: no route"),
            BaseUnavailable,
            "could not be asked: Got: no route; connect",
        ),
        (ConnectionResetError("reset"), BaseUnavailable, "could not be asked: reset"),
        (RuntimeError(), BaseUnavailable, "could not be asked: RuntimeError"),
    ],
)
def test_what_goes_wrong_at_the_hub_is_translated(
    failure: Exception, error: type[Exception], message: str, hub: Callable[[Hub], None]
) -> None:
    def answer(name: str, *, local_files_only: bool = False, **_: object) -> str:
        raise LocalEntryNotFoundError("not cached") if local_files_only else failure

    hub(answer)
    with pytest.raises(error, match=message):
        resolve("some/base")


def test_every_file_that_a_fingerprint_counts_is_fetched_from_the_hub(hub: Callable[[Hub], None]) -> None:
    """`vocab.bpe` was not, though releases have it: the same base had another fingerprint from the hub."""
    asked: list[str] = []

    def answer(name: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.extend(allow_patterns)
        raise LocalEntryNotFoundError("not cached")

    hub(answer)
    with pytest.raises(BaseUnavailable):
        resolve("some/base")
    names = [*_VOCABULARIES, "config.json", "model.safetensors", "tokenizer.json"]
    assert [name for name in names if not any(fnmatch(name, one) for one in asked)] == []


def test_without_a_network_an_unknown_id_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseUnavailable, match="hub could not be asked"):
        resolve("nobody/nothing")


@pytest.mark.real
def test_the_real_base_resolves_and_loads() -> None:
    found = resolve("smollm2-135m-q4")
    assert found.fingerprint == "366534f790cf2934b8716884d1eed0bdc3aa129fc2e1872172ffea4cc0b97ccd"
    model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(found.folder, local_files_only=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    tokens = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**tokens).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"
