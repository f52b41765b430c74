"""The server's certificate, signed by an authority of its own, which devices learn from signed `ServerKeys`.

DATA/tls/authority.crt  authority.key   for ten years
DATA/tls/server.crt  server.key         for a year; made anew in its last month, or for other names
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from antefix.common.files import atomic_write
from antefix_server.errors import ServerUnfit
from antefix_server.storage.os_errors import files

FOLDER = "tls"
_AUTHORITY, _SERVER = timedelta(days=3650), timedelta(days=365)
_SOON, _SKEW = timedelta(days=30), timedelta(days=1)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """Where a certificate and its key lie.

    Attributes:
        chain, key: PEM files.
        authority: who signed it, PEM file; None where every machine knows that.
    """

    chain: Path
    key: Path
    authority: Path | None


def own(data: Path, names: Iterable[str]) -> Certificate:
    """The one that the server makes itself, good for these names and for loopback.

    Raises:
        ServerUnfit: a name that is none.
        VaultUnavailable, VaultFull.
    """
    folder = data / FOLDER
    result = Certificate(folder / "server.crt", folder / "server.key", folder / "authority.crt")
    wanted = [_name(name) for name in dict.fromkeys((*_LOOPBACK, *names))]
    with files(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        authority_key = folder / "authority.key"
        if not authority_key.is_file() or not (folder / "authority.crt").is_file():
            _make_authority(folder / "authority.crt", authority_key)
        if not _is_good(result.chain, wanted):
            _make_server(result, authority_key, wanted)
    return result


def read_certificate(chain: Path, key: Path) -> Certificate:
    """One that every machine knows.

    Raises:
        ServerUnfit: it is no certificate, or expired.
    """
    with files(chain):
        content = chain.read_bytes()
    try:
        until = x509.load_pem_x509_certificate(content).not_valid_after_utc
    except ValueError:
        raise ServerUnfit(f"{chain} is no certificate", "give a PEM file, the server's own first") from None
    if until < datetime.now(UTC):
        raise ServerUnfit(
            f"the certificate {chain} expired on {until:%Y-%m-%d}", "renew it, then start again"
        )
    return Certificate(chain, key, None)


def names_of(certificate: Certificate) -> list[str]:
    """For which hosts it is good."""
    leaf = x509.load_pem_x509_certificate(certificate.chain.read_bytes())
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    hosts = alternatives.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, alternatives.get_values_for_type(x509.IPAddress))]


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise ServerUnfit(f"{name!r:.80} is no host name for a certificate", "mend `names`") from None


def _is_good(chain: Path, names: list[x509.GeneralName]) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(chain.read_bytes())
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    return set(alternatives) == set(names) and leaf.not_valid_after_utc > datetime.now(UTC) + _SOON


def _make_authority(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"antefix {os.urandom(4).hex()}")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _builder(name, name, key.public_key(), _AUTHORITY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.add_extension(usage, critical=True).sign(key, SHA256())
    atomic_write(key_path, _pem(key))
    atomic_write(path, certificate.public_bytes(Encoding.PEM))


def _make_server(certificate: Certificate, authority_key: Path, names: list[x509.GeneralName]) -> None:
    signing = load_pem_private_key(authority_key.read_bytes(), None)
    authority = x509.load_pem_x509_certificate((authority_key.parent / "authority.crt").read_bytes())
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise ServerUnfit(
            f"{authority_key} is not the key that was made", "put it back, or delete the folder"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "antefix-server")])
    builder = _builder(name, authority.subject, key.public_key(), _SERVER)
    for extension, critical in (
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    atomic_write(certificate.key, _pem(key))
    atomic_write(certificate.chain, builder.sign(signing, SHA256()).public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    # A device's clock may be behind.
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + life)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
