"""Names and URLs in a signed release that would make a device write, read or call elsewhere."""

import pytest
from pydantic import ValidationError

from antefix.wire.release import BaseReference
from tests.support.releases import BASE, a_file, a_release

PATHS = [
    "",
    ".",
    "..",
    "../x.json",
    "/etc/x.json",
    "a/b.json",
    "a\\b.json",
    "C:\\x.json",
    "C:x.json",
    "\\\\server\\x.json",
    ".hidden.json",
    "~x.json",
    "-rf.json",
    "a b.json",
    "a\0.json",
    "a.json\n",
    "a\n.json",
    "a.json ",
    "a.json.",
    "a.json::$DATA",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}x.json",
    "r\N{LATIN SMALL LETTER E WITH ACUTE}sum.json",
    "con.json",
    "NUL.txt",
    "Com1.model.json",
    "n" * 129 + ".json",
    "n" * 1_000_000 + ".json",
]
CODE = ["modeling.py", "model.bin", "model.pt", "x.pkl", "x.so", "x.exe", "model.safetensors.zip", "json"]


@pytest.mark.parametrize("name", [*PATHS, *CODE])
def test_a_file_has_a_plain_name_of_a_kind_that_is_data(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        a_file(name)
    assert len(str(caught.value)) < 500


def test_ordinary_names_pass() -> None:
    for name in ("config.json", "model-00001-of-00002.safetensors", "vocab.txt", "spiece.model", "a_b.spm"):
        assert a_file(name).name == name


def test_two_names_that_are_one_on_some_systems_are_refused() -> None:
    with pytest.raises(ValidationError, match="two files of one name"):
        a_release(files=(a_file("vocab.json"), a_file("Vocab.json")))


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1000"):
        a_release(files=tuple(a_file(f"{number}.json") for number in range(1001)))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.example/x",
        "https://",
        "https:///x",
        "https://user:password@a.example/x",
        "https://a.example/x\r\nHost: b.example",
        "https://a.example/a b",
        "javascript:alert(1)",
        "https://a.example/" + "x" * 1000,
        "//a.example/x",
    ],
)
def test_a_source_is_a_plain_url(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        a_file(sources=(url,))
    assert "password" not in str(caught.value)


def test_few_sources_for_a_file() -> None:
    with pytest.raises(ValidationError, match="at most 4"):
        a_file(sources=("https://a.example/x",) * 5)


@pytest.mark.parametrize("name", ["/etc", "../x", "~", "a b", "", "x" * 201, "C:\\x"])
def test_a_base_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError):
        BaseReference(name=name, fingerprint=BASE)
