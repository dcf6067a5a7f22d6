"""Index snapshots, leases, and the model that serves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

# Until now searches were made with whatever was configured; the fullest space is the best guess.
FULLEST = """
    INSERT INTO serving_model (id, model_id, since)
    SELECT 1, model_id, CURRENT_TIMESTAMP FROM embeddings
    GROUP BY model_id ORDER BY count(*) DESC, model_id DESC LIMIT 1
"""


def upgrade() -> None:
    """Create the tables; the model with most vectors serves."""
    create_serving_model()
    create_index_snapshots()
    create_leases()
    op.execute(FULLEST)


def downgrade() -> None:
    """Drop the tables: snapshots are found in their folder, and searches go by the settings."""
    for table in ("leases", "index_snapshots", "serving_model"):
        op.drop_table(table)


def create_serving_model() -> None:
    """The one model in whose space searches are made."""
    op.create_table(
        "serving_model",
        sa.Column("id", BIG_ID, nullable=False, autoincrement=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_serving_model_one_row")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_serving_model_model_id_models"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_serving_model"),
    )


def create_index_snapshots() -> None:
    """What builders have published."""
    op.create_table(
        "index_snapshots",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("folder", sa.String(200), nullable=False),
        sa.Column("embedding_id", sa.BigInteger(), nullable=False),
        sa.Column("tombstone_id", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("engine", sa.String(16), nullable=False),
        sa.Column("layout", sa.String(16), nullable=False),
        sa.Column("sealed_at", TIME, nullable=False),
        sa.Column("builder", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_index_snapshots_model_id_models"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_index_snapshots"),
        sa.UniqueConstraint("model_id", "folder", name="uq_index_snapshots_model_id_folder"),
    )


def create_leases() -> None:
    """Rights that one process has at a time."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("leased_until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
