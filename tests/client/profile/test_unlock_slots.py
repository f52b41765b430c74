"""What unlocks a profile."""

from pathlib import Path

import pytest

from antefix.crypto.aead import SecretBytes
from antefix.errors import InvalidArgument
from antefix.keys import Cost
from antefix_client import Keyring, PersonalModel
from antefix_client.errors import ProfileFull, UnlockRefused
from antefix_client.profile import unlock_slots
from antefix_client.profile.manifest import ProfileManifest
from antefix_client.profile.unlock_slots import new_slot, open_root_key, revoke
from tests.client.people import KEY
from tests.support import tiny_models
from tests.support.full_disk import full_disk
from tests.support.records import some_bytes

CHEAP = Cost(memory_kib=19 * 1024, iterations=2, lanes=1)
PROFILE = some_bytes("profile", 16)
ROOT = some_bytes("root", 32)


class Drawer:
    """A keyring in memory, with the calls of the package."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, name: str, value: str) -> None:
        self.kept[service, name] = value

    def get_password(self, service: str, name: str) -> str | None:
        return self.kept.get((service, name))

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    found = Drawer()
    monkeypatch.setattr(unlock_slots, "_keyring", lambda: found)
    return found


def root() -> SecretBytes:
    return SecretBytes(bytearray(ROOT))


@pytest.mark.parametrize("unlock", ["words", KEY, lambda: "words", lambda: KEY])
def test_what_it_was_made_with_opens_it(unlock: unlock_slots.Unlock) -> None:
    slot = new_slot(root(), PROFILE, unlock, CHEAP)
    assert ROOT.hex() not in slot.sealed
    assert bytes(open_root_key([slot], PROFILE, unlock).data) == ROOT
    for other in ("Words", some_bytes("other", 32)):
        with pytest.raises(UnlockRefused):
            open_root_key([slot], PROFILE, other)
    with pytest.raises(UnlockRefused):
        open_root_key([slot], some_bytes("another profile", 16), unlock)


def test_the_keyring_holds_a_key_and_not_the_root(drawer: Drawer) -> None:
    slot = new_slot(root(), PROFILE, Keyring("my app"))
    assert list(drawer.kept) == [("my app", f"{PROFILE.hex()}-{slot.entry}")]
    assert ROOT.hex() not in str(drawer.kept)
    assert bytes(open_root_key([slot], PROFILE, Keyring("my app")).data) == ROOT
    with pytest.raises(UnlockRefused):
        open_root_key([slot], PROFILE, Keyring("another"))
    revoke(slot, PROFILE)
    assert drawer.kept == {}
    with pytest.raises(UnlockRefused):
        open_root_key([slot], PROFILE, Keyring("my app"))


def test_a_damaged_slot_or_entry_opens_nothing(drawer: Drawer) -> None:
    slot = new_slot(root(), PROFILE, Keyring())
    for sealed in ("", "zz", slot.sealed[:-2], "00" + slot.sealed[2:]):
        with pytest.raises(UnlockRefused):
            open_root_key([slot.model_copy(update={"sealed": sealed})], PROFILE, Keyring())
    drawer.kept["antefix", f"{PROFILE.hex()}-{slot.entry}"] = "not base64!"
    with pytest.raises(UnlockRefused):
        open_root_key([slot], PROFILE, Keyring())


@pytest.mark.parametrize("unlock", ["", b"short", bytes(33), None, 7, lambda: None])
def test_what_could_never_unlock_is_said_so(unlock: object) -> None:
    for call in (lambda: new_slot(root(), PROFILE, unlock), lambda: open_root_key([], PROFILE, unlock)):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            call()


def test_a_profile_goes_from_one_to_the_other(tmp_path: Path, drawer: Drawer) -> None:
    folder, base = tmp_path / "profile", tiny_models.base("llama")
    with PersonalModel.create(folder, unlock=Keyring(), base=base) as model:
        model.remember(["one"])
        model.change_unlock("words", cost=CHEAP)
        assert drawer.kept == {}
    with pytest.raises(UnlockRefused):
        PersonalModel.open(folder, unlock=Keyring(), base=base)
    with PersonalModel.open(folder, unlock="words", base=base) as model:
        model.change_unlock(Keyring())
    with PersonalModel.open(folder, unlock=Keyring(), base=base) as model:
        assert len(model.texts()) == 1
        model.forget()
    assert drawer.kept == {}


def test_another_key_in_the_keyring_replaces_none_in_use(
    drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a full disk nor a kill between the two writes loses the profile."""
    folder, base = tmp_path / "profile", tiny_models.base("llama")
    with PersonalModel.create(folder, unlock=Keyring(), base=base) as model:
        model.remember(["one"])
        before = (folder / "profile.json").read_bytes()
        with full_disk(16), pytest.raises(ProfileFull):
            model.change_unlock(Keyring())
        assert len(drawer.kept) == 1
        kept = dict(drawer.kept)
        monkeypatch.setattr(ProfileManifest, "write", killed)
        monkeypatch.setattr(unlock_slots, "revoke", killed)
        with pytest.raises(KeyboardInterrupt):
            model.change_unlock(Keyring())
        monkeypatch.undo()
    assert (folder / "profile.json").read_bytes() == before
    monkeypatch.setattr(unlock_slots, "_keyring", lambda: drawer)
    assert kept.items() <= drawer.kept.items()
    with PersonalModel.open(folder, unlock=Keyring(), base=base) as again:
        assert len(again.texts()) == 1
        again.change_unlock(Keyring())
    assert not kept.keys() & drawer.kept.keys()  # the old one goes once the new one is on the disk
    PersonalModel.open(folder, unlock=Keyring(), base=base).close()


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_slot_without_a_name_of_its_own_still_opens(drawer: Drawer) -> None:
    """As profiles had it before."""
    slot = new_slot(root(), PROFILE, Keyring())
    drawer.kept["antefix", PROFILE.hex()] = drawer.kept.pop(("antefix", f"{PROFILE.hex()}-{slot.entry}"))
    old = slot.model_copy(update={"entry": None})
    assert bytes(open_root_key([old], PROFILE, Keyring()).data) == ROOT
    revoke(old, PROFILE)
    assert drawer.kept == {}
