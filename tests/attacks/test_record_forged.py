"""Every flipped bit, every cut, every move to another place: nothing opens, and only two kinds of error."""

import hashlib
import random
from collections.abc import Iterator

import pytest

from antefix._record import BODY_AT, HEADER_BYTES, MAGIC, signed
from antefix._sealing import encrypt, sealed_size
from antefix.errors import RecordError, RecordMismatch, RecordRefused
from antefix.keys import DeviceKeys
from antefix.records import Edition, Known, _compared, _data_key, digest_of
from tests.sealed import Owner, address_of, some_bytes

ANN, BOB = Owner.named("ann"), Owner.named("bob")
RECORD = ANN.seal(some_bytes("payload", 2000))


def opens(record: bytes, owner: Owner = ANN) -> bool:
    """Whether it opens; anything but the two refusals is a failure of the test."""
    try:
        owner.open(record).wipe()
    except RecordError:
        return False
    return True


def signed_again(record: bytes, device: DeviceKeys = ANN.device) -> bytes:
    """What an attacker makes who stole a device's signing key, but not the user key."""
    header, body = record[:HEADER_BYTES], record[BODY_AT:]
    return header + device.sign(signed(header, hashlib.sha256(body).digest())) + body


def test_the_untouched_record_opens() -> None:
    assert opens(RECORD)
    assert opens(signed_again(RECORD))


@pytest.mark.parametrize("again", [False, True])
def test_no_flipped_bit_opens(again: bool) -> None:
    for at in range(len(RECORD)):
        for bit in range(8) if at < BODY_AT + 64 or at % 16 == 0 else (at % 8,):
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


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Random damage; every second one is signed again, so that the layers behind are reached."""
    dice = random.Random(seed)
    for number in range(count):
        changed = bytearray(RECORD)
        for _ in range(dice.choice((1, 1, 2, 5))):
            kind, at = dice.randrange(4), dice.randrange(len(changed))
            if kind == 0:
                changed[at] ^= 1 << dice.randrange(8)
            elif kind == 1:
                changed[at : at + 8] = dice.randbytes(8)
            elif kind == 2:
                del changed[at : at + dice.randrange(1, 64)]
            else:
                changed[at:at] = dice.randbytes(dice.randrange(1, 64))
        if len(changed) >= BODY_AT and dice.randrange(2):  # let the body's length agree again
            changed[162:166] = (len(changed) - BODY_AT).to_bytes(4, "big")
        if changed != RECORD:
            yield signed_again(bytes(changed)) if number % 2 and len(changed) > BODY_AT else bytes(changed)


def test_no_mutant_opens() -> None:
    tried = 0
    for forged in mutants(20_000, seed=1):
        assert not opens(forged) or forged == RECORD  # a new signature may mend a damaged one
        tried += 1
    assert tried > 19_900


@pytest.mark.slow
def test_no_mutant_of_many_opens() -> None:
    reached = {RecordMismatch: 0, RecordRefused: 0}
    for forged in mutants(200_000, seed=2):
        try:
            ANN.open(forged).wipe()
            assert forged == RECORD
        except (RecordMismatch, RecordRefused) as error:
            reached[type(error)] += 1
    assert min(reached.values()) > 50_000  # both walls were hit


def test_a_record_opens_in_its_own_place_alone() -> None:
    owners = [Owner.named(f"user {number}") for number in range(30)]
    records = [owner.seal(some_bytes(owner.name, 100)) for owner in owners]
    for at, record in enumerate(records):
        assert [opens(record, owner) for owner in owners] == [n == at for n in range(len(owners))]


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
    for at in (190, 250, 295, BODY_AT + 3, BODY_AT + 40, len(RECORD) - 1):
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
    parts, edition = _compared(RECORD, ANN.address, ANN.key, ANN.writers, Known())
    with _data_key(parts, edition, ANN.key) as data_key:
        plain = (2000).to_bytes(4, "big") + bytes(len(RECORD) - BODY_AT - 56 - 16 - 4)
        body = encrypt(data_key.data, edition.context(b"body"), plain)
    assert len(body) == len(RECORD) - BODY_AT
    with pytest.raises(RecordRefused):
        ANN.open(RECORD[:BODY_AT] + body)
    assert opens(signed_again(RECORD[:BODY_AT] + body))  # with the device it would: the body itself is fine


def resealed(plain: bytes, key: bytes = bytes(32), wrap: bytes | None = None) -> bytes:
    """A record whose body and wrapped key are what the attacker likes, rightly encrypted and signed."""
    edition = Edition(ANN.address, 1, bytes(32))
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
    mixed[BODY_AT:] = RECORD[BODY_AT:]
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
