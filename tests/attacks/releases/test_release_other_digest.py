"""Another release under a version that is known: what one device checked must be what all devices use."""

import pytest

from antefix.errors import ReleaseRefused
from tests.support.releases import a_file, a_release, offered, public, unseen

KNOWN = a_release(3, files=(a_file(),))
OTHER = a_release(3, files=(a_file(sha256="00" * 32),))


def test_another_digest_for_a_known_version_is_refused() -> None:
    seen, _ = unseen().accepting(offered(KNOWN, 1), public())
    with pytest.raises(ReleaseRefused, match="version 3 has digest"):
        seen.accepting(offered(OTHER, 2), public())
    with pytest.raises(ReleaseRefused, match="version 3 has digest"):
        seen.require_usable(OTHER)  # as it comes with a round, without an announcement


def test_it_is_remembered_while_others_are_current() -> None:
    seen, _ = unseen().accepting(offered(KNOWN, 1), public())
    for number in range(4, 20):
        seen, _ = seen.accepting(offered(a_release(number), number), public())
    with pytest.raises(ReleaseRefused, match="version 3 has digest"):
        seen.accepting(offered(OTHER, 50), public())
    assert seen.accepting(offered(KNOWN, 50), public())[1] == KNOWN
