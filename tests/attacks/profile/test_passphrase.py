"""A slot under a passphrase: no downgrade, no memory bomb, no other user's slot."""

import resource
import struct

import pytest

from antefix.errors import InvalidArgument, KeyRefused
from antefix.keys import Cost, UserKey, open_with_passphrase, seal_under_passphrase
from tests.support.records import some_bytes

TENANT, USER = some_bytes("tenant", 16), some_bytes("user", 16)
CHEAP = Cost(19 * 1024, 2, 1)
KEY = UserKey.generate()
SLOT = seal_under_passphrase(KEY, "correct horse", tenant=TENANT, user=USER, cost=CHEAP)


def opened(slot: bytes, passphrase: str = "correct horse", user: bytes = USER, epoch: int = 1) -> UserKey:
    return open_with_passphrase(slot, passphrase, tenant=TENANT, user=user, epoch=epoch)


def test_the_right_passphrase_opens() -> None:
    assert opened(SLOT).secret.data == KEY.secret.data
    assert opened(SLOT).epoch == 1


def test_letters_typed_another_way_are_the_same() -> None:
    slot = seal_under_passphrase(KEY, "caf\u00e9", tenant=TENANT, user=USER, cost=CHEAP)
    assert opened(slot, "cafe\u0301").secret.data == KEY.secret.data


@pytest.mark.parametrize(
    ("passphrase", "user", "epoch"),
    [("correct horsf", USER, 1), ("", USER, 1), ("correct horse", TENANT, 1), ("correct horse", USER, 2)],
)
def test_another_passphrase_user_or_epoch_is_refused(passphrase: str, user: bytes, epoch: int) -> None:
    with pytest.raises(KeyRefused):
        opened(SLOT, passphrase, user, epoch)


@pytest.mark.parametrize("at", [12, 30, 60, 100, 131])
def test_damage_is_refused(at: int) -> None:
    changed = bytearray(SLOT)
    changed[at] ^= 4
    with pytest.raises(KeyRefused):
        opened(bytes(changed))
    with pytest.raises(KeyRefused):
        opened(SLOT[:at])


@pytest.mark.parametrize(
    ("memory", "iterations", "lanes"),
    [
        (8, 1, 1),
        (19 * 1024 - 1, 2, 1),
        (19 * 1024, 1, 1),
        (4 * 1024 * 1024, 2, 1),
        (2**32 - 1, 2, 1),
        (19 * 1024, 2**32 - 1, 1),
        (19 * 1024, 2, 2**32 - 1),
        (0, 0, 0),
    ],
)
def test_hostile_parameters_are_refused_before_anything_is_computed(
    memory: int, iterations: int, lanes: int
) -> None:
    hostile = struct.pack(">III", memory, iterations, lanes) + SLOT[12:]
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(KeyRefused):
        opened(hostile)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 0.01
    assert after.ru_minflt - before.ru_minflt < 1000
    cost = Cost(memory, iterations, lanes)
    with pytest.raises(InvalidArgument, match="not allowed"):
        seal_under_passphrase(KEY, "x", tenant=TENANT, user=USER, cost=cost)


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="empty"):
        seal_under_passphrase(KEY, "", tenant=TENANT, user=USER)
