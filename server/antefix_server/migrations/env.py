"""Alembic's entry: runs on the connection that `antefix_server.storage.migrate` gives it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
