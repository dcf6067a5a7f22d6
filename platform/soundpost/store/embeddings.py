"""Embeddings: vectors in and out of the store, by the id that is also their id in the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select, delete, func, select, text
from sqlalchemy.orm import Session, aliased

from soundpost.store.clock import overlaps
from soundpost.store.tables import (
    Embedding,
    EncoderModel,
    Recording,
    Source,
    Tag,
    Tombstone,
    Window,
)

FloatArray = NDArray[np.float32]
FrameArray = NDArray[np.int8]
IdArray = NDArray[np.int64]

FRAME_SCALE = 127
# SQLite takes 32766 values in a statement; smaller lists keep its plan short.
_IDS_A_QUERY = 1000
# Any number will do, as long as nothing else in the database uses it.
_ID_ORDER_LOCK = 7_305_011


@dataclass(frozen=True, eq=False)
class EmbeddingDetail:
    """Everything a search result shows of one embedding.

    frames: int8 [S, D], one a second, times 127. tags: (label, probability), likeliest first.
    start_s and end_s are seconds from the start of the recording.
    """

    embedding_id: int
    model_id: int
    window_id: int
    start_s: float
    end_s: float
    acoustics: dict[str, Any]
    frames: FrameArray
    tags: tuple[tuple[str, float], ...]
    recording_id: int
    source: str
    timezone: str
    path: str
    object_key: str | None
    sha256: str | None
    size_bytes: int | None
    modified_ns: int | None
    started_at: datetime | None
    duration_s: float | None


class Span(NamedTuple):
    """Where the window of an embedding lies: seconds from the start of its recording."""

    embedding_id: int
    recording_id: int
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The windows around some embeddings, those of one embedding in the order of time.

    R rows. centres [R]: the embedding that a row lies around, centre_starts_s and centre_ends_s [R]
    where its window lies in the recording, starts_s [R] where the row's begins. vectors [R, D].
    frames int8 [sum(seconds), D]: those of all rows, one after the other; seconds [R] how many.
    """

    centres: IdArray
    centre_starts_s: NDArray[np.float64]
    centre_ends_s: NDArray[np.float64]
    starts_s: NDArray[np.float64]
    vectors: FloatArray
    frames: FrameArray
    seconds: IdArray


@dataclass(frozen=True, eq=False)
class Deletions:
    """Embeddings deleted since a reader last asked; last_id is what to ask after next time."""

    last_id: int
    embedding_ids: IdArray


@dataclass(frozen=True)
class Watermark:
    """Up to which embedding and which tombstone a reader has read."""

    embedding_id: int = 0
    tombstone_id: int = 0


def encode_vector(vector: FloatArray) -> bytes:
    """Write a vector [D] as little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def decode_vectors(blobs: Sequence[bytes]) -> FloatArray:
    """Read vectors of one length to [N, D]."""
    flat = np.frombuffer(b"".join(blobs), dtype="<f4")
    return flat.reshape(len(blobs), -1).astype(np.float32)


def quantise_frames(frames: FloatArray) -> FrameArray:
    """Write unit frame vectors [S, D] in a byte a value, times 127."""
    scaled = np.rint(np.clip(frames, -1.0, 1.0) * FRAME_SCALE)
    return scaled.astype(np.int8)


def encode_frames(frames: FrameArray) -> bytes:
    """Write frames [S, D] row by row."""
    return np.ascontiguousarray(frames, dtype=np.int8).tobytes()


def decode_frames(blob: bytes, dimension: int) -> FrameArray:
    """Read frames back to [S, D]; divide by 127 for the vectors."""
    return np.frombuffer(blob, dtype=np.int8).reshape(-1, dimension)


def hold_id_order(session: Session) -> None:
    """Let nobody else write embeddings or tombstones until this transaction ends.

    Readers ask for "everything after id N". Without this, PostgreSQL may commit a higher id before
    a lower one, and the lower one would be missed for ever. SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({_ID_ORDER_LOCK})"))


