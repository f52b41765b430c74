"""Former names and places of public things work for one release, and say what to write instead."""

import importlib

import pytest

from antefix import TrainingPlan
from antefix.wire import Invitation

NAMES = [
    ("antefix.errors", "EmptyText", "ExampleError"),
    ("antefix.errors", "NoExamples", "ExampleError"),
    ("antefix.records", "Cover", "RecordHeader"),
    ("antefix_server.vault", "Head", "RecordMeta"),
    ("antefix.records", "Edition", "RecordVersion"),
    ("antefix.records", "FIRST", "NO_PREVIOUS"),
    ("antefix.records", "Known", "Expected"),
    ("antefix.records", "cover_of", "read_header"),
    ("antefix.grants", "granted", "issue_grant"),
    ("antefix.wire", "Seen", "ReleaseState"),
    ("antefix.rounds", "clipped", "clip_to_norm"),
    ("antefix_client.membership", "Place", "ServerLink"),
    ("antefix_client.membership", "Synced", "SyncResult"),
    ("antefix_client.granting", "Granted", "ActiveGrant"),
    ("antefix_client.errors", "FetchError", "MembershipError"),
    ("antefix_client.errors", "VersionRefused", "RecordMismatch"),
]
ATTRIBUTES = [
    ("antefix.grants", "Grant", "by", "from_device"),
    ("antefix.grants", "Grant", "bound_of", "associated_data_of"),
    ("antefix.keys", "DeviceChange", "introduced", "trust_initial"),
    ("antefix.keys", "DeviceList", "introduced", "trust_initial"),
    ("antefix.keys", "DeviceList", "pinned", "from_digest"),
]
MODULES = [
    ("antefix_server.strategy", "antefix_server.rounds.runner", "PrefixRounds"),
    ("antefix_server.privacy", "antefix_server.rounds.privacy", "Privacy"),
    ("antefix_server.epochs", "antefix_server.grants.epochs", "Epochs"),
]


@pytest.mark.parametrize(("module", "former", "name"), NAMES)
def test_a_former_name_warns_and_is_the_same(module: str, former: str, name: str) -> None:
    place = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{former} is called {module}.{name};") as warned:
        assert getattr(place, former) is getattr(place, name)
    assert warned[0].filename == __file__


@pytest.mark.parametrize(("module", "kind", "former", "name"), ATTRIBUTES)
def test_a_former_method_warns_and_is_the_same(module: str, kind: str, former: str, name: str) -> None:
    owner = getattr(importlib.import_module(module), kind)
    with pytest.warns(DeprecationWarning, match=f"{kind}.{former} is called {kind}.{name};") as warned:
        assert getattr(owner, former) == getattr(owner, name)
    assert warned[0].filename == __file__


def test_a_former_property_warns_and_is_the_same() -> None:
    invitation = Invitation.fresh(bytes(16))
    with pytest.warns(DeprecationWarning, match=r"Invitation\.mark is called Invitation\.lookup_id;"):
        assert invitation.mark == invitation.lookup_id


@pytest.mark.parametrize(("former", "name"), [("alone", "per-user"), ("stacked", "shared")])
def test_a_former_way_of_batching_warns_and_is_the_same(former: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"batching={former!r} is called {name!r};") as warned:
        plan = TrainingPlan(batching=former)  # type: ignore[arg-type]
    assert plan == TrainingPlan.model_validate({"batching": name})
    assert warned[0].filename == __file__


@pytest.mark.parametrize(("former", "module", "name"), MODULES)
def test_a_former_module_warns_and_has_the_same(former: str, module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{former} has moved to {module};") as warned:
        found = getattr(importlib.import_module(former), name)
    assert found is getattr(importlib.import_module(module), name)
    assert warned[0].filename == __file__


def test_a_name_that_never_was_is_pythons_own_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'antefix\.records' has no attribute 'Covers'"):
        _ = importlib.import_module("antefix.records").Covers
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'antefix\._record'"):
        importlib.import_module("antefix._record")
