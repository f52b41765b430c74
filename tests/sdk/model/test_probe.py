"""What a base must be, and what is refused by the name of its layer."""

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from antefix import FrozenBase
from antefix.errors import BaseUnsuitable, InvalidArgument
from tests.sdk.training.test_micro_batch import rows_for
from tests.support import tiny_models

SMALL: dict[str, Any] = {
    "vocab_size": tiny_models.VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
GROUPED: dict[str, Any] = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16}


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=8))


def gemma2() -> PreTrainedModel:
    return Gemma2ForCausalLM(Gemma2Config(**GROUPED, sliding_window=8))


def qwen3_next() -> PreTrainedModel:
    linear = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    more: dict[str, Any] = {
        **linear,
        **experts,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 8,
    }
    return Qwen3NextForCausalLM(Qwen3NextConfig(**GROUPED, **more))


def mamba() -> PreTrainedModel:
    return FalconMambaForCausalLM(
        FalconMambaConfig(vocab_size=tiny_models.VOCABULARY, hidden_size=32, num_hidden_layers=2)
    )


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(
        BloomConfig(vocab_size=tiny_models.VOCABULARY, hidden_size=32, n_layer=2, n_head=2)
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (mistral, r"layer model\.layers\.0\.self_attn \(MistralAttention\) has a sliding window of 8 tokens"),
        (gemma2, r"layer model\.layers\.0\.self_attn \(Gemma2Attention\) has a sliding window"),
        (qwen3_next, r"layer model\.layers\.0 \(Qwen3NextDecoderLayer\) has no key/value attention"),
        (mamba, "no layer of FalconMambaForCausalLM takes its attention"),
        (bloom, "BloomForCausalLM"),
    ],
)
def test_an_unsuitable_layer_is_refused_by_name(make: Any, said: str) -> None:
    with pytest.raises(BaseUnsuitable, match=said):
        FrozenBase.from_model(make(), tiny_models.tokenizer())


@pytest.mark.parametrize(
    ("family", "slots"),
    [
        ("llama", [("decoder", 2, 16)] * 2),
        ("gemma", [("decoder", 1, 24)] * 2),
        ("gpt2", [("decoder", 4, 16)] * 3),
        ("t5", [("encoder", 4, 16)] * 2 + [("decoder", 4, 16), ("cross", 4, 16)] * 2),
    ],
)
def test_the_probe_finds_every_layers_shape(family: str, slots: list[tuple[str, int, int]]) -> None:
    found = [(slot.kind, slot.heads, slot.head_dim) for slot in tiny_models.base(family).layout.slots]
    assert found == slots


@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_a_prefix_is_what_transformers_calls_a_cache(family: str) -> None:
    """Same logits as the library's own way, so prefixes exchange with tools that use it."""
    from antefix.training.bucketing import Bucket
    from antefix.training.micro_batch import _forward

    base = tiny_models.base(family)
    (row,) = rows_for(base, [(11, 11)])
    flat = torch.randn(1, base.layout.size(5)) * 0.3
    with torch.no_grad():
        ours = base.head.logits(_forward(base, Bucket(11), [row], base.layout.split(flat))[0])
        cache = DynamicCache([(part[:, 0], part[:, 1]) for part in base.layout.split(flat)])
        theirs = base.model(
            input_ids=torch.tensor([row.inputs]),
            past_key_values=cache,
            attention_mask=torch.ones(1, 16, dtype=torch.long),
        ).logits[0]
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_the_fingerprint_is_of_the_weights() -> None:
    one, same, other = (
        FrozenBase.from_model(tiny_models.model("llama", seed=seed), tiny_models.tokenizer()).fingerprint
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_bad_devices_and_types_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="dtype is 'int4'"):
        FrozenBase.load("smollm2-135m-q4", dtype="int4")
    with pytest.raises(InvalidArgument, match="device is 'abacus'"):
        FrozenBase.load("smollm2-135m-q4", device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidArgument, match="offers no CUDA"):
            FrozenBase.load("smollm2-135m-q4", device="cuda")
