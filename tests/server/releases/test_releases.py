"""Releases of a vault: published whole or not at all, promoted, withdrawn, and never under a number twice."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from antefix import FrozenBase, Prefix
from antefix.errors import BaseNotFound, InvalidArgument
from antefix.keys import RecoveryCode
from antefix.loading.source import resolve
from antefix.wire import Release, ReleaseState
from antefix.wire.release import Privacy
from antefix_server.backups import Sources, backup_keys, backup_records, operator_keys, restore
from antefix_server.errors import (
    ReleaseAbsent,
    ReleaseUnsuitable,
    ReleaseWithdrawn,
    VaultDamaged,
)
from antefix_server.releases import Releases
from antefix_server.releases.store import Store
from antefix_server.removal_log.log_file import LogFile
from antefix_server.vault import Vault
from antefix_server.vault.settings import Settings
from tests.sdk.saved_models import save_base
from tests.support.vaults import new_vault, reopen

pytestmark = pytest.mark.slow

CODE = RecoveryCode.generate()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base in two shards."""
    made = save_base(tmp_path_factory.mktemp("bases") / "tiny base", shard_bytes=4000)
    (made / "README.md").write_text("not a part of it")
    (made / "modeling.py").write_text("raise SystemExit")
    (made / "source.json").write_text("{}")
    return made


@pytest.fixture(scope="session")
def shared(folder: Path) -> Path:
    """A shared prefix for it."""
    base = FrozenBase.load(str(folder), progress=False)
    prefix = Prefix(torch.ones(base.layout.size(2)), base.layout, base.fingerprint)
    return prefix.save(folder.parent / "shared.safetensors")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = new_vault(tmp_path / "vault", None, tmp_path / "mirror.db")
    yield made
    made.close()


def public(vault: Vault) -> bytes:
    return vault.identity.releasing.public_key().public_bytes_raw()


def unseen(vault: Vault) -> ReleaseState:
    return ReleaseState(tenant=vault.tenant.hex())


def stored(vault: Vault) -> set[str]:
    return {path.name for path in (vault.folder / "releases" / "files").iterdir()}


def test_a_base_is_published_promoted_and_taken(vault: Vault, folder: Path, shared: Path) -> None:
    releases = Releases(vault)
    with pytest.raises(ReleaseAbsent):
        releases.offer()
    privacy = Privacy(epsilon=2.0, delta=1e-5, rounds=3, noise=1.1, clip=0.5, users=100)
    made = releases.publish(
        folder, shared=shared, sources=["https://a.example/"], note="the first", privacy=privacy
    )
    assert (made.version, made.base.name, made.previous) == (1, "tiny-base", None)
    assert made.base.fingerprint == resolve(str(folder)).fingerprint
    names = [one.name for one in made.files]
    assert "model.safetensors.index.json" in names
    assert not {"README.md", "modeling.py", "source.json"} & set(names)
    assert made.files[0].sources == (f"https://a.example/{names[0]}",)
    assert stored(vault) == set(made.sizes)
    assert releases.current() is None  # nobody uses it before it is promoted
    releases.promote(1)
    seen, taken = unseen(vault).accepting(releases.offer(), public(vault))
    assert taken == made == releases.current()
    for digest, size in made.sizes.items():
        assert releases.file(digest).stat().st_size == size
    assert vault.checkpoint().size == 2
    assert Release.verified(releases.manifest(1), public(vault)) == made
    again = releases.publish(note="the same base, without a shared prefix")
    assert (again.version, again.previous, again.files) == (2, made.digest, made.files)
    releases.promote(2)
    assert seen.accepting(releases.offer(), public(vault))[1] == again


def test_another_shared_prefix_needs_no_base_at_hand(vault: Vault, folder: Path, shared: Path) -> None:
    releases = Releases(vault)
    releases.publish(folder)
    made = releases.publish(shared=shared.read_bytes())  # its shapes are learned from the stored files
    assert made.shared is not None
    base = FrozenBase.load(str(folder), progress=False)
    third = Prefix(torch.zeros(base.layout.size(5)), base.layout, base.fingerprint)
    again = releases.publish(shared=third.to_bytes())
    assert again.base == made.base
    assert stored(vault) >= {made.shared.sha256, *again.sizes}


def test_a_catalogue_base_has_no_files(vault: Vault) -> None:
    made = Releases(vault).publish("smollm2-135m-q4")
    assert (made.base.name, made.files, stored(vault)) == ("smollm2-135m-q4", (), set())