def count(session: Session, model_id: int, until_id: int | None = None) -> int:
    """How many embeddings a model has made, up to an id if one is given."""
    statement = select(func.count()).select_from(Embedding).where(Embedding.model_id == model_id)
    if until_id is not None:
        statement = statement.where(Embedding.id <= until_id)
    return session.execute(statement).scalar_one()


def newest(session: Session, model_id: int) -> Watermark:
    """The highest ids of a model's embeddings and tombstones: a cheap look for something new."""
    embedding_id = select(func.max(Embedding.id)).where(Embedding.model_id == model_id)
    tombstone_id = select(func.max(Tombstone.id)).where(Tombstone.model_id == model_id)
    found = session.execute(
        select(embedding_id.scalar_subquery(), tombstone_id.scalar_subquery())
    ).one()
    return Watermark(found[0] or 0, found[1] or 0)


def changes_since(session: Session, model_id: int, mark: Watermark) -> int:
    """How many vectors came after a watermark, and how many of those before it went."""
    came = select(func.count()).select_from(Embedding)
    came = came.where(Embedding.model_id == model_id, Embedding.id > mark.embedding_id)
    went = select(func.count()).select_from(Tombstone)
    went = went.where(
        Tombstone.model_id == model_id,
        Tombstone.id > mark.tombstone_id,
        Tombstone.embedding_id <= mark.embedding_id,
    )
    return (session.scalar(came) or 0) + (session.scalar(went) or 0)


def high_watermark(session: Session, model_id: int) -> int:
    """The highest id of a model's embeddings, 0 if there are none; later ones are higher."""
    statement = select(func.max(Embedding.id)).where(Embedding.model_id == model_id)
    return session.scalar(statement) or 0


def stream(
    session: Session, model_id: int, after_id: int = 0, chunk: int = 4096
) -> Iterator[tuple[IdArray, FloatArray]]:
    """Read a model's vectors after an id, in the order of ids: (ids [N], vectors [N, D]), N <= chunk.

    Only one chunk is in memory. Use it in a reading transaction: it may take long.
    """
    statement = select(Embedding.id, Embedding.vector).where(Embedding.model_id == model_id)
    statement = statement.order_by(Embedding.id).limit(chunk)
    while rows := session.execute(statement.where(Embedding.id > after_id)).all():
        yield _id_array([row.id for row in rows]), decode_vectors([row.vector for row in rows])
        after_id = rows[-1].id


