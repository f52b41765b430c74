"""Every flipped bit, every cut, every move to another place: nothing opens, and only two kinds of error."""

from collections import Counter
from collections.abc import Callable

import pytest

from antefix.crypto.aead import encrypt, sealed_size
from antefix.errors import RecordError, RecordMismatch, RecordRefused
from antefix.records import Expected, RecordVersion, digest_of
from antefix.records.header import BODY_OFFSET, MAGIC
from antefix.records.verification import check_public_fields, data_key_of
from tests.attacks.records.forge import run_cuts, run_flips, run_mutants, run_swaps, signed_again
from tests.support.records import Owner, address_of, some_bytes
from tests.support.trial_counts import FORGED_RECORDS, thorough

pytestmark = pytest.mark.slow

ANN, BOB = Owner.named("ann"), Owner.named("bob")
RECORD = ANN.seal(some_bytes("payload", 2000))


def opens(record: bytes, owner: Owner = ANN) -> bool:
    """Whether it opens; anything but the two refusals is a failure of the test."""
    try:
        owner.open(record).wipe()
    except RecordError:
        return False
    return True


def test_the_untouched_record_opens() -> None:
    assert opens(RECORD)
    assert opens(signed_again(RECORD))


@pytest.mark.parametrize("again", [False, True])
def test_no_flipped_bit_opens(again: bool) -> None:
    for at in range(len(RECORD)):
        for bit in range(8) if at < BODY_OFFSET + 64 or at % 16 == 0 else (at % 8,):
            changed = bytearray(RECORD)
            changed[at] ^= 1 << bit
            forged = signed_again(bytes(changed)) if again else bytes(changed)
            assert not opens(forged) or forged == RECORD, (at, bit)


def test_no_cut_and_no_addition_opens() -> None:
    for size in range(len(RECORD)):
        assert not opens(RECORD[:size]), size
    for more in (b"\0", bytes(16), RECORD):
        assert not opens(RECORD + more)
        assert not opens(signed_again(RECORD + more))


def test_no_mutant_opens() -> None:
    came = run_mutants(6_000, seed=1)
    assert came["OPENED"] == 0
    assert came["tried"] > 5_900
    assert came["control opened"] == 1


@pytest.mark.slow
def test_no_mutant_of_many_opens() -> None:
    came = run_mutants(FORGED_RECORDS, seed=2)
    assert came["OPENED"] == 0
    assert min(came["public field differs"], came["refused"]) > FORGED_RECORDS // 4  # both walls were hit


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "parts"), [(run_flips, thorough(25, 5)), (run_cuts, 5)])
def test_no_bit_and_no_cut_of_a_large_record_opens(
    attack: Callable[[int, int], Counter[str]], parts: int
) -> None:
    came = attack(0, parts)  # one part; all of them: python -m tests.attacks.records.forge
    assert came["OPENED"] == 0
    assert came["tried"] > 10_000


