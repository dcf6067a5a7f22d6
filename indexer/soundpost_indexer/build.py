"""The index of a model, from its newest snapshot and from SQL, which alone is true.

How an opened index comes to hold exactly the rows of SQL:

1. The newest snapshot that passes its checksums, is of this model, and agrees with SQL in a sample
   of its vectors. The sample has the newest ids: a database that was put back to an earlier state
   gives those out again, for other vectors.
2. Every embedding after its watermark, and every deletion after its watermark.
3. Then both must count the same. Step 2 relies on ids becoming visible in their order, which
   `store.embeddings.hold_id_order` sees to for the writers that use it. PostgreSQL itself may
   commit id 10 before id 9, and a reader that came between would never ask for 9 again. If the
   counts differ, for this or any other reason, the ids are compared one by one.

Deletions can not hide a late row from step 3: every deletion leaves a tombstone, and is applied
before counting. A row that is written between two statements only causes a comparison in vain.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from soundpost.archive.index import IdArray
from soundpost.config import Settings
from soundpost.errors import CorruptSnapshotError, InvalidValueError, VectorIndexError
from soundpost.store import embeddings
from soundpost.store.embeddings import Watermark
from soundpost.store.session import Store
from soundpost.store.tables import EncoderModel
from soundpost_indexer.exact import ExactIndex
from soundpost_indexer.interface import Chunk, VectorIndex, unit_vectors
from soundpost_indexer.snapshot import (
    Manifest,
    Snapshot,
    newest_manifest,
    prune,
    publish,
    published,
    set_aside,
    verify,
    writer_lock,
)

# Sealing pays once this share of the snapshot has changed, and never for fewer vectors.
DUE_SHARE = 0.1
DUE_COUNT = 1000

_CHUNK = 4096
_SAMPLE = 32
_SAME = 1e-5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An index that holds the rows of SQL as of `mark`.

    snapshot: where its body came from, None if everything was read from SQL, and sealed: the
    watermark of that. set_aside: snapshots that were found damaged, or of another database, under
    their new names.
    """

    index: VectorIndex
    mark: Watermark
    snapshot: Path | None = None
    sealed: Watermark | None = None
    set_aside: tuple[Path, ...] = ()


def open_index(settings: Settings, store: Store, model_id: int) -> VectorIndex:
    """Return the index of a model, with everything that SQL has of it. Raises as `open_current`."""
    return open_current(settings, store, model_id).index


def open_current(settings: Settings, store: Store, model_id: int) -> Opened:
    """Open the newest valid snapshot and bring it up to date; without one, read all from SQL.

    A damaged snapshot is set aside, and the next older one is tried. Raises InvalidValueError for
    an unknown model and StoreError where the database is out of reach.
    """
    model = model_of(store, model_id)
    opened = _from_snapshots(settings, store, model)
    return refresh(store, model_id, opened)


def refresh(store: Store, model_id: int, opened: Opened) -> Opened:
    """Bring an open index up to date with SQL, in place; return it with its new watermark."""
    with store.reading() as session:
        mark = _catch_up(session, model_id, opened.index, opened.mark)
    return replace(opened, mark=mark)


def seal(settings: Settings, store: Store, model_id: int) -> Snapshot:
    """Build a snapshot from SQL and publish it; waits while another process seals this model.

    Takes the memory of the new index and of one chunk. Raises VectorIndexError where it cannot
    be written.
    """
    model = model_of(store, model_id)
    with writer_lock(folder_of(settings, model)):
        return seal_locked(settings, store, model)


def seal_if_due(settings: Settings, store: Store, model_id: int) -> Snapshot | None:
    """Seal if enough changed since the newest snapshot, unless another process is at it."""
    model = model_of(store, model_id)
    if not is_due(settings, store, model):
        return None
    with writer_lock(folder_of(settings, model), wait=False) as mine:
        # Asked again: another process may have sealed just now.
        if not mine or not is_due(settings, store, model):
            return None
        return seal_locked(settings, store, model)


def rebuild(settings: Settings, store: Store, model_id: int) -> Opened:
    """Seal anew from SQL, drop the older snapshots, and open the new one."""
    model = model_of(store, model_id)
    folder = folder_of(settings, model)
    with writer_lock(folder):
        seal_locked(settings, store, model)
        prune(folder, kept=1)
    return open_current(settings, store, model_id)


