"""Releases: what a server has its devices use, signed, so that no mirror or proxy can change any of it.

A `Release` names the bytes of a shared base. An `Announcement` (`wire/announcement.py`) says which release
is the current one. Both are signed with the key by whose digest an invitation names the server
(`docs/reference/record-format.md`).
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from antefix.wire.signed import Digest, Id, Number, Size, Statement, StrictModel

_MAX_FILES = 1000
ENDINGS = ("json", "safetensors", "txt", "model", "spm", "jinja", "bpe")
"""Of the files of a base: neither code nor pickles."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PRINTABLE = r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$"  # else a note could write to a terminal what it likes
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# No user and password in it, no blank and no control character.
Url = Annotated[str, Field(max_length=1000, pattern=r"^https?://[!-.0-?A-~]+(/[!-~]*)?$")]


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
    files: Annotated[tuple[BaseFile, ...], Field(max_length=_MAX_FILES)] = ()
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
