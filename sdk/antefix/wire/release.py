"""Releases: what a server has its devices use, signed, so that no mirror or proxy can change any of it.

A `Release` names the bytes of a shared base. An `Announcement` says which release is the current one. Both
are JSON in one canonical form, signed with the key by whose digest an invitation names the server
(`docs/reference/record-format.md`). A device remembers a `ReleaseState` of them, and decides by it what it
takes.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, ClassVar, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from antefix.errors import ReleaseRefused

MAX_BYTES = 2**20
"""Of the body of a release or an announcement."""
_MOST_FILES = 1000
ENDINGS = ("json", "safetensors", "txt", "model", "spm", "jinja", "bpe")
"""Of the files of a base: neither code nor pickles."""
_KNOWN = 1000
_LARGEST = 2**53 - 1  # every JSON reader can hold it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PRINTABLE = r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$"  # else a note could write to a terminal what it likes
_Model = TypeVar("_Model", bound=BaseModel)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}

Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=1, le=_LARGEST)]
Size = Annotated[int, Field(ge=0, le=_LARGEST)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# No user and password in it, no blank and no control character.
Url = Annotated[str, Field(max_length=1000, pattern=r"^https?://[!-.0-?A-~]+(/[!-~]*)?$")]


class StrictModel(BaseModel):
    """Unknown fields are refused, nothing is converted, and nothing that was sent is repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class BaseReference(StrictModel):
    """A base.

    Attributes:
        name: for people, and in the catalogue where the release has no files.
        fingerprint: what counts.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$")]
    fingerprint: Digest


class BaseFile(StrictModel):
    """A file of a base.

    Attributes:
        name: in the base's folder. Never a path, and of a kind that is data on every system.
        size: bytes.
        sources: URLs beside the server itself; what they give is believed by its digest alone.
    """

    name: str
    size: Size
    sha256: Digest
    sources: Annotated[tuple[Url, ...], Field(max_length=4)] = ()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        """A device writes a file of that name."""
        if _NAME.fullmatch(name) is None or not name.endswith(tuple(f".{ending}" for ending in ENDINGS)):
            raise ValueError("not the plain name of a base's file")
        if name.split(".")[0].lower() in _DEVICES:
            raise ValueError("the name of a device on some systems")
        return name


class SharedPrefix(StrictModel):
    """A shared prefix: digest and bytes of its file, digest of its layout."""

    sha256: Digest
    size: Size
    layout: Digest


class Privacy(StrictModel):
    """What the rounds behind a shared prefix guarantee to who took part.

    Attributes:
        epsilon, delta: differential privacy of one user.
        rounds: so many.
        noise: multiplier of the clip.
        clip: largest norm of one user's update.
        users: in a round, on average at least.
    """

    epsilon: Amount
    delta: Amount
    rounds: Number
    noise: Amount
    clip: Amount
    users: Number


class Signed(StrictModel):
    """A release or an announcement as it travels; worth nothing before `verified`.

    Attributes:
        body: canonical JSON.
        signature: Ed25519, in hex, over a label and the body.
    """

    body: Annotated[str, Field(max_length=MAX_BYTES)]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read one from anyone; nothing is verified.

        Raises:
            ReleaseRefused: too large, or not in the format.
        """
        return parse_model(cls, content, 2 * MAX_BYTES)

    def to_bytes(self) -> bytes:
        """JSON."""
        return self.model_dump_json().encode()


class Statement(StrictModel):
    """What a server signs."""

    label: ClassVar[bytes]

    def to_bytes(self) -> bytes:
        """Canonical JSON: every field, sorted keys, no blanks, ASCII."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def signed(self, key: Ed25519PrivateKey) -> Signed:
        """With a server's signature.

        Raises:
            ReleaseRefused: more bytes than any device reads.
        """
        body = self.to_bytes()
        if len(body) > MAX_BYTES:
            raise ReleaseRefused(f"it has {len(body):,} bytes, {MAX_BYTES:,} are allowed")
        return Signed(body=body.decode(), signature=key.sign(self.label + body).hex())

    @classmethod
    def verified(cls, signed: Signed, key: bytes) -> Self:
        """What a server signed.

        Args:
            signed: from anyone.
            key: the server's release key, 32 bytes, known from an invitation.

        Raises:
            ReleaseRefused: another key, another kind of statement, or not in the one form of its content.
        """
        try:
            body = signed.body.encode()
            Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signed.signature), cls.label + body)
        except (InvalidSignature, UnicodeEncodeError):
            raise ReleaseRefused("it is not signed by this server") from None
        statement = parse_model(cls, body, MAX_BYTES)
        if statement.to_bytes() != body:  # two readers must not see two releases in one
            raise ReleaseRefused("it is not in canonical form")
        return statement


class Release(Statement):
    """A shared base that devices can be told to use.

    Attributes:
        tenant: id of the server's vault.
        version: grows with every release, is never used twice.
        created: seconds since 1970.
        base: what every prefix of this server is for.
        files: of the base; none where the catalogue has it.
        shared: the start of every private prefix, or None.
        previous: digest of the release before, or None.
        privacy: of the rounds behind `shared`, or None.
        note: from the operator.
    """

    label: ClassVar[bytes] = b"antefix/v1/release\0"

    tenant: Id
    version: Number
    created: Size
    base: BaseReference
    files: Annotated[tuple[BaseFile, ...], Field(max_length=_MOST_FILES)] = ()
    shared: SharedPrefix | None = None
    previous: Digest | None = None
    privacy: Privacy | None = None
    note: Annotated[str, Field(max_length=2000, pattern=_PRINTABLE)] = ""

    @field_validator("files")
    @classmethod
    def _different_names(cls, files: tuple[BaseFile, ...]) -> tuple[BaseFile, ...]:
        """On some systems `A` and `a` are one file."""
        if len({file.name.lower() for file in files}) != len(files):
            raise ValueError("two files of one name")
        return files

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of everything that belongs to it, by SHA-256."""
        sizes = {file.sha256: file.size for file in self.files}
        return sizes | ({} if self.shared is None else {self.shared.sha256: self.shared.size})