def new_index(settings: Settings, dimension: int) -> VectorIndex:
    """Return an empty index of the engine in the settings. Raises MissingExtraError."""
    if settings.index == "exact":
        return ExactIndex(dimension)
    # Here, so that the exact engine works where FAISS is not installed.
    from soundpost_indexer.faiss_index import FaissIndex

    threads = settings.threads or None
    return FaissIndex(dimension, memory_bytes=settings.index_memory_bytes, threads=threads)


def model_of(store: Store, model_id: int) -> EncoderModel:
    """Return the row of a model. Raises InvalidValueError for an unknown id."""
    with store.reading() as session:
        model = session.get(EncoderModel, model_id)
    if model is None:
        raise InvalidValueError(model_id, "no model has this id")
    return model


def folder_of(settings: Settings, model: EncoderModel) -> Path:
    """Where the snapshots of a model lie."""
    digest = hashlib.sha256(f"{model.name}\0{model.revision}".encode()).hexdigest()
    readable = re.sub(r"[^a-z0-9]+", "-", model.name.lower())[:40].strip("-")
    return settings.index_dir / f"{readable}-{digest[:12]}"


def fits(settings: Settings, model: EncoderModel, manifest: Manifest) -> bool:
    """Whether a snapshot is of this model and of the engine in the settings."""
    return manifest.fits(model.name, model.revision, model.dimension, settings.index)


def open_snapshot(
    settings: Settings, store: Store, model: EncoderModel, path: Path
) -> Opened | Path | None:
    """Open one snapshot as it was sealed, without what came later.

    Returns where it was put if it was damaged or not of this database, and None where it is gone,
    cannot be read, or is not of this model and engine.
    """
    try:
        opened = _load(settings, model, path)
    except CorruptSnapshotError as error:
        return set_aside(path, "corrupt", str(error))
    except FileNotFoundError:
        return None
    except VectorIndexError as error:
        log.warning("index snapshot skipped", extra={"reason": str(error)})
        return None
    if opened is None or agrees(store, model.id, opened):
        return opened
    return set_aside(path, "foreign", "its vectors are not those of the database")


def _from_snapshots(settings: Settings, store: Store, model: EncoderModel) -> Opened:
    folder, tried, aside = folder_of(settings, model), set[Path](), list[Path]()
    # Listed anew each time: while one is read, a writer may publish another and remove this one.
    while path := next((path for path in published(folder) if path not in tried), None):
        tried.add(path)
        found = open_snapshot(settings, store, model, path)
        if isinstance(found, Opened):
            return replace(found, set_aside=tuple(aside))
        aside += [found] if found else []
    return Opened(new_index(settings, model.dimension), Watermark(), set_aside=tuple(aside))


def _load(settings: Settings, model: EncoderModel, path: Path) -> Opened | None:
    manifest = verify(path)
    if not fits(settings, model, manifest):
        return None
    index = new_index(settings, model.dimension)
    index.load(path)
    sealed = Watermark(manifest.embedding_id, manifest.tombstone_id)
    return Opened(index, sealed, path, sealed)


