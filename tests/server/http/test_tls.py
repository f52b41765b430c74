"""The server's certificate: made, kept, made anew; and one that an operator gives."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from antefix_server.errors import ServerUnfit, VaultUnavailable
from antefix_server.http import tls


def serial(certificate: tls.Certificate) -> int:
    return x509.load_pem_x509_certificate(certificate.chain.read_bytes()).serial_number


def test_it_is_made_once_and_verifies(tmp_path: Path) -> None:
    made = tls.own(tmp_path, ["example.com", "10.1.2.3"])
    assert serial(tls.own(tmp_path, ["example.com", "10.1.2.3"])) == serial(made)
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    found = x509.load_pem_x509_certificate(made.chain.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "example.com"} <= set(names.get_values_for_type(x509.DNSName))
    assert str(made.authority) == str(tmp_path / "tls" / "authority.crt")
    ssl.create_default_context(cafile=str(made.authority)).load_verify_locations(str(made.authority))


def test_it_is_made_anew_for_other_names_and_in_its_last_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tls.own(tmp_path, ["example.com"])
    authority = (tmp_path / "tls" / "authority.crt").read_bytes()
    before = serial(first)
    other = tls.own(tmp_path, ["example.org"])
    assert serial(other) != before
    with monkeypatch.context() as soon:
        soon.setattr(tls, "_SERVER", timedelta(days=20))
        (tmp_path / "tls" / "server.crt").unlink()
        short = serial(tls.own(tmp_path, ["example.org"]))
    assert serial(tls.own(tmp_path, ["example.org"])) != short
    assert (tmp_path / "tls" / "authority.crt").read_bytes() == authority  # devices pinned it


def test_one_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    made = tls.own(tmp_path, [])
    made.chain.write_text("nothing")
    assert serial(tls.own(tmp_path, [])) > 0


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerUnfit, match="no host name"):
        tls.own(tmp_path, ["büro.example"])


def test_a_given_one_that_expired_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as past:
        past.setattr(tls, "_SERVER", timedelta(seconds=-5))
        made = tls.own(tmp_path, [])
    with pytest.raises(ServerUnfit, match=f"expired on {datetime.now(UTC):%Y}"):
        tls.read_certificate(made.chain, made.key)
    with pytest.raises(ServerUnfit, match="no certificate"):
        tls.read_certificate(made.key, made.key)
    with pytest.raises(VaultUnavailable):
        tls.read_certificate(tmp_path / "nowhere", made.key)
