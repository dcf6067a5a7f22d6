"""Captions of what the archive holds: windows that are embedded, from the frames that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError
from soundpost.explain.caption import MOST_CAPTIONS, Caption, Captioner
from soundpost.store import captions, models
from soundpost.store.captions import Author, NewCaption
from soundpost.store.embeddings import FRAME_SCALE, FrameArray, decode_frames
from soundpost.store.session import Store
from soundpost.store.tables import Embedding, EncoderModel, Window
from soundpost.store.windows import WindowRow

FloatArray = NDArray[np.float32]

# Windows whose captions are written in one transaction.
_TOGETHER = 16
# Frames are stored one a second.
FRAME_HOP_S = 1.0
_RECORDINGS_AT_ONCE = 100


def author_of(session: Session, captioner: Captioner) -> Author | None:
    """Return who writes this captioner's captions, None where its encoder has embedded nothing."""
    spec = captioner.encoder.spec
    model = models.find(session, spec.name, spec.revision)
    return None if model is None else Author(model.id, captioner.name, captioner.revision)


def check_count(n: int) -> None:
    """Raise InvalidValueError for a number of wordings that nobody gets."""
    if not 1 <= n <= MOST_CAPTIONS:
        raise InvalidValueError(f"{n} captions", f"from 1 to {MOST_CAPTIONS} are possible")


def caption_windows(rows: Sequence[WindowRow], captioner: Captioner, n: int) -> list[list[Caption]]:
    """Return at most n wordings of each window, heard but not stored; the likeliest is first."""
    return [
        captioner.caption(_unit(row.frames), FRAME_HOP_S, n, level_dbfs=_level_dbfs(row.acoustics))
        for row in rows
    ]


def _never() -> bool:
    return False


def caption_recording(
    store: Store,
    captioner: Captioner,
    recording_id: int,
    n: int,
    stop: Callable[[], bool] = _never,
) -> int:
    """Put the windows of a recording into n wordings that are not in words yet.

    Returns how many wordings were written: 0 where nothing was left to do. It is done some windows a
    transaction, so that what is interrupted goes on where it was, and ends between two of them once
    stop says so.
    """
    with store.reading() as session:
        author = author_of(session, captioner)
        if author is None:
            return 0
        left = captions.uncaptioned(session, recording_id, author)
    written = 0
    for first in range(0, len(left), _TOGETHER):
        if stop():
            break
        written += _write(store, captioner, author, left[first : first + _TOGETHER], n)
    return written


def caption_archive(
    store: Store,
    captioner: Captioner,
    n: int,
    on_recording: Callable[[int, int], None],
    stop: Callable[[], bool] = _never,
) -> int:
    """Put everything into words that is embedded and is not yet; return how many wordings it took.

    on_recording is told of each recording and how many wordings it got. It ends soon after stop
    says so, a recording of a day too.
    """
    written, after_id = 0, 0
    while waiting := _without(store, captioner, after_id):
        for recording_id in waiting:
            if stop():
                return written
            made = caption_recording(store, captioner, recording_id, n, stop)
            on_recording(recording_id, made)
            written += made
        after_id = waiting[-1]
    return written


def _without(store: Store, captioner: Captioner, after_id: int) -> list[int]:
    with store.reading() as session:
        author = author_of(session, captioner)
        if author is None:
            return []
        return captions.recordings_without(session, author, after_id, _RECORDINGS_AT_ONCE)


def _write(
    store: Store, captioner: Captioner, author: Author, window_ids: Sequence[int], n: int
) -> int:
    with store.reading() as session:
        heard = list(_heard(session, author.model_id, window_ids))
    wordings = {
        window_id: _wordings(captioner, frames, acoustics, n)
        for window_id, frames, acoustics in heard
    }
    with store.session() as session:
        return captions.save(session, author, wordings)


def _wordings(
    captioner: Captioner, frames: FloatArray, acoustics: Mapping[str, Any], n: int
) -> list[NewCaption]:
    made = captioner.caption(frames, FRAME_HOP_S, n, level_dbfs=_level_dbfs(acoustics))
    return [NewCaption(one.text, one.similarity) for one in made]


def _level_dbfs(acoustics: Mapping[str, Any]) -> float | None:
    level_dbfs = acoustics.get("level_dbfs")
    return None if level_dbfs is None else float(level_dbfs)


def _unit(frames: FrameArray) -> FloatArray:
    """Return stored frames [S, D] as unit vectors."""
    vectors = frames.astype(np.float32) / FRAME_SCALE
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9), np.float32)


def _heard(
    session: Session, model_id: int, window_ids: Sequence[int]
) -> Iterator[tuple[int, FloatArray, Mapping[str, Any]]]:
    """Yield (window, unit frames [S, D], acoustics) of windows that a model has embedded."""
    statement = (
        select(Window.id, Embedding.frames, Window.acoustics, EncoderModel.dimension)
        .join(Embedding, Embedding.window_id == Window.id)
        .join(EncoderModel, EncoderModel.id == Embedding.model_id)
        .where(Window.id.in_(window_ids), Embedding.model_id == model_id)
        .order_by(Window.start_s, Window.id)
    )
    for window_id, blob, acoustics, dimension in session.execute(statement):
        yield window_id, _unit(decode_frames(blob, dimension)), acoustics
