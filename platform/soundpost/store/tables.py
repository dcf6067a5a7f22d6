"""The SQL tables: the only truth; index, files and messages can be rebuilt from them.

Units: seconds from the start of the recording for `start_s` and `end_s`; wall-clock times are UTC.
Vectors are little-endian bytes: `embeddings.vector` is float32 [D]; `embeddings.frames` is int8
[S, D], one pooled frame vector a second, each value times 127.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from soundpost.errors import InvalidValueError

# SQLite only autoincrements INTEGER; PostgreSQL needs 64 bits for years of windows.
BigId = BigInteger().with_variant(Integer, "sqlite")
Document = JSON().with_variant(JSONB(), "postgresql")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware going in, UTC coming out, on every database.

    Raises InvalidValueError for a naive time: it would silently mean another moment.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times and store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidValueError(value, "a time needs its zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give SQLite's naive times back their zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# A file name is bytes and need not be UTF-8. Python shows a stray byte as a lone surrogate, which
# no database stores; each one is kept as a character of the last private plane instead. NUL, which
# PostgreSQL refuses, can only come from a message that quotes a damaged file.
_STRAY_BYTES = range(0xDC80, 0xDD00)
_TO_STORED = {byte: byte - 0xDC00 + 0x10FF00 for byte in _STRAY_BYTES} | {0: 0xFFFD}
_FROM_STORED = {byte - 0xDC00 + 0x10FF00: byte for byte in _STRAY_BYTES}


class PathText(TypeDecorator[str]):
    """Text that may quote a file name of any bytes, and comes back as the same name."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Store what is not Unicode as private characters."""
        return None if value is None else value.translate(_TO_STORED)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Give the name back as Python's file functions take it."""
        return None if value is None else value.translate(_FROM_STORED)


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Root of the mapped tables."""

    metadata = MetaData(naming_convention=NAMING)


class Source(Table):
    """A named microphone, machine, place or archive."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    cadence_s: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Recording(Table):
    """One content, known by its SHA-256; a file that never became a recording has only a path.

    status: queued, embedding, embedded, failed. A truncated recording is embedded as far as it
    goes, with `error_code` saying why it ends early.
    """

    __tablename__ = "recordings"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"), index=True)
    sha256: Mapped[str | None] = mapped_column(String(64), unique=True)
    path: Mapped[str] = mapped_column(PathText)
    object_key: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    modified_ns: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    duration_s: Mapped[float | None] = mapped_column(Float)
    sample_rate_hz: Mapped[int | None] = mapped_column(Integer)
    channels: Mapped[int | None] = mapped_column(Integer)
    format: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    truncated: Mapped[bool] = mapped_column(default=False)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(PathText)
    # Findings that do not stop it: clipped, silent, non-finite samples; [{"code", "detail"}].
    remarks: Mapped[list[dict[str, Any]]] = mapped_column(Document, default=list)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    source: Mapped[Source] = relationship(lazy="joined", innerjoin=True, viewonly=True)

    __table_args__ = (
        CheckConstraint("status IN ('queued', 'embedding', 'embedded', 'failed')", name="status"),
        Index("ix_recordings_path", "path"),
        # Files that never became a recording: the latest failure of each path.
        Index(
            "uq_recordings_failed_path",
            "path",
            unique=True,
            sqlite_where=text("sha256 IS NULL"),
            postgresql_where=text("sha256 IS NULL"),
        ),
        # People quote these ids: a deleted one must not come to mean another recording.
        {"sqlite_autoincrement": True},
    )


class EncoderModel(Table):
    """The exact weights that made a vector."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(String(64))
    dimension: Mapped[int] = mapped_column(Integer)
    sample_rate_hz: Mapped[int] = mapped_column(Integer)
    window_s: Mapped[float] = mapped_column(Float)
    hop_s: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (UniqueConstraint("name", "revision"),)


class Window(Table):
    """A stretch of a recording; cut the same way for every model of the same window length."""

    __tablename__ = "windows"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    recording_id: Mapped[int] = mapped_column(ForeignKey("recordings.id", ondelete="CASCADE"))
    start_s: Mapped[float] = mapped_column(Float)
    end_s: Mapped[float] = mapped_column(Float)
    acoustics: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)

    __table_args__ = (UniqueConstraint("recording_id", "start_s", "end_s"),)


class Embedding(Table):
    """The vector of a window under a model; its id is the id in the index."""

    __tablename__ = "embeddings"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    window_id: Mapped[int] = mapped_column(ForeignKey("windows.id", ondelete="CASCADE"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    frames: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        UniqueConstraint("window_id", "model_id"),
        Index("ix_embeddings_model_id_id", "model_id", "id"),
        # An id that was deleted must never come back: snapshots and tombstones go by it.
        {"sqlite_autoincrement": True},
    )


class Tag(Table):
    """A sound class that a model hears in a window."""

    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    window_id: Mapped[int] = mapped_column(ForeignKey("windows.id", ondelete="CASCADE"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    label: Mapped[str] = mapped_column(String(100))
    probability: Mapped[float] = mapped_column(Float)

    __table_args__ = (
        UniqueConstraint("window_id", "model_id", "label"),
        Index("ix_tags_label_probability", "label", "probability"),
    )


class Tombstone(Table):
    """An embedding that was deleted; snapshots made before it must not show it.

    Its own id grows with every deletion, so that a reader can ask for what is new.
    """

    __tablename__ = "tombstones"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    embedding_id: Mapped[int] = mapped_column(BigId, unique=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (
        Index("ix_tombstones_model_id_id", "model_id", "id"),
        {"sqlite_autoincrement": True},
    )


class Job(Table):
    """A piece of work; the queue only carries its id.

    state: queued, running, done, failed, cancelled. `key` names the work: no two unfinished jobs
    have the same. A running job belongs to the worker that knows its `lease`, until leased_until.
    Lower `priority` goes first. error_detail holds the traceback of the last failure.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(200))
    queue: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.id"))
    state: Mapped[str] = mapped_column(String(16), default="queued")
    priority: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # When its message was last sent; none was, or the job changed since, where it is null.
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease: Mapped[str | None] = mapped_column(String(32))
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    worker: Mapped[str | None] = mapped_column(String(200))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(PathText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state"
        ),
        Index(
            "uq_jobs_unfinished_key",
            "key",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index("ix_jobs_next", "state", "kind", "priority", "due_at", "id"),
        Index("ix_jobs_source_id_state", "source_id", "state"),
        # A message for a job that was deleted must never start another one.
        {"sqlite_autoincrement": True},
    )


class ServingModel(Table):
    """The model in whose space searches are made: one row, or none while nothing is embedded."""

    __tablename__ = "serving_model"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    since: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class IndexSnapshot(Table):
    """A published index snapshot; its files are what readers open, this says that they are there.

    folder: below the folder of snapshots. embedding_id and tombstone_id: up to where it has read.
    builder: the machine and process that sealed it.
    """

    __tablename__ = "index_snapshots"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    folder: Mapped[str] = mapped_column(String(200))
    embedding_id: Mapped[int] = mapped_column(BigInteger)
    tombstone_id: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    engine: Mapped[str] = mapped_column(String(16))
    layout: Mapped[str] = mapped_column(String(16))
    sealed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    builder: Mapped[str] = mapped_column(String(200))

    __table_args__ = (UniqueConstraint("model_id", "folder"),)


class Lease(Table):
    """A right that one holder has at a time, until `leased_until`; only it knows the token."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    token: Mapped[str] = mapped_column(String(32))
    holder: Mapped[str] = mapped_column(String(200))
    leased_until: Mapped[datetime] = mapped_column(UtcDateTime)
