"""Captions: what windows sound like in words, several wordings each, by whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, func, select, true
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, UnknownRecordingError
from soundpost.store.explain_tables import Caption
from soundpost.store.session import insert_new
from soundpost.store.tables import Embedding, Recording, Window

_IDS_A_QUERY = 500


@dataclass(frozen=True)
class Author:
    """Who writes captions: a captioner's weights, over the frames of an encoder model."""

    model_id: int
    captioner: str
    revision: str


@dataclass(frozen=True)
class NewCaption:
    """A wording; similarity: the cosine of text and window in the encoder's space."""

    text: str
    similarity: float | None = None


@dataclass(frozen=True)
class WindowCaption:
    """A stored wording and where it belongs; place 1 is the best. Seconds from the start."""

    window_id: int
    start_s: float
    end_s: float
    place: int
    text: str
    similarity: float | None
    captioner: str
    revision: str
    created_at: datetime


def save(session: Session, author: Author, wordings: Mapping[int, Sequence[NewCaption]]) -> int:
    """Store the wordings of windows, the best first; return how many rows were written.

    What the same author said of them before is replaced. A window that was deleted meanwhile is
    left out. Raises InvalidValueError for a wording without a letter.
    """
    there = _hold_windows(session, list(wordings))
    written = 0
    for window_id in sorted(there):
        _forget(session, author, window_id)
        rows = [
            _row(author, window_id, place, wording)
            for place, wording in enumerate(wordings[window_id], start=1)
        ]
        if rows:
            session.connection().execute(insert_new(session, Caption), rows)
        written += len(rows)
    return written


def _hold_windows(session: Session, window_ids: Sequence[int]) -> set[int]:
    held: set[int] = set()
    for first in range(0, len(window_ids), _IDS_A_QUERY):
        part = window_ids[first : first + _IDS_A_QUERY]
        statement = select(Window.id).where(Window.id.in_(part)).order_by(Window.id)
        # Until this transaction ends nobody deletes them, or captions them too: of two who found
        # them without captions the second one replaces what the first one said.
        held.update(session.scalars(statement.with_for_update(key_share=True)))
    return held


def _forget(session: Session, author: Author, window_id: int) -> None:
    session.execute(
        delete(Caption).where(
            Caption.window_id == window_id,
            Caption.model_id == author.model_id,
            Caption.captioner == author.captioner,
            Caption.revision == author.revision,
        )
    )


def _row(author: Author, window_id: int, place: int, wording: NewCaption) -> dict[str, object]:
    # PostgreSQL takes no NUL, and nobody reads one.
    text = " ".join(wording.text.replace("\0", " ").split())
    if not any(character.isalnum() for character in text):
        raise InvalidValueError(wording.text, "a caption has words")
    return {
        "window_id": window_id,
        "model_id": author.model_id,
        "captioner": author.captioner,
        "revision": author.revision,
        "place": place,
        "text": text,
        "similarity": wording.similarity,
    }


def of_recording(
    session: Session,
    recording_id: int,
    *,
    model_id: int | None = None,
    after_window_id: int = 0,
    windows: int | None = None,
) -> list[WindowCaption]:
    """Return the captions of a recording by window, author and place; of every encoder if None.

    windows: of so many windows at most, after `after_window_id`; of all of them if None. Raises
    UnknownRecordingError.
    """
    if session.get(Recording, recording_id) is None:
        raise UnknownRecordingError(recording_id)
    of_model = true() if model_id is None else Caption.model_id == model_id
    chosen = (
        select(Window.id)
        .where(Window.recording_id == recording_id, Window.id > after_window_id)
        .where(exists().where(Caption.window_id == Window.id, of_model))
        .order_by(Window.id)
        .limit(windows)
    )
    statement = (
        select(
            Window.id,
            Window.start_s,
            Window.end_s,
            Caption.place,
            Caption.text,
            Caption.similarity,
            Caption.captioner,
            Caption.revision,
            Caption.created_at,
        )
        .join(Window, Window.id == Caption.window_id)
        .where(Window.id.in_(chosen), of_model)
        .order_by(
            Window.start_s,
            Window.id,
            Caption.captioner,
            Caption.revision,
            Caption.place,
            Caption.id,
        )
    )
    return [WindowCaption(*row) for row in session.execute(statement)]


def best(session: Session, window_ids: Sequence[int], model_id: int) -> dict[int, str]:
    """Return the best wording of each window that has one, by the newest author."""
    found: dict[int, str] = {}
    for first in range(0, len(window_ids), _IDS_A_QUERY):
        part = window_ids[first : first + _IDS_A_QUERY]
        statement = (
            select(Caption.window_id, Caption.text)
            .where(Caption.window_id.in_(part), Caption.model_id == model_id, Caption.place == 1)
            .order_by(Caption.id)
        )
        found.update((row.window_id, row.text) for row in session.execute(statement))
    return found


def any_of(session: Session, model_id: int) -> bool:
    """Whether anything is captioned that this encoder has embedded."""
    return bool(session.scalar(select(exists().where(Caption.model_id == model_id))))


def count(session: Session, author: Author) -> int:
    """How many windows an author has captioned."""
    statement = select(func.count(Caption.window_id.distinct())).where(
        Caption.model_id == author.model_id,
        Caption.captioner == author.captioner,
        Caption.revision == author.revision,
    )
    return session.scalar(statement) or 0


def uncaptioned(session: Session, recording_id: int, author: Author) -> list[int]:
    """Return the windows of a recording that an author's encoder has embedded and it has not yet
    put in words, in the order of time."""
    said = exists().where(
        Caption.window_id == Window.id,
        Caption.model_id == author.model_id,
        Caption.captioner == author.captioner,
        Caption.revision == author.revision,
    )
    statement = (
        select(Window.id)
        .join(Embedding, Embedding.window_id == Window.id)
        .where(Window.recording_id == recording_id, Embedding.model_id == author.model_id, ~said)
        .order_by(Window.start_s, Window.id)
    )
    return list(session.scalars(statement))


def recordings_without(
    session: Session, author: Author, after_id: int = 0, limit: int = 100
) -> list[int]:
    """Return embedded recordings with windows that an author has not put in words, by id."""
    said = exists().where(
        Caption.window_id == Window.id,
        Caption.model_id == author.model_id,
        Caption.captioner == author.captioner,
        Caption.revision == author.revision,
    )
    statement = (
        select(Recording.id)
        .where(Recording.id > after_id, Recording.status == "embedded")
        .where(
            exists().where(
                Window.recording_id == Recording.id,
                Embedding.window_id == Window.id,
                Embedding.model_id == author.model_id,
                ~said,
            )
        )
        .order_by(Recording.id)
        .limit(limit)
    )
    return list(session.scalars(statement))
