"""The command `antefix`.

Exit codes: 0 done, 1 refused, 2 wrong usage or a missing extra, 130 interrupted.
Results go to stdout, errors and progress to stderr. Imports no torch before a command needs it.
"""

from __future__ import annotations

from antefix.common.extras import imported_by

with imported_by("antefix"):
    from antefix.common.cli import application, run_command
    from antefix_client.cli import devices, grants, profile, receipts, serve, server, text

ABOUT = "A personal model on this device: it remembers, learns, and writes like you."
app = application("antefix", ABOUT, completion=True)
profile.register(app)
text.register(app)
serve.register(app)
receipts.register(app)
devices.register(app)
server.register(app)
grants.register(app)


def main() -> None:
    """Run `antefix`."""
    run_command(app)
