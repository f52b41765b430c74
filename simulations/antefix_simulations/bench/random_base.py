"""Bases made on the spot, for benches: random weights in known shapes, and a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from antefix import FrozenBase
from antefix.errors import InvalidArgument
from antefix.model.frozen_base import find_device

__all__ = ["SHAPES", "random_base", "tiny_base"]

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
    },
    "135m": {  # SmolLM2-135M
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
    },
    "8b": {  # Llama 3.1 8B
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
    },
}


def tiny_base(folder: Path) -> Path:
    """The shape `tiny`, written down."""
    model, tokenizer = _random(SHAPES["tiny"])
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def random_base(shape: str, *, device: str, dtype: torch.dtype) -> FrozenBase:
    """A base in memory. Weights are drawn on the device, so they differ between devices.

    Raises:
        InvalidArgument: no such shape or device.
    """
    if shape not in SHAPES:
        raise InvalidArgument(f"there is no shape {shape!r}", f"choose of {', '.join(SHAPES)}")
    where, default_dtype = find_device(device), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with where:
            model, tokenizer = _random(SHAPES[shape])
    finally:
        torch.set_default_dtype(default_dtype)
    return FrozenBase.from_model(model.eval(), tokenizer, name=f"random {shape}")


def _random(shape: dict[str, Any]) -> tuple[Any, PreTrainedTokenizerFast]:
    special = ["<s>", "</s>", "<pad>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=1)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return LlamaForCausalLM(config), fast
