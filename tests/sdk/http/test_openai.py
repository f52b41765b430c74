"""One writer of streamed answers: the first event of a chat names the role, the last one ends the stream."""

import json
from typing import Any

import pytest

from antefix.errors import InvalidArgument
from antefix.generation.request import Generated
from antefix.http.openai import EventWriter, ResponseBuilder

GENERATED = Generated("roof", (1, 2, 3), "end")


def writer(*, chat: bool = True, with_usage: bool = False) -> EventWriter:
    return EventWriter(ResponseBuilder(chat=chat, model="m", prompt_tokens=5), with_usage=with_usage)


def content(event: str) -> dict[str, Any]:
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    found: dict[str, Any] = json.loads(event.removeprefix("data: "))
    return found


def test_only_the_first_event_of_a_chat_names_the_role() -> None:
    events = writer()
    deltas = [content(events.chunk(text))["choices"][0]["delta"] for text in ("ro", "of")]
    assert deltas == [{"role": "assistant", "content": "ro"}, {"content": "of"}]


def test_an_answer_without_text_names_the_role_at_its_end() -> None:
    last, done = writer().end(GENERATED)
    choice = content(last)["choices"][0]
    assert (choice["delta"], choice["finish_reason"], done) == (
        {"role": "assistant"},
        "stop",
        "data: [DONE]\n\n",
    )


@pytest.mark.parametrize("chat", [True, False])
def test_the_counts_come_last_where_they_are_asked_for(chat: bool) -> None:
    _, counts, done = writer(chat=chat, with_usage=True).end(GENERATED)
    assert content(counts)["choices"] == []
    assert content(counts)["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert done == "data: [DONE]\n\n"


def test_what_was_cut_off_ends_without_a_reason() -> None:
    assert list(writer(with_usage=True).end(None)) == ["data: [DONE]\n\n"]


def test_an_error_within_a_stream_says_its_kind_and_what_may_be_said() -> None:
    event = EventWriter.error(InvalidArgument("the text itself"), "it failed")
    assert content(event) == {"error": {"type": "InvalidArgument", "message": "it failed"}}