def test_a_prefix_of_another_base_or_shape_is_not_published(
    vault: Vault, folder: Path, shared: Path, tmp_path: Path
) -> None:
    releases = Releases(vault)
    other = save_base(tmp_path / "other", seed=1)
    with pytest.raises(ReleaseUnsuitable, match="the shared prefix is of base"):
        releases.publish(other, shared=shared)
    base = FrozenBase.load(str(folder), progress=False)
    slots = base.layout.slots[:1]
    lying = type(base.layout)(slots)
    liar = Prefix(torch.ones(lying.size(2)), lying, base.fingerprint)
    with pytest.raises(ReleaseUnsuitable, match="the shared prefix has shapes"):
        releases.publish(folder, shared=liar.to_bytes())
    with pytest.raises(ReleaseUnsuitable, match="not usable"):
        releases.publish(folder, shared=b"\x80\x04 a pickle")
    assert releases.list() == []
    assert stored(vault) == set()


def test_what_cannot_be_published_is_said(vault: Vault, folder: Path, tmp_path: Path) -> None:
    releases = Releases(vault)
    with pytest.raises(BaseNotFound):
        releases.publish(tmp_path / "nothing")
    with pytest.raises(ReleaseAbsent):
        releases.publish()
    with pytest.raises(ReleaseUnsuitable, match="sources"):
        releases.publish(folder, sources=["file:///etc/"])
    odd = shutil.copytree(folder, tmp_path / "odd")
    (odd / "tokenizer (1).json").write_text("{}")
    with pytest.raises(ReleaseUnsuitable, match="name is not what devices take"):
        releases.publish(odd)
    (odd / "tokenizer (1).json").unlink()
    (odd / "A.json").write_text("{}")
    (odd / "a.json").write_text("{}")
    with pytest.raises(ReleaseUnsuitable, match=r"take files of the release: .*two files of one name"):
        releases.publish(odd)
    assert stored(vault) == set()
    for note in ("x" * 2001, "\x1b[2J"):
        with pytest.raises(InvalidArgument):
            releases.publish(folder, note=note)
    for change in (releases.promote, releases.withdraw, releases.manifest):
        with pytest.raises(ReleaseAbsent):
            change(1)
    for name in ("00" * 32, "..", "../../keys"):
        with pytest.raises(ReleaseAbsent):
            releases.file(name)


def test_withdrawing_goes_back_to_what_was_good(vault: Vault, folder: Path) -> None:
    releases = Releases(vault)
    for _ in range(3):
        releases.publish(folder)
    releases.promote(3)
    releases.withdraw(2)
    assert releases.current() == releases.list()[2].release
    after = releases.withdraw(3)
    assert after.withdrawn == (2, 3)
    assert after.current is not None
    assert after.current.version == 1
    assert [(one.current, one.withdrawn) for one in releases.list()] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    with pytest.raises(ReleaseWithdrawn):
        releases.promote(3)
    with pytest.raises(ReleaseWithdrawn):
        releases.withdraw(3)
    assert releases.withdraw(1).current is None
    assert releases.offer().release is None
    with pytest.raises(ReleaseAbsent):
        releases.file(releases.list()[0].release.files[0].sha256)
    assert releases.publish(folder).version == 4


def test_old_releases_can_be_deleted_and_their_numbers_stay_used(
    vault: Vault, folder: Path, shared: Path
) -> None:
    releases = Releases(vault)
    first = releases.publish(folder, shared=shared)
    for _ in range(4):
        releases.publish()
    releases.promote(2)
    assert releases.prune(2) == [1, 3]
    assert [one.release.version for one in releases.list()] == [2, 4, 5]
    assert stored(vault) == {one.sha256 for one in first.files}
    assert releases.current() == releases.list()[0].release
    with pytest.raises(ReleaseAbsent):
        releases.promote(1)
    releases.withdraw(1)  # a device may have it
    assert releases.withdraw(2).current is None  # and no earlier one is there
    assert releases.prune(1) == [2, 4]
    assert releases.publish("smollm2-135m-q4").version == 6
    assert releases.prune(1) == [5]
    assert stored(vault) == set()
    with pytest.raises(InvalidArgument):
        releases.prune(0)


def test_it_is_all_there_after_a_start(vault: Vault, folder: Path) -> None:
    releases = Releases(vault)
    made = releases.publish(folder)
    releases.promote(1)
    offer = releases.offer()
    (vault.folder / "releases" / "files" / ("0" * 64)).write_bytes(b"left over")
    reopen(vault)
    releases = Releases(vault)
    assert releases.offer() == offer
    assert stored(vault) == set(made.sizes)


