"""`python -m antefix_server.processes.child PROGRAM …`: becomes that program, which ends with its parent.

Without it, a supervisor that is killed would leave the server's parts behind, and the next start would find
the vault and the ports taken. Linux alone has this; elsewhere they stay until somebody stops them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, then become the program."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
