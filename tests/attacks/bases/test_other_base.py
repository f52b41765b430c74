"""A prefix on a base that only looks like its own: refused before any forward pass."""

import itertools
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from antefix import FrozenBase, GenerationRequest, Prefix, generate
from antefix.errors import PrefixMismatch, RecordMismatch, RecordRefused
from antefix.records import Address, shape_of
from tests.support import tiny_models
from tests.support.records import Owner

ANN = Owner.named("ann")


def one_bit_off() -> PreTrainedModel:
    """The lowest bit of one weight: no output would show it."""
    model = tiny_models.model("llama")
    weight = dict(model.named_parameters())["model.embed_tokens.weight"]
    with torch.no_grad():
        weight.view(torch.int32)[7, 7] ^= 1
    return model


def another_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_models.tokenizer().backend_tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.add_tokens(["roof"])
    return tokenizer


def quantised() -> PreTrainedModel:
    """Every weight rounded to a grid, as a quantised copy of the same model has them."""
    model = tiny_models.model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    return model


@pytest.fixture(scope="module")
def bases() -> dict[str, FrozenBase]:
    wider = tiny_models.model("llama")
    wider.resize_token_embeddings(len(another_tokenizer()))
    return {
        "itself": tiny_models.base("llama"),
        "one bit off": FrozenBase.from_model(one_bit_off(), tiny_models.tokenizer()),
        "other tokenizer": FrozenBase.from_model(wider, another_tokenizer()),
        "quantised": FrozenBase.from_model(quantised(), tiny_models.tokenizer()),
        "other family": tiny_models.base("qwen2"),
    }


def prefix_of(base: FrozenBase) -> Prefix:
    return Prefix(torch.randn(base.layout.size(4)), base.layout, base.fingerprint)


def address_on(base: FrozenBase) -> Address:
    shape = shape_of(base.layout.digest, 4, "fp32")
    return replace(ANN.address, base=bytes.fromhex(base.fingerprint), shape=shape)


def sealed(prefix: Prefix, address: Address) -> bytes:
    return replace(ANN, address=address).seal(prefix.to_bytes())


def test_five_bases_have_five_fingerprints(bases: dict[str, FrozenBase]) -> None:
    assert len({base.fingerprint for base in bases.values()}) == 5


def test_a_record_of_one_base_opens_for_no_other(bases: dict[str, FrozenBase]) -> None:
    for theirs, ours in itertools.product(bases.values(), repeat=2):
        record, owner = sealed(prefix_of(theirs), address_on(theirs)), replace(ANN, address=address_on(ours))
        if theirs is ours:
            with owner.open(record) as opened:
                opened.prefix()
            continue
        with pytest.raises(RecordMismatch, match="base of the record is") as caught:
            owner.open(record)
        assert theirs.fingerprint in str(caught.value)
        assert ours.fingerprint in str(caught.value)


def test_a_prefix_that_is_sealed_under_another_bases_name_is_refused(bases: dict[str, FrozenBase]) -> None:
    """By the device itself, say by mistake: the prefix inside knows its base."""
    for theirs, ours in itertools.permutations(bases.values(), 2):
        record, owner = sealed(prefix_of(theirs), address_on(ours)), replace(ANN, address=address_on(ours))
        with owner.open(record) as opened, pytest.raises(RecordRefused):
            opened.prefix()


def test_a_base_never_runs_with_another_ones_prefix(
    bases: dict[str, FrozenBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    for theirs, ours in itertools.permutations(bases.values(), 2):
        passes = 0

        def counted(*_: object, **__: object) -> None:
            nonlocal passes
            passes += 1

        hook = ours.model.register_forward_pre_hook(counted)
        requests = [
            GenerationRequest(prompt="a", max_new_tokens=2),
            GenerationRequest(prompt="a", prefix=prefix_of(theirs), max_new_tokens=2),
        ]
        with pytest.raises(PrefixMismatch, match=theirs.fingerprint[:16]):
            list(generate(ours, requests))
        hook.remove()
        assert passes == 0
