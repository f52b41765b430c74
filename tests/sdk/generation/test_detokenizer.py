"""Streamed text is never taken back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix.generation.detokenizer import IncrementalDetokenizer
from tests.support import tiny_models


def streamed(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], IncrementalDetokenizer]:
    tokenizer = tiny_models.tokenizer()
    stream = IncrementalDetokenizer(tokenizer, stop)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_pieces_add_up_and_split_no_character(text: str) -> None:
    pieces, stream = streamed(text)
    assert "".join(pieces) == stream.text == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces) or "\ufffd" in text


@settings(deadline=None)
@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_nothing_of_a_stop_text_is_ever_shown(text: str, stop: tuple[str, ...]) -> None:
    pieces, stream = streamed(text, stop)
    ends = [
        min((end for s in stop if (end := text.find(s, 0, n)) >= 0), default=-1) for n in range(len(text) + 1)
    ]
    first = next((end for end in ends if end >= 0), None)
    assert stream.stopped == (first is not None)
    assert "".join(pieces) == stream.text
    assert not any(s in stream.text for s in stop)
    assert text.startswith(stream.text)
    if first is None:
        assert stream.text == text


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    tokenizer = tiny_models.tokenizer()
    tokens = tokenizer("ü", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 2
    stream = IncrementalDetokenizer(tokenizer, ())
    assert stream.push(tokens[0]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("special", ["</s>", "<s>", "<pad>"])
def test_special_tokens_have_no_text(special: str) -> None:
    tokenizer = tiny_models.tokenizer()
    stream = IncrementalDetokenizer(tokenizer, ())
    pieces = [stream.push(token) for token in tokenizer(f"An{special} ant")["input_ids"]]
    assert "".join([*pieces, stream.finish()]) == "An ant"
