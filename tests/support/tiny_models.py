"""Tiny bases of every family, in memory: real architectures, seeded, with weights that make a difference."""

import functools
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from antefix import FrozenBase

VOCABULARY = 300
FAMILIES = ["llama", "gpt2", "opt", "qwen2", "gemma", "mistral", "bart", "t5"]
CAUSAL = FAMILIES[:6]
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_CORPUS = [
    "An antefix is an ornament at the edge of a tiled roof.",
    "The roof is frozen, every house has an ornament of its own.",
]


def slow(*families: str) -> list[Any]:
    """Parameters of a test whose promise the fast tests ask of other families already."""
    return [pytest.param(family, marks=pytest.mark.slow) for family in families]


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: reads any text, and writes it back as it was."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@functools.cache
def base(family: str) -> FrozenBase:
    """The base of a family; cached, so change nothing in it."""
    return FrozenBase.from_model(model(family), tokenizer(), name=f"tiny-{family}")


def model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """A fresh model of a family, in eval mode; the same numbers for the same seed."""
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():  # a test's own random numbers stay as they are
        torch.manual_seed(seed)
        fresh = _fresh(family, {"vocab_size": len(tokenizer()), **ids})
    fresh.eval()
    return fresh


def _fresh(family: str, common: dict[str, Any]) -> PreTrainedModel:
    spread: dict[str, Any] = {"initializer_range": 0.15}
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    grouped: dict[str, Any] = {**common, **spread, **small, "max_position_embeddings": 256}
    grouped["num_key_value_heads"] = 2
    shape: dict[str, Any]
    match family:
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**grouped))
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**grouped))
        case "mistral":
            return MistralForCausalLM(MistralConfig(**grouped, sliding_window=None))
        case "gemma":  # head_dim is not hidden / heads, and one key/value head serves all
            return GemmaForCausalLM(GemmaConfig(**{**grouped, "num_key_value_heads": 1}, head_dim=24))
        case "gpt2":
            shape = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}
            return GPT2LMHeadModel(GPT2Config(**common, **spread, **shape))
        case "opt":
            shape = {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96, "num_hidden_layers": 2}
            return OPTForCausalLM(OPTConfig(**common, **shape, num_attention_heads=4, init_std=0.15))
        case "bart":
            side = {"layers": 2, "attention_heads": 4, "ffn_dim": 96}
            shape = {f"{name}_{what}": n for name in ("encoder", "decoder") for what, n in side.items()}
            bart = BartConfig(**common, **shape, d_model=64, init_std=0.15, decoder_start_token_id=2)
            return BartForConditionalGeneration(bart)
        case "t5":
            shape = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
            start = {**common, "decoder_start_token_id": 1}
            return T5ForConditionalGeneration(T5Config(**start, **shape, initializer_factor=1.5))
    raise ValueError(f"no tiny base of family {family!r}")
