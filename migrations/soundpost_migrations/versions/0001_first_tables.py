"""Sources, recordings, windows, embeddings, models, tags and tombstones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# Spelled out here: a migration must not change when the tables of the code do.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
STATUSES = "status IN ('queued', 'embedding', 'embedded', 'failed')"


def upgrade() -> None:
    """Create the tables, those that are pointed to first."""
    create_sources()
    create_models()
    create_recordings()
    create_windows()
    create_embeddings()
    create_tags()
    create_tombstones()


def downgrade() -> None:
    """Drop everything, indexes included."""
    for table in (
        "tombstones",
        "tags",
        "embeddings",
        "windows",
        "recordings",
        "models",
        "sources",
    ):
        op.drop_table(table)


def create_sources() -> None:
    """Named microphones, machines, places and archives."""
    op.create_table(
        "sources",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("cadence_s", sa.Float()),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sources"),
        sa.UniqueConstraint("name", name="uq_sources_name"),
    )


def create_models() -> None:
    """The weights that make vectors."""
    op.create_table(
        "models",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("sample_rate_hz", sa.Integer(), nullable=False),
        sa.Column("window_s", sa.Float(), nullable=False),
        sa.Column("hop_s", sa.Float(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", "revision", name="uq_models_name_revision"),
    )


def create_recordings() -> None:
    """One row a content, and one a file that failed."""
    op.create_table(
        "recordings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("modified_ns", sa.BigInteger()),
        sa.Column("started_at", TIME),
        sa.Column("duration_s", sa.Float()),
        sa.Column("sample_rate_hz", sa.Integer()),
        sa.Column("channels", sa.Integer()),
        sa.Column("format", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("remarks", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(STATUSES, name=op.f("ck_recordings_status")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="fk_recordings_source_id_sources"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_recordings"),
        sa.UniqueConstraint("sha256", name="uq_recordings_sha256"),
        sqlite_autoincrement=True,
    )
    for column in ("path", "source_id", "started_at", "status"):
        op.create_index(f"ix_recordings_{column}", "recordings", [column])
    op.create_index(
        "uq_recordings_failed_path",
        "recordings",
        ["path"],
        unique=True,
        sqlite_where=sa.text("sha256 IS NULL"),
        postgresql_where=sa.text("sha256 IS NULL"),
    )


def create_windows() -> None:
    """Stretches of recordings."""
    op.create_table(
        "windows",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("recording_id", BIG_ID, nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("acoustics", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name="fk_windows_recording_id_recordings",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_windows"),
        sa.UniqueConstraint(
            "recording_id", "start_s", "end_s", name="uq_windows_recording_id_start_s_end_s"
        ),
    )


def create_embeddings() -> None:
    """Vectors, whose ids are never used twice."""
    op.create_table(
        "embeddings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("window_id", BIG_ID, nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"],
            ["windows.id"],
            name="fk_embeddings_window_id_windows",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_embeddings_model_id_models"),
        sa.PrimaryKeyConstraint("id", name="pk_embeddings"),
        sa.UniqueConstraint("window_id", "model_id", name="uq_embeddings_window_id_model_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_embeddings_model_id_id", "embeddings", ["model_id", "id"])
    if op.get_bind().dialect.name == "postgresql":
        # Vectors do not compress: trying costs time on every write.
        for column in ("vector", "frames"):
            op.execute(f"ALTER TABLE embeddings ALTER COLUMN {column} SET STORAGE EXTERNAL")


def create_tags() -> None:
    """Sound classes heard in windows."""
    op.create_table(
        "tags",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("window_id", BIG_ID, nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_id"], ["windows.id"], name="fk_tags_window_id_windows", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_tags_model_id_models"),
        sa.PrimaryKeyConstraint("id", name="pk_tags"),
        sa.UniqueConstraint(
            "window_id", "model_id", "label", name="uq_tags_window_id_model_id_label"
        ),
    )
    op.create_index("ix_tags_label_probability", "tags", ["label", "probability"])


def create_tombstones() -> None:
    """Embeddings that were deleted."""
    op.create_table(
        "tombstones",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("embedding_id", BIG_ID, nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("deleted_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_tombstones_model_id_models"),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
        sa.UniqueConstraint("embedding_id", name="uq_tombstones_embedding_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tombstones_model_id_id", "tombstones", ["model_id", "id"])
