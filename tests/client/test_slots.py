"""What unlocks a profile."""

from pathlib import Path

import pytest

from antefix._sealing import Secret
from antefix.errors import InvalidArgument
from antefix.keys import Cost
from antefix_client import Keyring, PersonalModel, _slots
from antefix_client._slots import dismiss, new_slot, root_of
from antefix_client.errors import UnlockRefused
from tests import tiny
from tests.client.people import KEY
from tests.sealed import some_bytes

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
    monkeypatch.setattr(_slots, "_keyring", lambda: found)
    return found


def root() -> Secret:
    return Secret(bytearray(ROOT))


@pytest.mark.parametrize("unlock", ["words", KEY, lambda: "words", lambda: KEY])
def test_what_it_was_made_with_opens_it(unlock: _slots.Unlock) -> None:
    slot = new_slot(root(), PROFILE, unlock, CHEAP)
    assert ROOT.hex() not in slot.sealed
    assert bytes(root_of([slot], PROFILE, unlock).data) == ROOT
    for other in ("Words", some_bytes("other", 32)):
        with pytest.raises(UnlockRefused):
            root_of([slot], PROFILE, other)
    with pytest.raises(UnlockRefused):
        root_of([slot], some_bytes("another profile", 16), unlock)


def test_the_keyring_holds_a_key_and_not_the_root(drawer: Drawer) -> None:
    slot = new_slot(root(), PROFILE, Keyring("my app"))
    assert list(drawer.kept) == [("my app", PROFILE.hex())]
    assert ROOT.hex() not in str(drawer.kept)
    assert bytes(root_of([slot], PROFILE, Keyring("my app")).data) == ROOT
    with pytest.raises(UnlockRefused):
        root_of([slot], PROFILE, Keyring("another"))
    dismiss(slot, PROFILE)
    assert drawer.kept == {}
    with pytest.raises(UnlockRefused):
        root_of([slot], PROFILE, Keyring("my app"))


def test_a_damaged_slot_or_entry_opens_nothing(drawer: Drawer) -> None:
    slot = new_slot(root(), PROFILE, Keyring())
    for sealed in ("", "zz", slot.sealed[:-2], "00" + slot.sealed[2:]):
        with pytest.raises(UnlockRefused):
            root_of([slot.model_copy(update={"sealed": sealed})], PROFILE, Keyring())
    drawer.kept["antefix", PROFILE.hex()] = "not base64!"
    with pytest.raises(UnlockRefused):
        root_of([slot], PROFILE, Keyring())


@pytest.mark.parametrize("unlock", ["", b"short", bytes(33), None, 7, lambda: None])
def test_what_could_never_unlock_is_said_so(unlock: object) -> None:
    for call in (lambda: new_slot(root(), PROFILE, unlock), lambda: root_of([], PROFILE, unlock)):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            call()


def test_a_profile_goes_from_one_to_the_other(tmp_path: Path, drawer: Drawer) -> None:
    folder, base = tmp_path / "profile", tiny.base("llama")
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
