"""Two devices of one user, and versions that cost no training."""

from pathlib import Path

import torch

from antefix import Prefix
from antefix_client import PersonalModel, Version
from antefix_client.devices import device_changes
from antefix_client.profile.version_history import utc_now
from tests.client.people import KEY
from tests.support import tiny_models


def device(folder: Path) -> PersonalModel:
    """A new profile on the tiny base."""
    return PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama"))


def link(old: PersonalModel, new: PersonalModel) -> None:
    """As two people would who read both screens."""
    new.join(old.admit(new.link_request(), device=new.device), device=old.device)


def learned(model: PersonalModel, value: float) -> Version:
    """A next version, filled with a value."""
    base = model.runtime.base
    prefix = Prefix(torch.full((base.layout.size(2),), value), base.layout, base.fingerprint)
    made = Version(number=0, made=utc_now(), how="learned", base="", digest="")
    return model.runtime.add_version(model.session.profile, prefix, made)


def record(model: PersonalModel) -> bytes:
    """That of the version in use."""
    history = model.session.profile.history
    assert history.newest is not None
    return history.record(history.newest)


def value(model: PersonalModel) -> float:
    """What the version in use is filled with."""
    prefix = model.runtime.prefix
    assert prefix is not None
    return float(prefix.values.flatten()[0])


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files of a profile but its lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def removed(by: PersonalModel, other: PersonalModel) -> bytes:
    """Remove a device; the change."""
    by.remove_device(other.device)
    return made_by(by)[-1]


def made_by(model: PersonalModel) -> list[bytes]:
    """Its changes of the list."""
    return device_changes.pending(model.session.profile)


def follow(model: PersonalModel, *changes: bytes) -> None:
    """Carry changes to a device."""
    model.follow_devices(device_changes.pack(list(changes)))
