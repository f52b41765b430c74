"""What unlocks a profile: its root key, once in each slot.

Everything in a profile is sealed under the root key, or under keys that are. So a passphrase is changed by
writing one slot anew, and a slot that is deleted opens nothing any more.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from antefix.common.validation import require_text
from antefix.crypto.aead import KEY_BYTES, SecretBytes, decrypt, encrypt
from antefix.errors import InvalidArgument, KeyRefused
from antefix.keys import Cost, UserKey, open_with_passphrase, seal_under_passphrase
from antefix_client.errors import UnlockRefused

_NOBODY = bytes(16)  # a profile's root key belongs to no server
_EPOCH = 1


@dataclass(frozen=True)
class Keyring:
    """The operating system's keyring (package `keyring`) keeps the key; nobody types anything.

    Attributes:
        service: name under which the keyring shows it.
    """

    service: str = "antefix"


Unlock: TypeAlias = "str | bytes | Keyring | Callable[[], str | bytes]"


class Slot(BaseModel):
    """The root key, sealed.

    Attributes:
        kind: what opens it.
        sealed: hex digits.
        service: of a keyring.
        entry: end of its name there; profiles of before had one entry without, which a change wrote over.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Literal["passphrase", "key", "keyring"]
    sealed: str
    service: str | None = None
    entry: str | None = Field(default=None, pattern=r"^[0-9a-f]{16}$")


def new_slot(root: SecretBytes, profile: bytes, unlock: Unlock, cost: Cost | None = None) -> Slot:
    """A slot that `unlock` opens.

    Args:
        root: the root key, 32 bytes.
        profile: id of the profile, 16 bytes.
        unlock: a passphrase, a key of 32 bytes, a `Keyring`, or a function that gives one of the first two.
        cost: of guessing a passphrase.

    Raises:
        InvalidArgument: nothing that could unlock.
    """
    given = resolve(unlock)
    if isinstance(given, Keyring):
        key, entry = os.urandom(KEY_BYTES), secrets.token_hex(8)
        _keyring().set_password(given.service, _name(profile, entry), base64.b64encode(key).decode())
        under = _sealed(root, profile, key).hex()
        return Slot(kind="keyring", sealed=under, service=given.service, entry=entry)
    if isinstance(given, bytes):
        return Slot(kind="key", sealed=_sealed(root, profile, given).hex())
    held = UserKey(SecretBytes(bytearray(root.data)), _EPOCH)
    sealed = seal_under_passphrase(held, given, tenant=_NOBODY, user=profile, cost=cost)
    held.wipe()
    return Slot(kind="passphrase", sealed=sealed.hex())


def open_root_key(slots: list[Slot], profile: bytes, unlock: Unlock) -> SecretBytes:
    """The root key, from the first slot that opens.

    Raises:
        UnlockRefused: none does.
        InvalidArgument: nothing that could unlock.
    """
    resolved = resolve(unlock)
    for slot in slots:
        root = _opened(slot, profile, resolved)
        if root is not None:
            return root
    raise UnlockRefused()


def revoke(slot: Slot, profile: bytes) -> None:
    """Delete what a slot keeps elsewhere: its entry in the keyring."""
    if slot.kind == "keyring" and slot.service is not None:
        keyring, name = _keyring(), _name(profile, slot.entry)
        if keyring.get_password(slot.service, name) is not None:
            keyring.delete_password(slot.service, name)


def resolve(unlock: Unlock) -> str | bytes | Keyring:
    """What a function gives, who may ask a person; and whether it could unlock anything.

    Raises:
        InvalidArgument: it could not.
    """
    resolved = unlock() if callable(unlock) else unlock
    if isinstance(resolved, bytes | bytearray):
        if len(resolved) != KEY_BYTES:
            raise InvalidArgument(
                f"the key has {len(resolved)} bytes, expected {KEY_BYTES}",
                "use os.urandom(32), or a passphrase",
            )
        return bytes(resolved)
    if isinstance(resolved, str):
        require_text(resolved, "the passphrase")
        if not resolved:
            raise InvalidArgument("the passphrase is empty", "choose one of several words")
        return resolved
    if not isinstance(resolved, Keyring):
        raise InvalidArgument(
            f"unlock is of type {type(resolved).__name__}",
            "give a passphrase, 32 bytes, Keyring(), or a function that returns one of the first two",
        )
    return resolved


def _opened(slot: Slot, profile: bytes, resolved: str | bytes | Keyring) -> SecretBytes | None:
    try:
        sealed = bytes.fromhex(slot.sealed)
    except ValueError:
        return None
    if slot.kind == "passphrase" and isinstance(resolved, str):
        try:
            return open_with_passphrase(sealed, resolved, tenant=_NOBODY, user=profile, epoch=_EPOCH).secret
        except KeyRefused:
            return None
    if slot.kind == "key" and isinstance(resolved, bytes):
        return _unsealed(sealed, profile, resolved)
    if slot.kind == "keyring" and isinstance(resolved, Keyring):
        stored = _keyring().get_password(resolved.service, _name(profile, slot.entry))
        try:
            return None if stored is None else _unsealed(sealed, profile, base64.b64decode(stored))
        except binascii.Error:
            return None
    return None


def _name(profile: bytes, entry: str | None) -> str:
    """Under which the keyring has a slot's key: each has its own, so that a new one replaces none in use."""
    return profile.hex() if entry is None else f"{profile.hex()}-{entry}"


def _sealed(root: SecretBytes, profile: bytes, key: bytes) -> bytes:
    return encrypt(key, _context(profile), root.data)


def _unsealed(sealed: bytes, profile: bytes, key: bytes) -> SecretBytes | None:
    root = decrypt(key, _context(profile), sealed) if len(key) == KEY_BYTES else None
    if root is not None and len(root.data) != KEY_BYTES:  # another size would allow guessing it by parts
        root.wipe()
        return None
    return root


def _context(profile: bytes) -> bytes:
    return b"antefix/v1/profile root\0" + profile


def _keyring() -> Any:
    try:
        import keyring
        from keyring.backends import fail
    except ImportError:
        raise InvalidArgument(
            "the package keyring is not installed", "pip install 'antefix[keyring]', or use a passphrase"
        ) from None
    if isinstance(keyring.get_keyring(), fail.Keyring):
        raise InvalidArgument("this machine has no keyring that can be used", "use a passphrase")
    return keyring
