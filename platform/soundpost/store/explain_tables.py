"""The tables of words: captions of what is heard, and explanations of how two excerpts differ.

The words of captions are indexed by each database in its own way, which no mapping shows: SQLite in
a full-text table that triggers keep in step, PostgreSQL in a generated column. Everything of these
indexes has `caption_words` in its name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    event,
)
from sqlalchemy.orm import Mapped, mapped_column

from soundpost.store.tables import BigId, Document, Table, UtcDateTime, utc_now


class Caption(Table):
    """What a captioner says of a window, in one of several wordings.

    model: the encoder whose frames were heard. captioner and revision: the weights that wrote it.
    place: 1 for the best, and so on. similarity: the cosine of text and window in the encoder's
    space.
    """

    __tablename__ = "captions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    window_id: Mapped[int] = mapped_column(ForeignKey("windows.id", ondelete="CASCADE"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    captioner: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(String(64))
    place: Mapped[int] = mapped_column(Integer)
    text: Mapped[str] = mapped_column(Text)
    similarity: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (
        CheckConstraint("place >= 1", name="place"),
        UniqueConstraint("window_id", "model_id", "captioner", "revision", "place"),
        Index("ix_captions_model_id", "model_id"),
    )


class StoredExplanation(Table):
    """An explanation that was made before; key: what it was made of, and by what.

    A cache: every row can be made again, and old ones are removed.
    """

    __tablename__ = "explanations"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any]] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (Index("ix_explanations_created_at", "created_at"),)


# The same statements are in the migration, which must not change when these do.
_SQLITE_WORDS = (
    (
        "CREATE VIRTUAL TABLE caption_words USING fts5"
        " (text, content='captions', content_rowid='id', tokenize='porter unicode61')"
    ),
    (
        "CREATE TRIGGER caption_words_come AFTER INSERT ON captions BEGIN"
        " INSERT INTO caption_words (rowid, text) VALUES (new.id, new.text); END"
    ),
    (
        "CREATE TRIGGER caption_words_go AFTER DELETE ON captions BEGIN"
        " INSERT INTO caption_words (caption_words, rowid, text)"
        " VALUES ('delete', old.id, old.text); END"
    ),
    (
        "CREATE TRIGGER caption_words_change AFTER UPDATE OF id, text ON captions BEGIN"
        " INSERT INTO caption_words (caption_words, rowid, text)"
        " VALUES ('delete', old.id, old.text);"
        " INSERT INTO caption_words (rowid, text) VALUES (new.id, new.text); END"
    ),
)
_POSTGRESQL_WORDS = (
    (
        "ALTER TABLE captions ADD COLUMN caption_words tsvector"
        " GENERATED ALWAYS AS (to_tsvector('english', text)) STORED"
    ),
    "CREATE INDEX ix_captions_caption_words ON captions USING gin (caption_words)",
)


def _make_words(target: Any, connection: Connection, **_: Any) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in _SQLITE_WORDS if is_sqlite else _POSTGRESQL_WORDS:
        connection.exec_driver_sql(statement)


def _drop_words(target: Any, connection: Connection, **_: Any) -> None:
    # PostgreSQL's go with the table.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS caption_words")


event.listen(Caption.__table__, "after_create", _make_words)
event.listen(Caption.__table__, "before_drop", _drop_words)


def is_mapped(name: str | None) -> bool:
    """Whether something in the database is to be found among the mapped tables."""
    return name is None or "caption_words" not in name
