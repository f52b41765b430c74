"""The file of texts: what was appended is read, whatever happens to the rest of the file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix import Example
from antefix.crypto.aead import SecretBytes
from antefix_client.errors import ProfileDamaged
from antefix_client.profile.text_log import TextLog, new_identity
from tests.support.records import some_bytes

PROFILE = some_bytes("profile", 16)
TEXTS = {
    number: Example(f"text {number} " + "x" * (number * 37 % 200), "?" * (number % 3))
    for number in range(1, 9)
}


def log_at(path: Path, key: str = "root") -> TextLog:
    return TextLog(path, PROFILE, SecretBytes(bytearray(some_bytes(key, 32))))


@pytest.fixture
def log(tmp_path: Path) -> TextLog:
    log = log_at(tmp_path / "texts")
    log.create()
    log.append(TEXTS.items(), log.read().end)
    return log


def test_what_was_appended_is_read(log: TextLog) -> None:
    found = log.read()
    assert found.texts == TEXTS
    assert (found.damaged, found.end) == (0, log.path.stat().st_size)
    log.append([(9, Example("more"))], found.end)
    assert list(log.read().texts) == [*TEXTS, 9]


def test_no_text_is_in_the_file(log: TextLog) -> None:
    content = log.path.read_bytes()
    for text in TEXTS.values():
        assert text.completion[:7].encode() not in content


def test_a_cut_costs_the_last_text_alone(log: TextLog) -> None:
    whole = log.path.read_bytes()
    for size in range(64, len(whole), 29):
        log.path.write_bytes(whole[:size])
        found = log.read()
        assert found.damaged == 0  # it looks like a write that was cut off
        kept = list(found.texts)
        assert kept == list(TEXTS)[: len(kept)]
        end = log.append([(99, Example("after"))], found.end)
        again = log.read()
        assert list(again.texts) == [*kept, 99]
        assert again.end == end == log.path.stat().st_size


def test_a_flipped_bit_costs_one_text_and_is_counted(log: TextLog) -> None:
    whole = log.path.read_bytes()
    for at in range(64, len(whole), 23):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        log.path.write_bytes(changed)
        found = log.read()
        assert len(found.texts) >= len(TEXTS) - 1
        if len(found.texts) < len(TEXTS):
            assert found.damaged == 1
        log.append([(99, Example("after"))], found.end)
        assert list(log.read().texts) == [*found.texts, 99]


def test_zeros_at_the_end_are_no_damage(log: TextLog) -> None:
    """A file system may have made room before the crash and written nothing."""
    with log.path.open("ab") as file:
        file.write(bytes(1000))
    found = log.read()
    assert (found.texts, found.damaged) == (TEXTS, 0)
    log.append([(9, Example("more"))], found.end)
    assert len(log.read().texts) == 9


@pytest.mark.parametrize("content", [b"", b"short", bytes(64), b"PK" + bytes(200)])
def test_a_file_without_its_header_is_refused(content: bytes, log: TextLog) -> None:
    log.path.write_bytes(content)
    with pytest.raises(ProfileDamaged, match="texts is damaged"):
        log.read()


def test_entries_of_another_file_or_key_are_not_read(log: TextLog, tmp_path: Path) -> None:
    other = log_at(tmp_path / "other")
    other.create()
    other.path.write_bytes(other.path.read_bytes() + log.path.read_bytes()[64:])
    assert other.read().texts == {}
    assert log_at(log.path, "another root").read().texts == {}


def test_entries_cannot_change_places(log: TextLog) -> None:
    content = log.path.read_bytes()
    size = (len(content) - 64) // len(TEXTS)
    marks = [at for at in range(64, len(content), 64) if content[at : at + 4] == b"\xa7TXT"]
    assert len(marks) == len(TEXTS)
    assert size > 0
    first, second, third = marks[:3]
    log.path.write_bytes(content[:first] + content[second:third] + content[first:second] + content[third:])
    assert sorted(log.read().texts.items()) == sorted(TEXTS.items())  # the number is inside, the order is not
    twice = content + content[first:second]
    log.path.write_bytes(twice)
    assert len(log.read().texts) == len(TEXTS)


def test_what_is_rewritten_is_gone_from_the_old_file(log: TextLog) -> None:
    old = log.path.open("rb")
    kept = {number: TEXTS[number] for number in (2, 5)}
    log.rewrite(kept, new_identity())
    assert log.read().texts == kept
    assert not any(old.read())  # the bytes that were on the disk are zeros now
    old.close()


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=300), max_size=4), max_size=6))
def test_any_texts_come_back(batches: list[list[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = log_at(Path(folder) / "texts")
        log.create()
        wanted: dict[int, Example] = {}
        end = log.read().end
        for batch in batches:
            new = {len(wanted) + n: Example(text, text[::-1]) for n, text in enumerate(batch)}
            end = log.append(new.items(), end)
            wanted.update(new)
            assert (log.read().texts, log.read().end) == (wanted, end)
