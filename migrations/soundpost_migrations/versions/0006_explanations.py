"""Explanations: captions with an index of their words, and explanations that were made before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
SQLITE_WORDS = (
    """
    CREATE VIRTUAL TABLE caption_words USING fts5
        (text, content='captions', content_rowid='id', tokenize='porter unicode61')
    """,
    """
    CREATE TRIGGER caption_words_come AFTER INSERT ON captions BEGIN
        INSERT INTO caption_words (rowid, text) VALUES (new.id, new.text);
    END
    """,
    """
    CREATE TRIGGER caption_words_go AFTER DELETE ON captions BEGIN
        INSERT INTO caption_words (caption_words, rowid, text)
            VALUES ('delete', old.id, old.text);
    END
    """,
    """
    CREATE TRIGGER caption_words_change AFTER UPDATE OF id, text ON captions BEGIN
        INSERT INTO caption_words (caption_words, rowid, text)
            VALUES ('delete', old.id, old.text);
        INSERT INTO caption_words (rowid, text) VALUES (new.id, new.text);
    END
    """,
)
POSTGRESQL_WORDS = (
    """
    ALTER TABLE captions ADD COLUMN caption_words tsvector
        GENERATED ALWAYS AS (to_tsvector('english', text)) STORED
    """,
    "CREATE INDEX ix_captions_caption_words ON captions USING gin (caption_words)",
)


def upgrade() -> None:
    """Create the tables."""
    create_captions()
    create_explanations()


def downgrade() -> None:
    """Drop the tables: captions can be made again, findings keep their explanations."""
    op.drop_table("explanations")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE caption_words")
    op.drop_table("captions")


def create_captions() -> None:
    """What is heard in windows, in words that can be searched."""
    op.create_table(
        "captions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("window_id", BIG_ID, nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("captioner", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("similarity", sa.Float()),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("place >= 1", name=op.f("ck_captions_place")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_captions_model_id_models"),
        sa.ForeignKeyConstraint(
            ["window_id"], ["windows.id"], name="fk_captions_window_id_windows", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_captions"),
        sa.UniqueConstraint(
            "window_id",
            "model_id",
            "captioner",
            "revision",
            "place",
            name="uq_captions_window_id_model_id_captioner_revision_place",
        ),
    )
    op.create_index("ix_captions_model_id", "captions", ["model_id"])
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_WORDS if is_sqlite else POSTGRESQL_WORDS:
        op.execute(statement)


def create_explanations() -> None:
    """What was explained before, by what it was made of."""
    op.create_table(
        "explanations",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_explanations"),
    )
    op.create_index("ix_explanations_created_at", "explanations", ["created_at"])
