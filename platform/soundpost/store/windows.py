"""Windows: what a model makes of stretches of a recording, written hundreds at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, UnknownRecordingError
from soundpost.store.embeddings import IdArray, encode_frames, encode_vector, hold_id_order
from soundpost.store.session import insert_new
from soundpost.store.tables import Embedding, EncoderModel, Recording, Tag, Window

_RECORDINGS_A_QUERY = 500


@dataclass(frozen=True, eq=False)
class WindowRow:
    """One window under one model, ready to be stored.

    start_s and end_s: seconds from the start of the recording. vector: float32 [D]. frames: int8
    [S, D], one a second, times 127. tags: (label, probability), only those worth keeping.
    """

    start_s: float
    end_s: float
    acoustics: Mapping[str, Any]
    vector: NDArray[np.float32]
    frames: NDArray[np.int8]
    tags: Sequence[tuple[str, float]] = ()


def last_complete(session: Session, recording_id: int, model_id: int) -> int:
    """How many windows of a recording this model has embedded.

    Windows are written in order and a batch whole or not at all, so this is the index of the
    window to go on with after an interruption.
    """
    statement = (
        select(func.count(Embedding.id))
        .join(Window, Window.id == Embedding.window_id)
        .where(Window.recording_id == recording_id, Embedding.model_id == model_id)
    )
    return session.execute(statement).scalar_one()


def add_batch(
    session: Session, recording_id: int, model_id: int, rows: Sequence[WindowRow]
) -> IdArray:
    """Store windows with their vectors and tags; return the embedding ids [N] in their order.

    What is there already, of this model or of another with the same windows, is kept as it is.
    On PostgreSQL other batches wait until this transaction ends: keep it short. Raises
    UnknownRecordingError, and InvalidValueError for vectors that do not fit the model.
    """
    if not rows:
        return np.empty(0, dtype=np.int64)
    _check(session, model_id, rows)
    hold_id_order(session)
    _hold_recording(session, recording_id)
    window_ids = _store_windows(session, recording_id, rows)
    _store_tags(session, model_id, rows, window_ids)
    return _store_embeddings(session, recording_id, model_id, rows, window_ids)


def _check(session: Session, model_id: int, rows: Sequence[WindowRow]) -> None:
    model = session.get(EncoderModel, model_id)
    if model is None:
        raise InvalidValueError(model_id, "no model has this id")
    for row in rows:
        if row.vector.shape != (model.dimension,) or row.frames.shape[1:] != (model.dimension,):
            shapes = f"vector {row.vector.shape}, frames {row.frames.shape}"
            raise InvalidValueError(shapes, f"the model makes {model.dimension} dimensions")
        if not np.isfinite(row.vector).all():
            raise InvalidValueError(f"the vector at {row.start_s} s", "it has NaN or infinity")
        if not _is_finite(row.acoustics):
            raise InvalidValueError(f"the acoustics at {row.start_s} s", "NaN or infinity in them")


def _is_finite(value: object) -> bool:
    """Whether every number in a document is one."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list) or all(map(_is_finite, value))


def _hold_recording(session: Session, recording_id: int) -> None:
    statement = select(Recording.id).where(Recording.id == recording_id)
    # The weakest lock that keeps the row from being deleted meanwhile.
    if session.scalar(statement.with_for_update(read=True, key_share=True)) is None:
        raise UnknownRecordingError(recording_id)


def _store_windows(session: Session, recording_id: int, rows: Sequence[WindowRow]) -> list[int]:
    values = [
        {
            "recording_id": recording_id,
            "start_s": row.start_s,
            "end_s": row.end_s,
            "acoustics": dict(row.acoustics),
        }
        for row in rows
    ]
    _insert_all(session, Window, values)
    statement = select(Window.id, Window.start_s, Window.end_s)
    found = session.execute(statement.where(_within(recording_id, rows)))
    known = {(start_s, end_s): key for key, start_s, end_s in found}
    return [known[row.start_s, row.end_s] for row in rows]


