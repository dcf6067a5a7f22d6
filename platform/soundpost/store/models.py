"""Models: the exact weights that made a vector, so that spaces never mix."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError
from soundpost.store.session import insert_new
from soundpost.store.tables import EncoderModel

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
