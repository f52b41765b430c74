"""Records come back as they were put; of two writers one wins; readers never wait."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antefix.errors import InvalidArgument, RecordMismatch
from antefix.records import Expected, digest_of
from antefix_server.errors import (
    RecordAbsent,
    RecordReplaced,
    UnknownUser,
    VaultBusy,
    VaultDamaged,
    VaultUnavailable,
    VersionConflict,
)
from antefix_server.vault import RecordMeta, Vault
from antefix_server.vault.record_store import RecordStore
from tests.support.records import some_bytes
from tests.support.vaults import Person, new_vault, reopen

pytestmark = pytest.mark.slow


def chunks(record: bytes, size: int = 100_000) -> Iterator[bytes]:
    return (record[at : at + size] for at in range(0, len(record), size))


def test_a_record_comes_back_as_it_was_put(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    record = ann.put(vault, some_bytes("one", 5000))
    assert vault.get(ann.user, ann.prefix) == record
    assert b"".join(vault.stream(ann.user, ann.prefix)) == record
    assert vault.head(ann.user, ann.prefix) == RecordMeta(ann.prefix, 1, 1, len(record), digest_of(record))
    with ann.owner.open(vault.get(ann.user, ann.prefix)) as opened:
        assert bytes(opened.payload) == some_bytes("one", 5000)


def test_everything_is_there_after_closing(vault: Vault) -> None:
    people = [Person.enrolled(vault, f"user {n}") for n in range(5)]
    for person in people:
        person.put(vault, b"one")
        person.put(vault, b"two")
    vault.close()
    with Vault.open(vault.folder) as again:
        assert [person.stored(again) for person in people] == [person.record for person in people]
    reopen(vault)


def test_large_records_go_in_and_out_piece_by_piece(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    small = ann.put(vault, b"small")
    record = ann.next(some_bytes("large", 3_500_000))
    vault.put_stream(chunks(record), replaces=1)
    assert vault.get(ann.user, ann.prefix) == record
    stream = vault.stream(ann.user, ann.prefix)
    assert len(next(stream)) < 2**20
    ann.record, ann.version = record, 2
    ann.put(vault, b"small again")
    with pytest.raises(RecordReplaced, match="while it was read"):
        list(stream)
    assert small != ann.stored(vault) == ann.record


@pytest.mark.parametrize("streamed", [False, True])
def test_only_the_next_version_is_taken(vault: Vault, streamed: bool) -> None:
    def put(record: bytes, replaces: int) -> RecordMeta:
        return (
            vault.put_stream(chunks(record), replaces=replaces)
            if streamed
            else vault.put(record, replaces=replaces)
        )

    ann = Person.enrolled(vault, "ann")
    first = ann.next(b"one")
    with pytest.raises(VersionConflict, match="version 0 is stored, the record was to replace version 1"):
        put(first, 1)
    put(first, 0)
    with pytest.raises(VersionConflict, match="version 1 is stored"):
        put(first, 0)
    with pytest.raises(VersionConflict, match="version 1 in epoch 1 does not follow version 1 in epoch 1"):
        put(first, 1)
    ann.record, ann.version = first, 1
    second, other = ann.next(b"two"), ann.next(b"other")
    put(second, 1)
    with pytest.raises(VersionConflict, match="version 2 is stored, the record was to replace version 1"):
        put(other, 1)
    fork = ann.owner.seal(b"three", 3, digest_of(other))
    with pytest.raises(VersionConflict, match=f"follows the record {digest_of(other).hex()}"):
        put(fork, 2)
    assert vault.get(ann.user, ann.prefix) == second


def test_a_new_user_key_replaces_the_same_version(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"mine")
    before = ann.record
    again = ann.rotated()
    assert vault.put(again, replaces=1).epoch == 2
    assert ann.stored(vault) == again
    with pytest.raises(VersionConflict, match="version 1 in epoch 1 does not follow version 1 in epoch 2"):
        vault.put(before, replaces=1)


def test_after_a_restore_a_device_that_is_ahead_may_skip_versions(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    ahead = ann.owner.seal(b"seven", 7, some_bytes("six", 32))
    assert vault.put(ahead, replaces=1).version == 7


def test_of_many_writers_at_once_one_wins(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    ann.put(vault, b"one")
    rivals = [ann.next(some_bytes(f"rival {n}", 4000)) for n in range(8)]
    won, lost, gate = [], [], threading.Barrier(8)

    def write(record: bytes) -> None:
        gate.wait()
        try:
            vault.put(record, replaces=1)
            won.append(record)
        except VersionConflict:
            lost.append(record)

    threads = [threading.Thread(target=write, args=(record,)) for record in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert ann.stored(vault) == won[0]


def test_many_go_in_together_or_not_at_all(vault: Vault) -> None:
    users = vault.enrol_many(300)
    people = [Person.with_id(vault.tenant, user, f"user {n}") for n, user in enumerate(users)]
    batch = [(person.next(b"one"), 0) for person in people]
    assert [head.version for head in vault.put_many(batch)] == [1] * 300
    assert [person.stored(vault) for person in people] == [record for record, _ in batch]
    late = Person.enrolled(vault, "late")
    with pytest.raises(VersionConflict):
        vault.put_many([(late.next(b"one"), 0), batch[7]])
    with pytest.raises(RecordAbsent):
        late.stored(vault)
    with pytest.raises(InvalidArgument, match="two records of one prefix"):
        vault.put_many([(late.next(b"one"), 0), (late.next(b"two"), 0)])
    assert vault.put_many([]) == []


def test_one_user_has_several_prefixes(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    second = Person.with_id(vault.tenant, ann.user, "second prefix")
    assert ann.prefix != second.prefix
    first, other = ann.put(vault, b"one"), second.put(vault, b"other")
    assert (ann.stored(vault), second.stored(vault)) == (first, other)


def test_who_is_not_there_is_not_found(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    with pytest.raises(RecordAbsent, match=f"user {ann.user.hex()} has no record of prefix"):
        ann.stored(vault)
    stranger = Person.with_id(vault.tenant, some_bytes("stranger", 16), "stranger")
    for call in (
        lambda: stranger.put(vault, b"x"),
        lambda: stranger.stored(vault),
        lambda: vault.remove(stranger.user),
    ):
        with pytest.raises(UnknownUser, match=stranger.user.hex()):
            call()
    elsewhere = Person.with_id(some_bytes("another vault", 16), ann.user, "ann")
    with pytest.raises(RecordMismatch, match="tenant of the record is"):
        elsewhere.put(vault, b"x")


def test_an_upload_that_breaks_off_leaves_nothing(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    record = ann.next(some_bytes("large", 2_500_000))
    for broken in (record[:-1], record[:2_000_000], record + b"x", record[:300], b""):
        with pytest.raises(RecordMismatch, match="size of the record"):
            vault.put_stream(chunks(broken), replaces=0)
    with vault._shelf.database.reading() as connection:
        left = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in ("records", "pieces")
        ]
    assert left == [0, 0]


def test_an_upload_does_not_outlive_its_user(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    record = ann.next(some_bytes("large", 2_500_000))

    def removed_halfway() -> Iterator[bytes]:
        yield record[:2_000_000]
        vault.remove(ann.user)
        yield record[2_000_000:]

    with pytest.raises(RecordReplaced, match="upload was dropped"):
        vault.put_stream(removed_halfway(), replaces=0)
    assert vault._shelf.count() == 0


def test_what_an_upload_left_in_a_crash_is_swept(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    with vault.owner(ann.user) as owner:
        left = vault._shelf.begin_upload(owner.tag, b"head")
    vault._shelf.add_piece(left, 0, b"piece")
    reopen(vault)
    with pytest.raises(RecordReplaced):
        vault._shelf.piece(left, 0)


def test_a_reader_beside_the_writer_sees_what_is_committed(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    first = ann.put(vault, b"one")
    with Vault.open(vault.folder, read_only=True) as reader:
        assert ann.stored(reader) == first
        second = ann.put(vault, b"two")
        assert ann.stored(reader) == second
        with pytest.raises(InvalidArgument, match="open for reading"):
            reader.put(second, replaces=1)
        with pytest.raises(InvalidArgument, match="open for reading"):
            reader.remove(ann.user)
        vault.remove(ann.user)
        with pytest.raises(UnknownUser):
            ann.stored(reader)


def test_there_is_one_writer(vault: Vault) -> None:
    with pytest.raises(VaultBusy, match="another process writes to the vault"):
        Vault.open(vault.folder)


def test_a_reader_knows_what_receipts_are_verified_with(vault: Vault) -> None:
    with Vault.open(vault.folder, read_only=True) as reader:
        assert reader.log_key == vault.log_key


@pytest.mark.parametrize("wrong", ["url", "mirror", "opening"])
def test_a_vault_that_could_not_be_made_leaves_nothing_in_the_way(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mirror = tmp_path / "vault", tmp_path / "mirror.db"
    kept = tmp_path / "mirror.db.kept"
    kept.write_text("of somebody else")
    url = "no url" if wrong == "url" else None
    with monkeypatch.context() as patched:
        if wrong == "opening":
            patched.setattr(RecordStore, "claim", _of_another)
        with pytest.raises((InvalidArgument, VaultUnavailable, VaultDamaged)):
            new_vault(folder, url, kept / "a file is no folder" if wrong == "mirror" else mirror)
    assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["mirror.db.kept"]
    new_vault(folder, None, mirror).close()


def _of_another(*_: object) -> None:
    raise VaultDamaged("it has the records of another vault")


def test_a_database_of_another_vault_is_refused(tmp_path: Path) -> None:
    new_vault(tmp_path / "a").close()
    new_vault(tmp_path / "b").close()
    (tmp_path / "a" / "records.db").rename(tmp_path / "b" / "records.db")
    with pytest.raises(VaultDamaged, match="has the records of vault"):
        Vault.open(tmp_path / "b")


def test_an_older_record_of_the_same_person_does_not_open_as_a_newer_one(vault: Vault) -> None:
    ann = Person.enrolled(vault, "ann")
    old = ann.put(vault, b"one")
    ann.put(vault, b"two")
    ann.owner.open(ann.stored(vault), Expected(2, digest_of(ann.record), digest_of(old))).wipe()


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "put", "rotate", "remove", "reopen"]), st.integers(0, 5)),
        max_size=25,
    )
)
def test_any_order_of_calls_does_what_a_dictionary_would(
    tmp_path: Path, calls: list[tuple[str, int]]
) -> None:
    vault = new_vault(tmp_path / uuid.uuid4().hex)
    living: list[Person] = []
    gone: list[bytes] = []
    for number, (call, which) in enumerate(calls):
        person = living[which % len(living)] if living else None
        if call == "add":
            living.append(Person.enrolled(vault, f"user {number}"))
        elif call == "put" and person:
            person.put(vault, some_bytes(f"{number}", 100))
        elif call == "rotate" and person and person.version:
            vault.put(person.rotated(), replaces=person.version)
        elif call == "remove" and person:
            vault.remove(person.user)
            gone.append(living.pop(which % len(living)).user)
        elif call == "reopen":
            vault.close()
            vault = Vault.open(vault.folder)
    with vault:
        for person in living:
            if person.version:
                assert person.stored(vault) == person.record
        assert vault._shelf.count() == sum(person.version > 0 for person in living)
        for user in gone:
            with pytest.raises(UnknownUser):
                vault.get(user, bytes(16))
