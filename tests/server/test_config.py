"""Settings of a server: a file, the environment over it, options over both."""

from pathlib import Path

import pytest

from antefix_server.config import Configuration
from antefix_server.errors import ServerUnfit


def test_options_count_more_than_the_environment_and_that_more_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Configuration.read(tmp_path).port == 8443
    (tmp_path / "server.toml").write_text(
        'port = 1\nhost = "0.0.0.0"\nnames = ["example.com"]\nrounds = false'
    )
    found = Configuration.read(tmp_path)
    assert (found.port, found.host, found.names, found.rounds) == (1, "0.0.0.0", ["example.com"], False)
    monkeypatch.setenv("ANTEFIX_SERVER_PORT", "2")
    monkeypatch.setenv("ANTEFIX_SERVER_NAMES", '["example.org"]')
    found = Configuration.read(tmp_path, host=None)
    assert (found.port, found.host, found.names) == (2, "0.0.0.0", ["example.org"])
    assert Configuration.read(tmp_path, port=3).port == 3


def test_a_setting_that_is_nearly_one_is_found(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('inferense = "smollm2-135m-q4"')
    with pytest.raises(ServerUnfit) as refused:
        Configuration.read(tmp_path)
    assert refused.value.hint == "did you mean 'inference'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 70000", "port"),
        ("prot = 1", "no setting 'prot'.*"),
        ("inferense = 1", "no setting 'inferense'"),
        ("port = ", "no TOML"),
        ('certificate = "a.pem"', "a certificate without its key"),
        ("names = 3", "names"),
    ],
)
def test_what_cannot_be_understood_is_told(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(ServerUnfit, match=said):
        Configuration.read(tmp_path)


@pytest.mark.parametrize("said", ["localhost", "a.example,b.example", "[", ""])
def test_a_list_in_the_environment_that_is_no_json_is_told(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTEFIX_SERVER_NAMES", said)
    with pytest.raises(ServerUnfit, match="ANTEFIX_SERVER_NAMES is no list") as refused:
        Configuration.read(tmp_path)
    assert refused.value.hint == 'write ANTEFIX_SERVER_NAMES=["one", "two"]'


def test_a_setting_in_the_environment_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTEFIX_SERVER_RECORD_BYTES", "many")
    with pytest.raises(ServerUnfit, match="record_bytes"):
        Configuration.read(tmp_path)
