"""Alembic's entry: runs on the connection that `antefix_server._tables` gives it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
