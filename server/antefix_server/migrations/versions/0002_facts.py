"""What is known of users besides their records."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "facts",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("owner", sa.LargeBinary, nullable=False, index=True),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("mark", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("hint", sa.LargeBinary),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