@pytest.mark.parametrize("users", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_a_record_opens_in_no_other_place(users: int) -> None:
    came = run_swaps(users, 0, 1)
    assert came["OPENED"] == 0
    assert came["tried"] == users * (users - 1)


@pytest.mark.parametrize("field", ["tenant", "user", "prefix", "base", "shape"])
def test_a_record_with_the_right_key_in_the_wrong_place_is_refused(field: str) -> None:
    size = 32 if field in ("base", "shape") else 16
    elsewhere = Owner("ann", address_of("ann", **{field: some_bytes("other", size)}), ANN.key, ANN.device)
    with pytest.raises(RecordMismatch, match=f"{field} of the record is .*, expected .*") as caught:
        elsewhere.open(RECORD)
    assert getattr(ANN.address, field).hex() in str(caught.value)
    assert getattr(elsewhere.address, field).hex() in str(caught.value)
    # And with the public field changed to what is expected, by someone who can sign:
    places = {"tenant": 10, "user": 26, "prefix": 42, "base": 66, "shape": 98}
    moved = bytearray(RECORD)
    moved[places[field] : places[field] + size] = getattr(elsewhere.address, field)
    with pytest.raises(RecordRefused):
        elsewhere.open(signed_again(bytes(moved)))


def test_all_refusals_behind_the_public_fields_say_the_same() -> None:
    said = set()
    for at in (190, 250, 295, BODY_OFFSET + 3, BODY_OFFSET + 40, len(RECORD) - 1):
        for make in (bytes, lambda record: signed_again(bytes(record))):
            changed = bytearray(RECORD)
            changed[at] ^= 1
            if bytes(make(changed)) == RECORD:
                continue
            with pytest.raises(RecordRefused) as caught:
                ANN.open(make(changed))
            said.add(str(caught.value))
    assert len(said) == 1


def test_another_device_cannot_write() -> None:
    with pytest.raises(RecordMismatch, match="writer of the record"):
        ANN.open(Owner("ann", ANN.address, ANN.key, BOB.device).seal(b"x"))
    with pytest.raises(RecordRefused):
        ANN.open(signed_again(RECORD, BOB.device))


def test_who_was_given_a_data_key_cannot_forge() -> None:
    """A server with a data key writes another body under it: the signature does not fit."""
    parts, edition = check_public_fields(RECORD, ANN.address, Expected())
    with data_key_of(parts, edition, ANN.key) as data_key:
        plain = (2000).to_bytes(4, "big") + bytes(len(RECORD) - BODY_OFFSET - 56 - 16 - 4)
        body = encrypt(data_key.data, edition.context(b"body"), plain)
    assert len(body) == len(RECORD) - BODY_OFFSET
    with pytest.raises(RecordRefused):
        ANN.open(RECORD[:BODY_OFFSET] + body)
    assert opens(
        signed_again(RECORD[:BODY_OFFSET] + body)
    )  # with the device it would: the body itself is fine


def resealed(plain: bytes, key: bytes = bytes(32), wrap: bytes | None = None) -> bytes:
    """A record whose body and wrapped key are what the attacker likes, rightly encrypted and signed."""
    edition = RecordVersion(ANN.address, 1, bytes(32))
    body = encrypt(key, edition.context(b"body"), plain)
    wrapped = encrypt(ANN.key.secret.data, edition.context(b"data key", (1).to_bytes(4, "big")), wrap or key)
    header = edition.core(len(body)) + (1).to_bytes(4, "big") + ANN.device.id + wrapped
    return signed_again(header + bytes(64) + body)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\0\0\0",
        (5000).to_bytes(4, "big") + bytes(4092),
        (2**32 - 1).to_bytes(4, "big") + bytes(4092),
        (0).to_bytes(4, "big") + bytes(4091) + b"\1",
        (0).to_bytes(4, "big") + bytes(8188),
    ],
)
def test_a_body_with_another_length_or_padding_is_refused(plain: bytes) -> None:
    assert opens(resealed((0).to_bytes(4, "big") + bytes(4092)))
    with pytest.raises(RecordRefused):
        ANN.open(resealed(plain))


def test_the_context_is_part_of_the_key() -> None:
    """Body and wrapped key of another version, in a header that says this one, signed by the device."""
    second = ANN.seal(some_bytes("payload", 2000), 2, digest_of(RECORD))
    mixed = bytearray(second)
    mixed[BODY_OFFSET:] = RECORD[BODY_OFFSET:]
    with pytest.raises(RecordRefused):
        ANN.open(signed_again(bytes(mixed)))
    mixed[186:290] = RECORD[186:290]
    with pytest.raises(RecordRefused):
        ANN.open(signed_again(bytes(mixed)))


def test_other_formats_are_named() -> None:
    for other in (b"PK\3\4" + bytes(500), b"\x80\x04" + bytes(500), bytes(600)):
        with pytest.raises(RecordMismatch, match=f"expected {MAGIC.hex()} 1"):
            ANN.open(other)
    with pytest.raises(RecordMismatch, match="size of the record is 0 bytes"):
        ANN.open(b"")


def test_the_size_of_what_is_sealed_is_known() -> None:
    for size in (0, 1, 16_383, 16_384, 16_385, 40_000):
        assert len(encrypt(bytes(32), b"", bytes(size))) == sealed_size(size)
