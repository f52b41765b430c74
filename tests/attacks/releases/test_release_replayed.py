"""A genuine announcement of yesterday, given again: a withdrawn release would come back."""

import pytest

from antefix.errors import ReleaseRefused
from tests.support.releases import a_release, offered, public, unseen

BROKEN, MENDED = a_release(1), a_release(2)


def test_an_older_announcement_is_refused() -> None:
    old = offered(BROKEN, 7)
    seen, _ = unseen().accepting(old, public())
    seen, _ = seen.accepting(offered(MENDED, 8, withdrawn=(1,)), public())
    with pytest.raises(ReleaseRefused, match="announcement is number 7, this device has seen 8"):
        seen.accepting(old, public())


def test_two_announcements_of_one_number_are_refused() -> None:
    """A server that tells two devices two things, or one that was put back from an old copy."""
    seen, _ = unseen().accepting(offered(BROKEN, 7), public())
    with pytest.raises(ReleaseRefused, match="two announcements of number 7"):
        seen.accepting(offered(MENDED, 7), public())


def test_a_withdrawn_release_is_not_used_whoever_gives_it() -> None:
    seen, _ = unseen().accepting(offered(BROKEN, 7), public())
    seen, _ = seen.accepting(offered(None, 8, withdrawn=(1,)), public())
    with pytest.raises(ReleaseRefused, match="version 1 is withdrawn"):
        seen.require_usable(BROKEN)


def test_nothing_is_learned_from_what_is_refused() -> None:
    seen, _ = unseen().accepting(offered(BROKEN, 7), public())
    forged = offered(MENDED, 900, signer="thief")
    with pytest.raises(ReleaseRefused):
        seen.accepting(forged, public())
    assert seen.accepting(offered(MENDED, 8), public())[1] == MENDED