def _store_embeddings(
    session: Session,
    recording_id: int,
    model_id: int,
    rows: Sequence[WindowRow],
    window_ids: Sequence[int],
) -> IdArray:
    values = [
        {
            "window_id": window_id,
            "model_id": model_id,
            "vector": encode_vector(row.vector),
            "frames": encode_frames(row.frames),
        }
        for row, window_id in zip(rows, window_ids, strict=True)
    ]
    _insert_all(session, Embedding, values)
    statement = (
        select(Embedding.window_id, Embedding.id)
        .join(Window, Window.id == Embedding.window_id)
        .where(Embedding.model_id == model_id, _within(recording_id, rows))
    )
    known = {row.window_id: row.id for row in session.execute(statement)}
    return np.array([known[window_id] for window_id in window_ids], dtype=np.int64)


def _store_tags(
    session: Session, model_id: int, rows: Sequence[WindowRow], window_ids: Sequence[int]
) -> None:
    values = [
        {
            "window_id": window_id,
            "model_id": model_id,
            "label": label,
            "probability": float(probability),
        }
        for row, window_id in zip(rows, window_ids, strict=True)
        for label, probability in row.tags
    ]
    if values:
        _insert_all(session, Tag, values)


def _within(recording_id: int, rows: Sequence[WindowRow]) -> ColumnElement[bool]:
    starts_s = [row.start_s for row in rows]
    here = Window.recording_id == recording_id
    return and_(here, Window.start_s.between(min(starts_s), max(starts_s)))


def _insert_all(session: Session, table: type[Any], values: list[dict[str, Any]]) -> None:
    # On the connection, not the session: no objects are made, and the driver gets one batch.
    session.connection().execute(insert_new(session, table).on_conflict_do_nothing(), values)


@dataclass(frozen=True, eq=False)
class HeardWindow:
    """A stored window under one model, as watching reads it; frames: int8 [S, D]."""

    window_id: int
    recording_id: int
    start_s: float
    end_s: float
    acoustics: Mapping[str, Any]
    vector: bytes
    frames: bytes


def heard(session: Session, recording_ids: Sequence[int], model_id: int) -> list[HeardWindow]:
    """Return the windows of some recordings that a model has embedded, by recording and start."""
    statement = (
        select(
            Window.id,
            Window.recording_id,
            Window.start_s,
            Window.end_s,
            Window.acoustics,
            Embedding.vector,
            Embedding.frames,
        )
        .join(Embedding, Embedding.window_id == Window.id)
        .where(Embedding.model_id == model_id)
        .order_by(Window.recording_id, Window.start_s)
    )
    found: list[HeardWindow] = []
    for first in range(0, len(recording_ids), _RECORDINGS_A_QUERY):
        part = recording_ids[first : first + _RECORDINGS_A_QUERY]
        rows = session.execute(statement.where(Window.recording_id.in_(part)))
        found += [HeardWindow(*row) for row in rows]
    return found


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, in seconds from its start."""

    recording_id: int
    start_s: float
    end_s: float


def stretches(session: Session, window_ids: Iterable[int | None]) -> dict[int, Stretch]:
    """Return where windows are, by id; None and those that are gone are left out."""
    wanted = [window_id for window_id in window_ids if window_id is not None]
    statement = select(Window.id, Window.recording_id, Window.start_s, Window.end_s)
    rows = session.execute(statement.where(Window.id.in_(wanted)))
    return {row.id: Stretch(row.recording_id, row.start_s, row.end_s) for row in rows}


def tags_of(session: Session, window_ids: Sequence[int], model_id: int) -> list[dict[str, float]]:
    """Return the tags of some windows under a model, label to probability, in their order."""
    tags: dict[int, dict[str, float]] = {window_id: {} for window_id in window_ids}
    for first in range(0, len(window_ids), _RECORDINGS_A_QUERY):
        part = window_ids[first : first + _RECORDINGS_A_QUERY]
        statement = select(Tag.window_id, Tag.label, Tag.probability).where(
            Tag.model_id == model_id, Tag.window_id.in_(part)
        )
        for window_id, label, probability in session.execute(statement):
            tags[window_id][label] = probability
    return [tags[window_id] for window_id in window_ids]


def models_of(session: Session, recording_id: int) -> list[int]:
    """Return the models that have embedded windows of a recording, the oldest first."""
    statement = select(Embedding.model_id).join(Window, Window.id == Embedding.window_id)
    found = statement.where(Window.recording_id == recording_id).distinct()
    return sorted(session.scalars(found))
