"""Reading what watching needs of recordings from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.monitoring.observations import Observations
from soundpost.store import windows
from soundpost.store.embeddings import FRAME_SCALE, decode_frames, decode_vectors
from soundpost.store.tables import EncoderModel, Recording
from soundpost.store.windows import HeardWindow


def observe(session: Session, recording_ids: Sequence[int], model_id: int) -> Observations:
    """Read the windows of some recordings, in the order of time.

    A recording that does not know when it began counts from when it arrived.
    """
    began_s = _beginnings_s(session, recording_ids)
    rows = windows.heard(session, recording_ids, model_id)
    rows.sort(key=lambda row: (began_s[row.recording_id] + row.start_s, row.window_id))
    dimension = session.scalar(select(EncoderModel.dimension).where(EncoderModel.id == model_id))
    return arrange(rows, began_s, dimension or 0)


def _beginnings_s(session: Session, recording_ids: Sequence[int]) -> dict[int, float]:
    known: dict[int, float] = {}
    for first in range(0, len(recording_ids), 500):
        part = recording_ids[first : first + 500]
        statement = select(Recording.id, Recording.started_at, Recording.created_at)
        for key, started_at, created_at in session.execute(statement.where(Recording.id.in_(part))):
            known[key] = began_at(started_at, created_at).timestamp()
    return known


def began_at(started_at: datetime | None, created_at: datetime) -> datetime:
    """Return when a recording began, as far as that is known."""
    return started_at if started_at is not None else created_at


def arrange(
    rows: Sequence[HeardWindow], began_s: Mapping[int, float], dimension: int
) -> Observations:
    """Lay stored windows out as arrays, in their order; began_s: when each recording began."""
    frames = [decode_frames(row.frames, dimension) for row in rows]
    owners = [np.full(len(part), index) for index, part in enumerate(frames)]
    empty = np.zeros((0, dimension), dtype=np.int8)
    joined = np.concatenate([empty, *frames]).astype(np.float32) / FRAME_SCALE
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    vectors = [row.vector for row in rows]
    return Observations(
        window_ids=np.array([row.window_id for row in rows], dtype=np.int64),
        recording_ids=np.array([row.recording_id for row in rows], dtype=np.int64),
        starts_s=np.array([began_s[row.recording_id] + row.start_s for row in rows], dtype=float),
        durations_s=np.array([row.end_s - row.start_s for row in rows], dtype=float),
        vectors=decode_vectors(vectors) if vectors else np.zeros((0, dimension), np.float32),
        frames=(joined / np.maximum(norms, 1e-12)).astype(np.float32),
        frame_windows=np.concatenate([np.zeros(0, np.int64), *owners]).astype(np.int64),
        acoustics=tuple(row.acoustics for row in rows),
    )
