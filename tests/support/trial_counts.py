"""How often the slow tests try what they draw at random: ANTEFIX_THOROUGH=1 asks for all of it."""

import os

THOROUGH = os.environ.get("ANTEFIX_THOROUGH", "") not in ("", "0")


def thorough(often: int, all_of_it: int) -> int:
    """The number for every check, or the one for `make thorough`."""
    return all_of_it if THOROUGH else often
