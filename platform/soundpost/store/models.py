"""Models: the exact weights that made a vector, so that spaces never mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Select, and_, exists, func, select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError
from soundpost.store.embeddings import hold_id_order
from soundpost.store.session import insert_new
from soundpost.store.tables import (
    Embedding,
    EncoderModel,
    Recording,
    ServingModel,
    Window,
    utc_now,
)

# A last window that would add less is left out, so this much at the end may be in none.
UNCOVERED_S = 0.05

_FIXED = ("dimension", "sample_rate_hz", "window_s", "hop_s")


class ModelSpec(Protocol):
    """What the store keeps of an encoder; soundpost.models.encoder.EncoderSpec is one."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def sample_rate_hz(self) -> int: ...
    @property
    def window_s(self) -> float: ...
    @property
    def hop_s(self) -> float: ...


@dataclass(frozen=True)
class Coverage:
    """How many recordings a model has embedded to their end, of those that can be embedded."""

    embedded: int
    recordings: int


def ensure(session: Session, spec: ModelSpec) -> EncoderModel:
    """Return the row of a model, made if it is new.

    Raises InvalidValueError where the same name and revision is known with other numbers: its
    windows or vectors would not be comparable with the ones that are there.
    """
    numbers = {field: getattr(spec, field) for field in _FIXED}
    made = insert_new(session, EncoderModel)
    made = made.values(name=spec.name, revision=spec.revision, **numbers)
    session.execute(made.on_conflict_do_nothing())
    model = find(session, spec.name, spec.revision)
    if model is None:
        raise InvalidValueError(f"{spec.name}@{spec.revision}", "it was deleted just now")
    known = {field: getattr(model, field) for field in _FIXED}
    if known != numbers:
        raise InvalidValueError(f"{spec.name}@{spec.revision}", f"known as {known}, not {numbers}")
    return model


def find(session: Session, name: str, revision: str) -> EncoderModel | None:
    """Return the row of a model, None if the store has never seen it."""
    statement = select(EncoderModel).where(
        EncoderModel.name == name, EncoderModel.revision == revision
    )
    return session.scalar(statement)


def find_all(session: Session) -> list[EncoderModel]:
    """Return every model, oldest first."""
    return list(session.scalars(select(EncoderModel).order_by(EncoderModel.id)))


# --- which model serves -----------------------------------------------------------------------


def serving(session: Session) -> EncoderModel | None:
    """Return the model in whose space searches are made, None before anything is embedded."""
    statement = select(EncoderModel).join(ServingModel, ServingModel.model_id == EncoderModel.id)
    return session.scalar(statement)


def serve(session: Session, model_id: int) -> None:
    """Make searches in the space of this model from now on. Raises InvalidValueError."""
    if session.get(EncoderModel, model_id) is None:
        raise InvalidValueError(model_id, "no model has this id")
    values = {"model_id": model_id, "since": utc_now()}
    statement = insert_new(session, ServingModel).values(id=1, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def coverage(session: Session, model_id: int) -> Coverage:
    """Count what a model has embedded, and what there is: all but what failed."""
    there = select(func.count(Recording.id)).where(
        Recording.sha256.is_not(None), Recording.status != "failed"
    )
    embedded = session.scalar(there.where(_embedded_by(model_id))) or 0
    return Coverage(embedded, session.scalar(there) or 0)


def missing(
    session: Session, model_id: int, after_id: int = 0, limit: int | None = 1000
) -> list[int]:
    """Return the recordings that the serving model finds and this one does not yet, by id.

    They keep it from serving. What failed since (its file is gone, for instance) is among them:
    put the file back, or delete the recording.
    """
    statement = _missing(session, model_id).where(Recording.id > after_id)
    return list(session.scalars(statement.order_by(Recording.id).limit(limit)))


def can_take_over(session: Session, model_id: int) -> bool:
    """Whether a model that does not serve finds every recording that the serving one does."""
    now = serving(session)
    if now is None:
        any_of_it = select(Recording.id).where(_embedded_by(model_id)).limit(1)
        return session.scalar(any_of_it) is not None
    return now.id != model_id and not session.scalars(_missing(session, model_id).limit(1)).all()


def switch_if_complete(session: Session, model_id: int) -> bool:
    """Make a model serve if it finds every recording that the serving one does.

    Where none serves yet it only needs one recording. Ask it of the model that new recordings are
    embedded by, and of no other: an old one may still find everything, and would take over again.
    Where `can_take_over` is asked first, in a reading transaction, nobody waits for the answer.
    Return whether this call switched.
    """
    if not can_take_over(session, model_id):
        return False
    # Again, while nobody else can add vectors to the old space or take any from the new one.
    hold_id_order(session)
    if not can_take_over(session, model_id):
        return False
    serve(session, model_id)
    return True


def _missing(session: Session, model_id: int) -> Select[int]:
    now = serving(session)
    found = _has_window(now.id if now is not None else model_id)
    return select(Recording.id).where(found, ~_embedded_by(model_id))


def _embedded_by(model_id: int) -> ColumnElement[bool]:
    """Whether a model has embedded a recording to its end: its windows are written in order."""
    until_s = func.coalesce(Recording.duration_s, 0.0) - UNCOVERED_S
    return and_(Recording.status == "embedded", _has_window(model_id, Window.end_s > until_s))


def _has_window(model_id: int, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(
        Window.recording_id == Recording.id,
        Embedding.window_id == Window.id,
        Embedding.model_id == model_id,
        *conditions,
    )
