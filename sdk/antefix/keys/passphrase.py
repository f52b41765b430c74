"""The user key under a passphrase: off by default, for who has no keyring.

A passphrase can be guessed by who has the slot; Argon2id (RFC 9106) makes each guess cost memory and time.
The parameters stand in the slot, so a hostile one could ask for none (a downgrade) or for all memory there
is: both are refused before anything is computed.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from dataclasses import astuple, dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from antefix.crypto.aead import KEY_BYTES, SecretBytes, decrypt, encrypt, sealed_size
from antefix.errors import InvalidArgument, KeyRefused
from antefix.keys.device_keys import UserKey, owner_ids

_SALT = 16
_SLOT = struct.Struct(f">III{_SALT}s{sealed_size(KEY_BYTES)}s")


@dataclass(frozen=True)
class Cost:
    """What one guess costs.

    Attributes:
        memory_kib: KiB.
        iterations: passes over it.
        lanes: threads.
    """

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4  # RFC 9106, second recommendation

    @property
    def allowed(self) -> bool:
        """Not below OWASP's floor, and not so much that it would stop the device."""
        return (
            19 * 1024 <= self.memory_kib <= 1024 * 1024
            and 2 <= self.iterations <= 10
            and 1 <= self.lanes <= 16
        )


def seal_under_passphrase(
    key: UserKey, passphrase: str, *, tenant: bytes, user: bytes, cost: Cost | None = None
) -> bytes:
    """A slot that opens under `passphrase` alone, for this tenant, user and epoch.

    Raises:
        InvalidArgument: an empty passphrase, or a cost outside what `open_with_passphrase` takes.
    """
    cost = cost or Cost()
    if not passphrase:
        raise InvalidArgument("the passphrase is empty")
    if not cost.allowed:
        raise InvalidArgument(f"{cost} is not allowed", "19 MiB to 1 GiB, 2 to 10 iterations, 1 to 16 lanes")
    salt = os.urandom(_SALT)
    context = _context(cost, salt, tenant, user, key.epoch)
    with _derived(passphrase, cost, salt, context) as derived:
        return _SLOT.pack(*astuple(cost), salt, encrypt(derived.data, context, key.secret.data))


def open_with_passphrase(slot: bytes, passphrase: str, *, tenant: bytes, user: bytes, epoch: int) -> UserKey:
    """The user key.

    Raises:
        KeyRefused: wrong passphrase, user, tenant or epoch; damaged; or parameters that are not allowed.
    """
    if len(slot) != _SLOT.size:
        raise KeyRefused()
    memory, iterations, lanes, salt, sealed = _SLOT.unpack(slot)
    cost = Cost(memory, iterations, lanes)
    if not cost.allowed:
        raise KeyRefused()
    context = _context(cost, salt, tenant, user, epoch)
    with _derived(passphrase, cost, salt, context) as derived:
        secret = decrypt(derived.data, context, sealed)
    if secret is None or len(secret.data) != KEY_BYTES:
        raise KeyRefused()
    return UserKey(secret, epoch)


def _context(cost: Cost, salt: bytes, tenant: bytes, user: bytes, epoch: int) -> bytes:
    numbers = struct.pack(">IIII", *astuple(cost), epoch)
    return b"antefix/v1/passphrase\0" + numbers + salt + owner_ids(tenant, user)


def _derived(passphrase: str, cost: Cost, salt: bytes, context: bytes) -> SecretBytes:
    """The key that a passphrase gives; the same letters typed on another system give the same."""
    try:
        typed = unicodedata.normalize("NFKC", passphrase).encode()
    except UnicodeEncodeError:  # it holds the whole passphrase
        raise InvalidArgument("the passphrase has half a character in it", "type it again") from None
    kdf = Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
        ad=context,
    )
    return SecretBytes.take(kdf.derive(typed))
