"""Records open where they belong, hold what was sealed, and leave nothing behind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix import Prefix
from antefix.errors import InvalidArgument, RecordMismatch, RecordRefused
from antefix.records import Address, Expected, RecordVersion, digest_of, rewrap, seal
from antefix.records.header import BODY_LIMIT, BODY_OFFSET, shape_of
from tests.support import tiny_models
from tests.support.records import Owner, address_of, some_bytes

ANN = Owner.named("ann")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: some_bytes("payload", n))))
def test_what_was_sealed_comes_out(payload: bytes) -> None:
    with ANN.open(ANN.seal(payload)) as opened:
        assert bytes(opened.payload) == payload
        assert opened.edition == RecordVersion(ANN.address, 1, bytes(32))
        assert opened.writer == ANN.device.id


def test_a_prefix_survives_sealing() -> None:
    base = tiny_models.base("llama")
    prefix = Prefix(torch.randn(base.layout.size(3)), base.layout, base.fingerprint)
    shape = shape_of(base.layout.digest, 3, "fp32")
    address = address_of("ann", base=bytes.fromhex(base.fingerprint), shape=shape)
    owner = Owner("ann", address, ANN.key, ANN.device)
    with owner.open(owner.seal(prefix.to_bytes())) as opened:
        assert opened.prefix() == prefix
    for wrong in (prefix.to_bytes(dtype="bf16"), prefix.to_bytes()[:-4], b"", b"\x80"):
        with (
            owner.open(owner.seal(wrong)) as opened,
            pytest.raises(RecordRefused, match="does not open here"),
        ):
            opened.prefix()
    other = Prefix(prefix.values, base.layout, "0" * 64)
    with owner.open(owner.seal(other.to_bytes())) as opened, pytest.raises(RecordRefused):
        opened.prefix()


def test_sizes_say_nothing_but_the_bucket() -> None:
    sizes = {len(ANN.seal(some_bytes("x", size))) for size in (0, 1, 100, 4092)}
    assert sizes == {BODY_OFFSET + 56 + 4096 + 16}
    assert len(ANN.seal(some_bytes("x", 4093))) == BODY_OFFSET + 56 + 8192 + 16


def test_two_records_of_one_content_share_nothing_secret() -> None:
    first, second = ANN.seal(b"same"), ANN.seal(b"same")
    assert first[:186] == second[:186]
    assert not {first[at : at + 16] for at in range(186, len(first) - 16)} & {
        second[at : at + 16] for at in range(186, len(second) - 16)
    }


def test_a_wiped_record_has_nothing_left() -> None:
    opened = ANN.open(ANN.seal(b"secret" * 100))
    memory = opened._content.data
    with opened:
        assert memory[4:10] == b"secret"
    assert not any(memory)
    assert len(opened.payload) == 0
    assert "secret" not in repr(opened)


def test_a_new_user_key_leaves_body_and_digest_alone() -> None:
    record = ANN.seal(b"mine")
    new = ANN.key.rotated()
    assert new.epoch == 2
    again = rewrap(record, ANN.address, old=ANN.key, new=new, device=ANN.device, writers=ANN.writers)
    assert again[BODY_OFFSET:] == record[BODY_OFFSET:]
    assert digest_of(again) == digest_of(record)
    owner = Owner("ann", ANN.address, new, ANN.device)
    assert bytes(owner.open(again, Expected(1, digest_of(record))).payload) == b"mine"
    with pytest.raises(RecordMismatch, match="epoch of the record is 2, expected 1"):
        ANN.open(again)
    with pytest.raises(RecordMismatch, match="epoch of the record is 1, expected 2"):
        owner.open(record)


def test_what_cannot_be_meant_is_refused_before_anything_is_sealed() -> None:
    with pytest.raises(InvalidArgument, match="user of an address is 3 bytes, expected 16"):
        address_of("ann", user=b"ann")
    with pytest.raises(InvalidArgument, match="base of an address is str"):
        Address(bytes(16), bytes(16), bytes(16), "0" * 32, bytes(32))  # type: ignore[arg-type]
    for version, previous in ((0, bytes(32)), (2, bytes(32)), (1, b"\1" * 32), (2**64, b"\1" * 32)):
        with pytest.raises(InvalidArgument, match="version"):
            seal(b"", RecordVersion(ANN.address, version, previous), key=ANN.key, device=ANN.device)
    with pytest.raises(InvalidArgument, match="makes a body above"):
        ANN.seal(bytes(BODY_LIMIT))
