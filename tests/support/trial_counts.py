"""How often the slow tests try what they draw at random: ANTEFIX_THOROUGH=1 asks for all of it."""

import os

THOROUGH = os.environ.get("ANTEFIX_THOROUGH", "") not in ("", "0")


def thorough(usual: int, largest: int) -> int:
    """The number for every check, or the one for `make thorough`."""
    return largest if THOROUGH else usual


SOAK_SECONDS = thorough(90, 300)
SERVER_KILLS = thorough(60, 200)  # of a server that writes records
PROFILE_KILLS = thorough(30, 100)  # of a device that remembers and learns
ROUND_KILLS = int(os.environ.get("ANTEFIX_KILLS", "5"))  # one of each program that a round needs
RUN_KILLS = int(os.environ.get("ANTEFIX_RUN_KILLS", "4"))  # of a simulated run
FORGED_RECORDS = thorough(40_000, 200_000)
