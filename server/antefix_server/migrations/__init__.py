"""Changes of the tables, for alembic; run by `antefix_server.storage.migrate`."""