STEPS: dict[str, tuple[object, str]] = {
    "a copy": (os, "replace"),
    "the log": (LogFile, "append"),
    "the end": (Store, "_move"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("call", range(3))
@pytest.mark.parametrize("what", ["publish", "withdraw"])
def test_killed_at_any_step_it_happens_whole_or_not_at_all(
    what: str, step: str, after: bool, call: int, folder: Path, tmp_path: Path
) -> None:
    with new_vault(tmp_path / "vault", None, tmp_path / "mirror.db") as vault:
        releases = Releases(vault)
        releases.publish("smollm2-135m-q4")
        releases.promote(releases.publish("smollm2-135m-q4").version)
    child = os.fork()
    if child == 0:
        try:
            with Vault.open(tmp_path / "vault") as vault:
                releases = Releases(vault)
                killed_at(*STEPS[step], after, call)
                releases.publish(folder) if what == "publish" else releases.withdraw(2)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with Vault.open(tmp_path / "vault") as vault:
        releases = Releases(vault)
        found = releases.list()
        logged = vault.checkpoint().size
        assert logged in (3, 4)
        happened = len(found) == 3 if what == "publish" else found[1].withdrawn
        assert happened == (logged == 4)
        assert stored(vault) == {name for one in found for name in one.release.sizes}
        assert releases.current() == found[0 if found[1].withdrawn else 1].release
        releases.publish(folder)
        announcement = releases.promote(releases.list()[-1].release.version)
        assert announcement.serial == (3 if happened and what == "withdraw" else 2)
        assert not list((vault.folder / "releases" / "next").iterdir())
        assert not (vault.folder / "releases" / "unfinished").exists()


def killed_at(owner: object, name: str, after: bool, call: int) -> None:
    """Let this process die by SIGKILL just before or after a step, at its n-th call."""
    real: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1000))

    def dies(*args: object, **keywords: object) -> object:
        last = next(calls) == call
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keywords)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dies)


def test_a_changed_statement_is_noticed(vault: Vault) -> None:
    releases = Releases(vault)
    releases.publish("smollm2-135m-q4", note="honest")
    releases.promote(1)
    for part in ("versions/1.json", "announcement.json"):
        path = vault.folder / "releases" / part
        genuine = path.read_bytes()
        path.write_bytes(genuine.replace(b"2026", b"2027").replace(b"honest", b"Honest")[:-9])
        with pytest.raises(VaultDamaged, match="is damaged"):
            Releases(vault).list()
        path.write_bytes(genuine)
    assert Releases(vault).current() is not None


def test_a_missing_file_is_not_promoted(vault: Vault, folder: Path) -> None:
    releases = Releases(vault)
    made = releases.publish(folder)
    (vault.folder / "releases" / "files" / made.files[0].sha256).unlink()
    with pytest.raises(VaultDamaged, match="missing or cut off"):
        releases.promote(1)
    releases.promote(releases.publish(folder).version)


@pytest.mark.parametrize("with_folder", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_devices_follow_a_restored_server(
    lost: bool, with_folder: bool, folder: Path, tmp_path: Path
) -> None:
    """Releases are in no backup: the operator publishes again, or puts a copy of the folder back."""
    mirror = tmp_path / "mirror.db"
    with Vault.create(tmp_path / "vault", operator_keys(CODE).public, Settings(mirror=mirror)) as vault:
        releases = Releases(vault)
        first = releases.publish(folder)
        releases.promote(1)
        backup_keys(vault, tmp_path / "keys")
        backup_records(vault, tmp_path / "records")
        shutil.copytree(vault.folder / "releases", tmp_path / "copy")
        releases.publish(folder)
        releases.promote(2)
        seen, _ = unseen(vault).accepting(releases.offer(), public(vault))
    sources = Sources(
        tmp_path / "records", tmp_path / "keys", None if lost else mirror, accept_lost_removals=lost
    )
    restore(tmp_path / "again", sources, CODE)
    if with_folder:
        shutil.copytree(tmp_path / "copy", tmp_path / "again" / "releases")
    with Vault.open(tmp_path / "again") as vault:
        releases = Releases(vault)
        with pytest.raises(ReleaseAbsent):
            releases.offer()  # an old announcement is not given out
        made = first if with_folder else releases.publish(folder)
        assert made.version == 1 if with_folder else made.version > 2
        releases.promote(made.version)
        assert seen.accepting(releases.offer(), public(vault))[1] == made