class CurrentRelease(StrictModel):
    """The release to use: version and digest."""

    version: Number
    digest: Digest


class Announcement(Statement):
    """What to use from now on.

    Attributes:
        tenant: id of the server's vault.
        serial: grows with every announcement.
        issued: seconds since 1970.
        current: or None, where there is nothing to use.
        withdrawn: versions that must not be used any more, ascending.
    """

    label: ClassVar[bytes] = b"antefix/v1/announcement\0"

    tenant: Id
    serial: Number
    issued: Size
    current: CurrentRelease | None = None
    withdrawn: Annotated[tuple[Number, ...], Field(max_length=100_000)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.withdrawn) != sorted(set(self.withdrawn)):
            raise ValueError("withdrawn versions are not in order")
        if self.current is not None and self.current.version in self.withdrawn:
            raise ValueError("the current version is withdrawn")
        return self


class ReleaseOffer(StrictModel):
    """What a server answers who asks for its release: an announcement, and the release that it names."""

    announcement: Signed
    release: Signed | None = None

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read one from anyone; nothing is verified.

        Raises:
            ReleaseRefused: too large, or not in the format.
        """
        return parse_model(cls, content, 4 * MAX_BYTES)


class ReleaseState(StrictModel):
    """What a device knows of a server's releases; keep it, for without it an old one cannot be told.

    Attributes:
        tenant: id of the server's vault.
        base: fingerprint that the device's prefixes are for; None takes any.
        serial: the highest one seen; 0 for none.
        announcement: digest of that one, or None.
        versions: the newest known versions, ascending, each with its release's digest.
        withdrawn: versions that must not be used.
    """

    tenant: Id
    base: Digest | None = None
    serial: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    announcement: Digest | None = None
    versions: tuple[tuple[Number, Digest], ...] = ()
    withdrawn: tuple[Number, ...] = ()

    def require_usable(self, release: Release) -> None:
        """Refuse a verified release that this device must not use.

        Raises:
            ReleaseRefused: of another server or base, withdrawn, or not what its version was before.
        """
        if release.tenant != self.tenant:
            raise ReleaseRefused(f"it is of server {release.tenant}, expected {self.tenant}")
        if release.version in self.withdrawn:
            raise ReleaseRefused(f"version {release.version} is withdrawn")
        known = dict(self.versions).get(release.version)
        if known not in (None, release.digest):
            raise ReleaseRefused(
                f"version {release.version} has digest {release.digest[:16]}…, it had {str(known)[:16]}…"
            )
        if self.base not in (None, release.base.fingerprint):
            raise ReleaseRefused(
                f"its base is {release.base.fingerprint[:16]}…, "
                f"the prefixes of this device are for {str(self.base)[:16]}…"
            )

    def with_release(self, release: Release) -> Self:
        """What is known after a release that is taken."""
        known = dict(self.versions) | {release.version: release.digest}
        return self.model_copy(update={"versions": tuple(sorted(known.items())[-_KNOWN:])})

    def accepting(self, offer: ReleaseOffer, key: bytes) -> tuple[Self, Release | None]:
        """Decide about what a server, or who poses as it, offers.

        Args:
            offer: from anyone.
            key: the server's release key, 32 bytes, known from an invitation.

        Returns:
            What is known from now on, and the release to use: None where the server has none.

        Raises:
            ReleaseRefused: forged, older than what is known, or not to be used (`require_usable`).
        """
        announcement = Announcement.verified(offer.announcement, key)
        self._require_newest(announcement)
        after = self.model_copy(
            update={
                "serial": announcement.serial,
                "announcement": announcement.digest,
                "withdrawn": announcement.withdrawn,
            }
        )
        if (announcement.current is None) != (offer.release is None):
            raise ReleaseRefused("it is not the one that is announced")
        if announcement.current is None or offer.release is None:
            return after, None
        release = Release.verified(offer.release, key)
        if CurrentRelease(version=release.version, digest=release.digest) != announcement.current:
            raise ReleaseRefused(
                f"it is version {release.version}, announced is {announcement.current.version}"
                f" with digest {announcement.current.digest[:16]}…"
            )
        after.require_usable(release)
        return after.with_release(release), release

    def _require_newest(self, announcement: Announcement) -> None:
        if announcement.tenant != self.tenant:
            raise ReleaseRefused(f"it is of server {announcement.tenant}, expected {self.tenant}")
        if announcement.serial < self.serial:
            raise ReleaseRefused(
                f"its announcement is number {announcement.serial}, this device has seen {self.serial}"
            )
        if announcement.serial == self.serial and announcement.digest != self.announcement:
            raise ReleaseRefused(f"there are two announcements of number {self.serial}")


def parse_model(kind: type[_Model], content: bytes, max_bytes: int) -> _Model:
    """A model from JSON that anyone may have written.

    Raises:
        ReleaseRefused: too large, or not in the format; says where, not what.
    """
    if len(content) > max_bytes:
        raise ReleaseRefused(f"it has {len(content):,} bytes, {max_bytes:,} are allowed")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ReleaseRefused(f"{where}: {first['type']}") from None
