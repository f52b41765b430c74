"""The command `antefix`.

Exit codes: 0 done, 1 refused, 2 wrong usage or a missing extra, 130 interrupted.
Results go to stdout, errors and progress to stderr. Imports no torch before a command needs it.
"""

from __future__ import annotations

from antefix._extras import imported_by

with imported_by("antefix"):
    from antefix._command import application
    from antefix_client import (
        _devices_cli,
        _granting_cli,
        _keeping_cli,
        _receipt_cli,
        _serve_cli,
        _server_cli,
        _writing_cli,
    )

ABOUT = "A personal model on this device: it remembers, learns, and writes like you."
app = application("antefix", ABOUT, completion=True)
_keeping_cli.register(app)
_writing_cli.register(app)
_serve_cli.register(app)
_receipt_cli.register(app)
_devices_cli.register(app)
_server_cli.register(app)
_granting_cli.register(app)


def main() -> None:
    """Run `antefix`."""
    app(prog_name="antefix")