def agrees(store: Store, model_id: int, opened: Opened) -> bool:
    """Whether SQL has the same vectors as an index, in a sample of old and of the newest ids."""
    held = opened.index.ids()
    sample = np.union1d(held[-_SAMPLE:], held[:: max(1, len(held) // _SAMPLE)])
    with store.reading() as session:
        stored = dict(_stored(session, model_id, sample, chunk=_SAMPLE))
        deleted = embeddings.tombstones(session, model_id, opened.mark.tombstone_id).embedding_ids
    present = np.array([key for key in sample.tolist() if key in stored], dtype=np.int64)
    if not np.isin(np.setdiff1d(sample, present), deleted).all():
        return False
    if not len(present):
        return True
    theirs = np.stack([stored[key] for key in present.tolist()])
    ours = opened.index.vectors(present)
    return bool(np.allclose(unit_vectors(theirs, opened.index.dimension), ours, atol=_SAME))


def advance(
    session: Session, model_id: int, index: VectorIndex, mark: Watermark
) -> tuple[Watermark, bool]:
    """Apply the next chunk of embeddings and every deletion after a watermark.

    Returns the new watermark, and whether nothing was left.
    """
    ids, vectors = next(
        embeddings.stream(session, model_id, mark.embedding_id, _CHUNK),
        (np.empty(0, np.int64), np.empty((0, index.dimension), np.float32)),
    )
    deletions = embeddings.tombstones(session, model_id, mark.tombstone_id)
    # What was deleted between the two statements is not even shown for a moment.
    stays = ~np.isin(ids, deletions.embedding_ids)
    index.remove(deletions.embedding_ids)
    index.add(ids[stays], vectors[stays])
    newest_id = int(ids[-1]) if len(ids) else mark.embedding_id
    return Watermark(newest_id, deletions.last_id), len(ids) < _CHUNK


def _catch_up(session: Session, model_id: int, index: VectorIndex, mark: Watermark) -> Watermark:
    complete = False
    while not complete:
        mark, complete = advance(session, model_id, index, mark)
    if embeddings.count(session, model_id) != len(index):
        reconcile(session, model_id, index)
    return mark


def reconcile(session: Session, model_id: int, index: VectorIndex) -> None:
    """Compare the ids one by one; remove what SQL does not have, add what it does."""
    wanted, held = embeddings.allowed_ids(session, model_id), index.ids()
    missing, extra = np.setdiff1d(wanted, held), np.setdiff1d(held, wanted)
    counts = {"model_id": model_id, "missing": len(missing), "extra": len(extra)}
    log.info("index compared with the database id by id", extra=counts)
    index.remove(extra)
    for ids, vectors in _chunks_of(session, model_id, missing, _CHUNK):
        index.add(ids, vectors)


def _stored(
    session: Session, model_id: int, ids: IdArray, chunk: int
) -> Iterator[tuple[int, np.ndarray]]:
    for found, vectors in _chunks_of(session, model_id, ids, chunk):
        yield from zip(found.tolist(), vectors, strict=True)


def _chunks_of(session: Session, model_id: int, ids: IdArray, chunk: int) -> Iterator[Chunk]:
    """Read the vectors of ascending ids, as far as they are there, jumping over the gaps."""
    while len(ids):
        part = next(embeddings.stream(session, model_id, int(ids[0]) - 1, chunk), None)
        if part is None:
            return
        found, vectors = part
        asked = np.isin(found, ids)
        yield found[asked], vectors[asked]
        ids = ids[ids > found[-1]]


def _every_chunk(store: Store, model_id: int) -> Iterator[Chunk]:
    """Read all vectors of a model, each chunk in a transaction of its own.

    Building takes minutes, and one long transaction would keep the database from cleaning up.
    """
    after_id = 0
    while True:
        with store.reading() as session:
            part = next(embeddings.stream(session, model_id, after_id, _CHUNK), None)
        if part is None:
            return
        yield part
        after_id = int(part[0][-1])


def seal_locked(
    settings: Settings,
    store: Store,
    model: EncoderModel,
    confirm: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Build a snapshot from SQL and publish it; the caller holds `writer_lock`.

    `confirm` is called before it is shown, and stops that by raising. Raises VectorIndexError.
    """
    with store.reading() as session:
        # Before the vectors: what is deleted while they are read is removed on opening.
        tombstone_id = embeddings.tombstones(session, model.id).last_id
        count = embeddings.count(session, model.id)
    index = new_index(settings, model.dimension)
    index.fill(_every_chunk(store, model.id), count)
    ids = index.ids()
    manifest = Manifest(
        model_name=model.name,
        model_revision=model.revision,
        dimension=model.dimension,
        engine=settings.index,
        layout=index.stats().layout,
        count=len(ids),
        embedding_id=int(ids[-1]) if len(ids) else 0,
        tombstone_id=tombstone_id,
    )

    def write(folder: Path) -> None:
        index.save(folder)
        confirm()

    return publish(folder_of(settings, model), manifest, write)


def is_due(settings: Settings, store: Store, model: EncoderModel) -> bool:
    """Whether enough has changed since the newest snapshot."""
    found = newest_manifest(folder_of(settings, model), lambda known: fits(settings, model, known))
    sealed, mark, deletions_read = (
        (found.count, found.embedding_id, found.tombstone_id) if found else (0, 0, 0)
    )
    with store.reading() as session:
        count = embeddings.count(session, model.id)
        deleted = embeddings.tombstones(session, model.id, deletions_read).embedding_ids
    removed = int(np.count_nonzero(deleted <= mark))
    newer = abs(count - (sealed - removed))
    return newer + removed >= max(DUE_COUNT, DUE_SHARE * sealed)
