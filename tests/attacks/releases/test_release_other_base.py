"""A release of another base: every prefix of the device would be worth nothing on it."""

import pytest

from antefix.errors import ReleaseRefused
from antefix.wire.release import BaseReference
from tests.support.releases import BASE, a_release, offered, public, unseen

OTHER = a_release(2, base=BaseReference(name="tiny", fingerprint="00" * 32))  # the name is the same


def test_another_base_than_the_device_has_is_refused() -> None:
    seen = unseen(base=BASE)
    assert seen.accepting(offered(a_release()), public())[1] == a_release()
    with pytest.raises(ReleaseRefused, match=r"its base is 0000.*the prefixes of this device are for cdcd"):
        seen.accepting(offered(OTHER), public())
    with pytest.raises(ReleaseRefused, match="its base is 0000"):
        seen.require_usable(OTHER)


def test_a_device_without_prefixes_takes_any() -> None:
    assert unseen().accepting(offered(OTHER), public())[1] == OTHER
