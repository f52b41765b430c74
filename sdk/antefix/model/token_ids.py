"""The token ids that a base's files name must all be in its embedding.

An id beyond it would fail in the middle of a batch, on the text of whoever happens to write that token,
and take everybody else's texts along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from antefix.errors import BaseUnsuitable


def check_special_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compare the ids of tokenizer and settings with the rows of embedding and head.

    Raises:
        BaseUnsuitable: an id beyond them, or what is no id at all.
    """
    embedding, head = (_rows(part) for part in (model.get_input_embeddings(), model.get_output_embeddings()))
    if head > embedding:
        raise BaseUnsuitable(
            f"the head writes {head} tokens, the embedding reads {embedding}", "choose another base"
        )
    largest = max([*tokenizer.get_vocab().values(), *tokenizer("a")["input_ids"]], default=-1)
    if largest >= head:
        raise BaseUnsuitable(
            f"the tokenizer has token ids up to {largest}, the model {head} tokens",
            "use the tokenizer that belongs to the model, or resize_token_embeddings and save it",
        )
    for word, number in _named(model):
        if type(number) is not int or not 0 <= number < head:
            raise BaseUnsuitable(
                f"its settings name token {str(number)[:20]} as {word}, and the model has {head} tokens",
                "correct config.json or generation_config.json",
            )


def _rows(layer: Any) -> int:
    return int(layer.weight.shape[0])


def _named(model: PreTrainedModel) -> Iterator[tuple[str, object]]:
    """Settings that name tokens, as far as training and generation look at them."""
    if model.config.is_encoder_decoder:
        yield "decoder_start_token_id", getattr(model.config, "decoder_start_token_id", None)
    settings: Any = model.generation_config
    ends = getattr(settings, "eos_token_id", None)
    yield from (
        ("eos_token_id", end) for end in (ends if isinstance(ends, list) else [ends]) if end is not None
    )
    yield from (("suppress_tokens", token) for token in _list(getattr(settings, "suppress_tokens", None)))
    for tokens in _list(getattr(settings, "bad_words_ids", None)):
        yield from (("bad_words_ids", token) for token in (_list(tokens) or [None]))


def _list(value: object) -> list[object]:
    """What a list holds; None stands for what is no list, and is no token either."""
    return value if isinstance(value, list) else [None] if value else []
