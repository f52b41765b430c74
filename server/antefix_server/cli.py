"""The command `antefix-server`.

Exit codes: 0 done, 1 refused, 2 wrong usage or a missing extra, 130 interrupted.
Results go to stdout, progress and errors to stderr. Nothing of the server is imported by help.
"""

from __future__ import annotations

from antefix._extras import imported_by

with imported_by("antefix-server"):
    from antefix._command import application
    from antefix_server import (
        _base_cli,
        _bench_cli,
        _federate_cli,
        _grants_cli,
        _operator_cli,
        _up_cli,
        _users_cli,
    )
    from antefix_server._opening import place

app = application(
    "antefix-server", "The server of Antefix: it keeps users' sealed prefixes, and removes them."
)
app.callback()(place)
_operator_cli.register(app)
_up_cli.register(app)
_users_cli.register(app)
_grants_cli.register(app)
_base_cli.register(app)
_federate_cli.register(app)
_bench_cli.register(app)


def main() -> None:
    """Run `antefix-server`."""
    app(prog_name="antefix-server")
