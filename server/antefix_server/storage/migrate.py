"""Brings a database to the newest tables."""

from __future__ import annotations

from importlib import resources

from sqlalchemy import inspect, text

from antefix_server.errors import VaultDamaged
from antefix_server.storage.database import Database

NEWEST = "0002"


def upgrade(database: Database) -> None:
    """Make or change the tables, in one transaction.

    Raises:
        VaultDamaged: the tables are of a newer version of Antefix.
    """
    version = revision(database)
    if version == NEWEST:
        return
    if version is not None and version > NEWEST:
        raise VaultDamaged(
            f"{database.name} has tables of version {version}, known is {NEWEST}", "update Antefix"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("antefix_server") / "migrations"))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revision(database: Database) -> str | None:
    """Version of the tables; None where there are none."""
    with database.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if version is None else str(version)
