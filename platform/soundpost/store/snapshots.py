"""Index snapshots as rows: what builders have published, for everyone who shares the database.

The files say themselves what they hold, and only they are opened. A row that is missing because
its builder died is added by the next one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from soundpost.store import embeddings, models
from soundpost.store.embeddings import Watermark
from soundpost.store.session import insert_new
from soundpost.store.tables import EncoderModel, IndexSnapshot, utc_now


@dataclass(frozen=True)
class NewSnapshot:
    """A published snapshot.

    folder: below the folder of snapshots. embedding_id, tombstone_id: up to where it has read SQL.
    builder: machine and process.
    """

    model_id: int
    folder: str
    embedding_id: int
    tombstone_id: int
    count: int
    bytes: int
    engine: str
    layout: str
    sealed_at: datetime
    builder: str


@dataclass(frozen=True)
class IndexReport:
    """How the index of one model stands.

    vectors: in the database, all of them can be found. behind: how many of them came or went since
    the newest snapshot, and are kept beside it until the next. The rest is of that snapshot, None
    where there is none; age_s: seconds since it was sealed.
    """

    model_id: int
    model: str
    revision: str
    serving: bool
    vectors: int
    behind: int
    snapshot: str | None = None
    sealed: int | None = None
    engine: str | None = None
    layout: str | None = None
    bytes: int | None = None
    sealed_at: datetime | None = None
    age_s: float | None = None

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        document = asdict(self)
        document["sealed_at"] = self.sealed_at.isoformat() if self.sealed_at else None
        return document


def record(session: Session, new: NewSnapshot) -> None:
    """Note a snapshot; one that was in the same folder before is gone, and its row replaced."""
    values = asdict(new)
    statement = insert_new(session, IndexSnapshot).values(**values)
    same = ["model_id", "folder"]
    session.execute(statement.on_conflict_do_update(index_elements=same, set_=values))


def keep_only(session: Session, model_id: int, folders: Collection[str]) -> int:
    """Remove the rows of a model's other snapshots; return how many."""
    gone = delete(IndexSnapshot).where(
        IndexSnapshot.model_id == model_id, IndexSnapshot.folder.not_in(folders)
    )
    return len(session.scalars(gone.returning(IndexSnapshot.id)).all())


def find(session: Session, model_id: int) -> list[IndexSnapshot]:
    """Return what is published of a model, newest first."""
    statement = select(IndexSnapshot).where(IndexSnapshot.model_id == model_id)
    newest_first = (IndexSnapshot.sealed_at.desc(), IndexSnapshot.folder.desc())
    return list(session.scalars(statement.order_by(*newest_first)))


def newest(session: Session, model_id: int) -> IndexSnapshot | None:
    """Return the newest snapshot of a model."""
    return next(iter(find(session, model_id)), None)


def report(session: Session, model: EncoderModel, *, now: datetime | None = None) -> IndexReport:
    """Say how the index of a model stands, from the rows alone."""
    serving = models.serving(session)
    found = newest(session, model.id)
    mark = Watermark(found.embedding_id, found.tombstone_id) if found else Watermark()
    known = {} if found is None else _described(found, now or utc_now())
    return IndexReport(
        model_id=model.id,
        model=model.name,
        revision=model.revision,
        serving=serving is not None and serving.id == model.id,
        vectors=embeddings.count(session, model.id),
        behind=embeddings.changes_since(session, model.id, mark),
        **known,
    )


def _described(found: IndexSnapshot, now: datetime) -> dict[str, Any]:
    return {
        "snapshot": found.folder,
        "sealed": found.count,
        "engine": found.engine,
        "layout": found.layout,
        "bytes": found.bytes,
        "sealed_at": found.sealed_at,
        "age_s": max(0.0, (now - found.sealed_at).total_seconds()),
    }