def allowed_ids(
    session: Session,
    model_id: int,
    source: str | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> IdArray:
    """The ids of a model's embeddings that meet every filter, sorted.

    after and before select the windows that meet [after, before) by the wall clock; those of a
    recording without a start then never do. An unknown source name matches nothing.
    """
    statement = select(Embedding.id).where(Embedding.model_id == model_id)
    if source is not None or after is not None or before is not None:
        statement = _join_recording(statement).where(
            overlaps(Recording.started_at, Window.start_s, Window.end_s, after, before)
        )
    if source is not None:
        statement = statement.where(Source.name == source)
    found = session.scalars(statement.order_by(Embedding.id), execution_options={"yield_per": 8192})
    return np.fromiter(found, dtype=np.int64)


def details(session: Session, ids: Sequence[int] | IdArray) -> list[EmbeddingDetail]:
    """Describe embeddings in the order of ids; one that was deleted meanwhile is left out."""
    wanted = [int(embedding_id) for embedding_id in ids]
    found: dict[int, EmbeddingDetail] = {}
    for first in range(0, len(wanted), _IDS_A_QUERY):
        part = wanted[first : first + _IDS_A_QUERY]
        tags = _tags_of(session, part)
        for row in session.execute(_detail_statement().where(Embedding.id.in_(part))):
            found[row.embedding_id] = _detail(row, tags.get(row.embedding_id, []))
    return [found[embedding_id] for embedding_id in wanted if embedding_id in found]


def spans(session: Session, ids: Sequence[int] | IdArray) -> list[Span]:
    """Say where embeddings lie, in the order of ids; one that was deleted meanwhile is left out."""
    wanted = [int(embedding_id) for embedding_id in ids]
    statement = select(Embedding.id, Window.recording_id, Window.start_s, Window.end_s)
    statement = statement.join(Window, Window.id == Embedding.window_id)
    found: dict[int, Span] = {}
    # Thousands of rows: past the session, which would make an object of each.
    connection = session.connection()
    for first in range(0, len(wanted), _IDS_A_QUERY):
        part = wanted[first : first + _IDS_A_QUERY]
        rows = connection.execute(statement.where(Embedding.id.in_(part))).all()
        found.update((row[0], Span._make(row)) for row in rows)
    return [found[embedding_id] for embedding_id in wanted if embedding_id in found]


def around(session: Session, ids: Sequence[int], reach_s: float) -> Surroundings:
    """Fetch the windows that begin up to reach_s before or after those of embeddings, by one query.

    They are of the same recording and model, and the embedding's own is one of them. At most some
    thousand ids; those of deleted embeddings have no rows.
    """
    statement = _around_statement(reach_s).where(_CENTRE.id.in_(list(ids)))
    rows = session.connection().execute(statement).all()
    vectors = decode_vectors([row.vector for row in rows]) if rows else np.zeros((0, 1), np.float32)
    blobs, dimension = [row.frames for row in rows], vectors.shape[1]
    return Surroundings(
        centres=_id_array([row.centre for row in rows]),
        centre_starts_s=np.array([row.centre_start_s for row in rows], dtype=np.float64),
        centre_ends_s=np.array([row.centre_end_s for row in rows], dtype=np.float64),
        starts_s=np.array([row.start_s for row in rows], dtype=np.float64),
        vectors=vectors,
        frames=decode_frames(b"".join(blobs), dimension),
        seconds=_id_array([len(blob) // dimension for blob in blobs]),
    )


def ids_of(
    session: Session,
    recording_id: int,
    *,
    model_id: int | None = None,
    after_id: int = 0,
    limit: int | None = None,
) -> IdArray:
    """The ids of a recording's embeddings after an id, ascending; of every model if it is None."""
    statement = select(Embedding.id).join(Window, Window.id == Embedding.window_id)
    statement = statement.where(Window.recording_id == recording_id, Embedding.id > after_id)
    if model_id is not None:
        statement = statement.where(Embedding.model_id == model_id)
    return _id_array(session.scalars(statement.order_by(Embedding.id).limit(limit)).all())


def vector_of(session: Session, embedding_id: int) -> FloatArray | None:
    """The unit vector [D] of an embedding, None if it was deleted."""
    blob = session.scalar(select(Embedding.vector).where(Embedding.id == embedding_id))
    return None if blob is None else decode_vectors([blob])[0]


def vectors_of(session: Session, ids: Sequence[int]) -> dict[int, FloatArray]:
    """The unit vectors [D] of embeddings by id; those that were deleted are left out."""
    found: dict[int, FloatArray] = {}
    for first in range(0, len(ids), _IDS_A_QUERY):
        part = list(ids[first : first + _IDS_A_QUERY])
        rows = session.execute(select(Embedding.id, Embedding.vector).where(Embedding.id.in_(part)))
        found.update((row.id, decode_vectors([row.vector])[0]) for row in rows)
    return found


def tombstones(session: Session, model_id: int, after_id: int = 0) -> Deletions:
    """The embeddings of a model deleted since `after_id`, which is a Deletions.last_id or 0."""
    statement = select(Tombstone.id, Tombstone.embedding_id).where(
        Tombstone.model_id == model_id, Tombstone.id > after_id
    )
    rows = session.execute(statement.order_by(Tombstone.id)).all()
    last_id = rows[-1].id if rows else after_id
    return Deletions(last_id, _id_array([row.embedding_id for row in rows]))


def purge_tombstones(session: Session, model_id: int, until_id: int, before: datetime) -> int:
    """Delete the tombstones up to `until_id` that were set before a moment; return how many.

    The caller knows that no snapshot holds what they are for, and that no reader is so far behind.
    A model's newest stays: it says how far deleting has come.
    """
    newest_id = select(func.max(Tombstone.id)).where(Tombstone.model_id == model_id)
    old = delete(Tombstone).where(
        Tombstone.model_id == model_id,
        Tombstone.id <= until_id,
        Tombstone.id < newest_id.scalar_subquery(),
        Tombstone.deleted_at < before,
    )
    return len(session.scalars(old.returning(Tombstone.id)).all())


# The embedding that windows lie around, and its own window.
_CENTRE = aliased(Embedding)
_CENTRE_WINDOW = aliased(Window)


def _around_statement(reach_s: float) -> Select[int, float, float, float, bytes, bytes]:
    centre = _CENTRE_WINDOW
    near = (
        (Window.recording_id == centre.recording_id)
        & (Window.start_s >= centre.start_s - reach_s)
        & (Window.start_s < centre.end_s + reach_s)
    )
    same_model = (Embedding.window_id == Window.id) & (Embedding.model_id == _CENTRE.model_id)
    return (
        select(
            _CENTRE.id.label("centre"),
            centre.start_s.label("centre_start_s"),
            centre.end_s.label("centre_end_s"),
            Window.start_s,
            Embedding.vector,
            Embedding.frames,
        )
        .select_from(_CENTRE)
        .join(centre, centre.id == _CENTRE.window_id)
        .join(Window, near)
        .join(Embedding, same_model)
        .order_by(_CENTRE.id, Window.start_s, Window.id)
    )


def _id_array(ids: Sequence[int]) -> IdArray:
    return np.array(ids, dtype=np.int64)


def _join_recording(statement: Select[Any]) -> Select[Any]:
    return (
        statement.join(Window, Window.id == Embedding.window_id)
        .join(Recording, Recording.id == Window.recording_id)
        .join(Source, Source.id == Recording.source_id)
    )


def _detail_statement() -> Select[Any]:
    statement = select(
        Embedding.id.label("embedding_id"),
        Embedding.model_id,
        Embedding.window_id,
        Embedding.frames,
        EncoderModel.dimension,
        Window.start_s,
        Window.end_s,
        Window.acoustics,
        Window.recording_id,
        Source.name.label("source"),
        Source.timezone,
        Recording.path,
        Recording.object_key,
        Recording.sha256,
        Recording.size_bytes,
        Recording.modified_ns,
        Recording.started_at,
        Recording.duration_s,
    )
    return _join_recording(statement.join(EncoderModel, EncoderModel.id == Embedding.model_id))


def _detail(row: Row[Any], tags: Sequence[tuple[str, float]]) -> EmbeddingDetail:
    fields = dict(row._mapping)
    frames = decode_frames(fields.pop("frames"), fields.pop("dimension"))
    return EmbeddingDetail(**fields, frames=frames, tags=tuple(tags))


def _tags_of(session: Session, ids: Sequence[int]) -> dict[int, list[tuple[str, float]]]:
    same_window = (Tag.window_id == Embedding.window_id) & (Tag.model_id == Embedding.model_id)
    statement = select(Embedding.id, Tag.label, Tag.probability).join(Tag, same_window)
    statement = statement.where(Embedding.id.in_(ids))
    tags: dict[int, list[tuple[str, float]]] = {}
    for embedding_id, label, probability in session.execute(
        statement.order_by(Tag.probability.desc(), Tag.label)
    ):
        tags.setdefault(embedding_id, []).append((label, probability))
    return tags
