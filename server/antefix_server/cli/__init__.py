"""The command `antefix-server`.

Exit codes: 0 done, 1 refused, 2 wrong usage or a missing extra, 130 interrupted.
Results go to stdout, progress and errors to stderr. Nothing of the server is imported by help.
"""

from __future__ import annotations

from antefix.common.extras import imported_by

with imported_by("antefix-server"):
    from antefix.common.cli import application, run_command
    from antefix_server.cli import bench, federate, grants, operator, releases, up, users
    from antefix_server.cli.data_access import place

app = application(
    "antefix-server", "The server of Antefix: it keeps users' sealed prefixes, and removes them."
)
app.callback()(place)
operator.register(app)
up.register(app)
users.register(app)
grants.register(app)
releases.register(app)
federate.register(app)
bench.register(app)


def main() -> None:
    """Run `antefix-server`."""
    run_command(app)
