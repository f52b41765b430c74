"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "records",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("place", sa.LargeBinary, unique=True),
        sa.Column("owner", sa.LargeBinary, nullable=False, index=True),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "pieces",
        sa.Column("record", _ID, sa.ForeignKey("records.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table("belongs", sa.Column("tenant", sa.LargeBinary, primary_key=True))
    if op.get_bind().dialect.name == "postgresql":
        # Ciphertext does not compress; trying costs time on every write.
        op.execute("ALTER TABLE pieces ALTER COLUMN content SET STORAGE EXTERNAL")
