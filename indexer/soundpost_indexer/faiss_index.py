"""The default index: a sealed FAISS body, an exact tail for what is newer, and tombstones.

A body never changes. It is mapped from its file where FAISS can do that, so that processes share
its memory. What is added later lies in the tail, and what is removed is masked, because HNSW
cannot remove; both go into the body when it is built anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.index import FloatArray, IdArray, Neighbours
from soundpost.errors import InvalidValueError, MissingExtraError, VectorIndexError
from soundpost_indexer.exact import SLACK, ExactIndex, Rows, merge, nearest, place, read_ids
from soundpost_indexer.interface import (
    Chunk,
    IndexStats,
    check_batch,
    check_ids,
    check_k,
    no_neighbours,
    unit_vectors,
)

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtraError("the index engine faiss") from error

# Its stubs describe the C++ side, not the Python layer over it: parameters, selectors, arrays.
faiss: Any = _faiss

Layout = Literal["flat", "hnsw"]

# Up to here an exact scan takes a few milliseconds, and no graph is worth its memory.
FLAT_UP_TO = 50_000
# Of a filter that leaves less than this share, the graph returns mostly what is not allowed.
NARROW_SHARE = 0.1

HNSW_LINKS = 32
# Building takes about as long as this is large; 64 finds 99 of 100 at a million vectors.
HNSW_EF_CONSTRUCTION = 64
HNSW_EF_SEARCH = 128

# Asked for beyond k, so that ties at the edge can be settled by id.
_SPARE = 32
# FAISS keeps candidates in a heap, which is no longer quick beyond this.
_MOST_AT_ONCE = 4096
_CHUNK = 8192
_IDS_FILE, _BODY_FILE = "ids.npy", "body.faiss"


def layout_bytes(layout: Layout, count: int, dimension: int) -> int:
    """Bytes of vectors, ids and, for HNSW, links: twice M on the ground level, a few above."""
    links = 0 if layout == "flat" else 4 * (2 * HNSW_LINKS + 2) + 8
    return count * (4 * dimension + 8 + links)


def choose_layout(count: int, dimension: int, memory_bytes: int) -> Layout:
    """Choose Flat up to FLAT_UP_TO vectors, HNSW beyond if it fits into memory, else Flat.

    A Flat body is read from front to back, which also works where it is larger than memory.
    """
    fits = layout_bytes("hnsw", count, dimension) <= memory_bytes
    return "hnsw" if count > FLAT_UP_TO and fits else "flat"


@dataclass(frozen=True, eq=False)
class _Body:
    """What is sealed. ids [N] ascending, vectors [N, D] a view into `engine`, live [N]."""

    engine: Any
    flat: Any
    layout: Layout
    ids: IdArray
    vectors: FloatArray
    live: NDArray[np.bool_]
    live_count: int

    def without(self, ids: IdArray) -> _Body:
        """Mask ids; unknown ones are ignored."""
        rows = self.rows_of(ids)
        if not self.live[rows].any():
            return self
        live = self.live.copy()
        live[rows] = False
        return replace(self, live=live, live_count=int(np.count_nonzero(live)))

    def rows_of(self, ids: IdArray) -> Rows:
        """Rows of those of the ids that lie here, masked or not."""
        if not len(self.ids):
            return np.empty(0, np.intp)
        rows: Rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        known: NDArray[np.bool_] = self.ids[rows] == ids
        return rows[known]


class FaissIndex:
    """Flat or HNSW with inner product, chosen by size and by the memory that is allowed.

    layout: fixes what would be chosen. exact_up_to: filters that leave no more are searched
    exactly. threads: OpenMP threads of this process; FAISS keeps its own default for None. Nothing
    here starts OpenMP before the first build or search: fork before that.
    """

    def __init__(
        self,
        dimension: int,
        *,
        memory_bytes: int = 4 * 1024**3,
        layout: Layout | None = None,
        threads: int | None = None,
        exact_up_to: int = FLAT_UP_TO,
        ef_search: int = HNSW_EF_SEARCH,
        ef_construction: int = HNSW_EF_CONSTRUCTION,
    ) -> None:
        self._tail = ExactIndex(dimension)
        self._memory_bytes = memory_bytes
        self._layout = layout
        self._exact_up_to = exact_up_to
        self._ef_search = ef_search
        self._ef_construction = ef_construction
        self._lock = RLock()
        self._body = _seal(_new_engine("flat", dimension, 0), np.empty(0, np.int64))
        if threads is not None:
            if threads < 1:
                raise InvalidValueError(threads, "at least one thread is needed")
            faiss.omp_set_num_threads(threads)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._tail.dimension

    def __len__(self) -> int:
        """How many vectors can be found."""
        with self._lock:
            return self._body.live_count + len(self._tail)

    def add(self, ids: IdArray, vectors: FloatArray) -> None:
        """Add vectors [N, D] under ids [N]; an id that is already there is replaced."""
        known, units = check_batch(ids, vectors, self.dimension)
        with self._lock:
            self._tail.add_units(known, units)
            self._body = self._body.without(known)

    def remove(self, ids: IdArray) -> int:
        """Remove ids; unknown ones are ignored. Return how many were there."""
        wanted = check_ids(ids)
        with self._lock:
            before = len(self)
            self._tail.remove(wanted)
            self._body = self._body.without(wanted)
            return before - len(self)

    def search(self, vectors: FloatArray, k: int, allowed: IdArray | None = None) -> Neighbours:
        """Find the k nearest of each row of [Q, D], among `allowed` ids if given.

        Exact on Flat, in the tail and for narrow filters; HNSW may miss some. Either way k come
        back whenever there are k.
        """
        check_k(k)
        queries = unit_vectors(vectors, self.dimension)
        among = None if allowed is None else np.unique(check_ids(allowed))
        with self._lock:
            body = self._body
            newer = self._tail.search(queries, k, among)
        return merge(self._search_body(body, queries, k, among), newer)

    def ids(self) -> IdArray:
        """Every id that can be found, ascending."""
        with self._lock:
            return np.sort(np.concatenate([self._body.ids[self._body.live], self._tail.ids()]))

    def vectors(self, ids: IdArray) -> FloatArray:
        """Return the unit vectors [N, D] of ids [N]. Raises InvalidValueError for an unknown id."""
        wanted = check_ids(ids)
        with self._lock:
            body = self._body
            sealed = np.isin(wanted, body.ids[body.live])
            found = np.empty((len(wanted), self.dimension), np.float32)
            found[sealed] = body.vectors[body.rows_of(wanted[sealed])]
            found[~sealed] = self._tail.vectors(wanted[~sealed])
        return found

    def stats(self) -> IndexStats:
        """Engine, layout, counts and size."""
        with self._lock:
            body, tail = self._body, len(self._tail)
        size = layout_bytes(body.layout, len(body.ids), self.dimension)
        return IndexStats(
            engine="faiss",
            layout=body.layout,
            vectors=body.live_count + tail,
            tail=tail,
            removed=len(body.ids) - body.live_count,
            bytes=size + self._tail.stats().bytes,
        )

    def fill(self, chunks: Iterable[Chunk], count: int) -> None:
        """Replace the content by chunks of (ids [N], vectors [N, D]), ids ascending throughout.

        Needs the memory of the new body and of one chunk. Raises InvalidValueError for other orders.
        """
        checked = (check_batch(ids, vectors, self.dimension) for ids, vectors in chunks)
        body = self._build(checked, count)
        with self._lock:
            self._body, self._tail = body, ExactIndex(self.dimension)

    def compact(self) -> None:
        """Build a body of everything that can be found; tail and masked vectors are gone after."""
        with self._lock:
            self._body = self._build(self._everything(), len(self))
            self._tail = ExactIndex(self.dimension)

    def save(self, folder: Path) -> None:
        """Write ids and body; what lies in the tail is sealed first."""
        with self._lock:
            if len(self._tail) or self._body.live_count < len(self._body.ids):
                self.compact()
            np.save(folder / _IDS_FILE, self._body.ids, allow_pickle=False)
            _write_engine(self._body.engine, folder / _BODY_FILE)

    def load(self, folder: Path) -> None:
        """Replace the content by what `save` wrote. Raises VectorIndexError if it does not fit."""
        ids, engine = read_ids(folder / _IDS_FILE), _read_engine(folder / _BODY_FILE)
        if (engine.ntotal, engine.d) != (len(ids), self.dimension):
            detail = f"{engine.ntotal} vectors of dimension {engine.d} for {len(ids)} ids"
            raise VectorIndexError(folder, f"{detail}, the index has {self.dimension}")
        with self._lock:
            self._body, self._tail = _seal(engine, ids), ExactIndex(self.dimension)

    def _build(self, chunks: Iterable[Chunk], count: int) -> _Body:
        layout = self._layout or choose_layout(count, self.dimension, self._memory_bytes)
        engine = _new_engine(layout, self.dimension, self._ef_construction)
        known = [np.empty(0, np.int64)]
        for ids, units in chunks:
            engine.add(units)
            known.append(ids)
        every = np.concatenate(known)
        if (np.diff(every) <= 0).any():
            raise InvalidValueError("ids out of order", "a body is filled by ascending id")
        return _seal(engine, every)

    def _everything(self) -> Iterator[Chunk]:
        ids = self.ids()
        for first in range(0, len(ids), _CHUNK):
            part = ids[first : first + _CHUNK]
            yield part, self.vectors(part)

    def _search_body(
        self, body: _Body, queries: FloatArray, k: int, allowed: IdArray | None
    ) -> Neighbours:
        live = body.live if allowed is None else _narrowed(body, allowed)
        eligible = int(np.count_nonzero(live))
        found = no_neighbours(len(queries), k)
        waiting = np.arange(len(queries) if eligible else 0)
        if body.layout == "hnsw" and self._worth_the_graph(eligible, len(live), k):
            share = eligible / len(live)
            for depth in _depths(k, share):
                ef = max(self._ef_search, 2 * depth)
                waiting = _search_graph(body, queries, live, waiting, depth, ef, found)
        _search_flat(body, queries, live, waiting, found)
        return found

    def _worth_the_graph(self, eligible: int, sealed: int, k: int) -> bool:
        return eligible > max(k, self._exact_up_to, NARROW_SHARE * sealed)


def _new_engine(layout: Layout, dimension: int, ef_construction: int) -> Any:
    if layout == "flat":
        return faiss.IndexFlatIP(dimension)
    engine = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    engine.hnsw.efConstruction = ef_construction
    return engine


def _seal(engine: Any, ids: IdArray) -> _Body:
    layout: Layout = "hnsw" if isinstance(engine, faiss.IndexHNSW) else "flat"
    flat = faiss.downcast_index(engine.storage) if layout == "hnsw" else engine
    vectors: FloatArray = np.empty((0, engine.d), np.float32)
    if len(ids):
        # No copy: the engine owns this memory, or its file does, and _Body keeps the engine.
        vectors = faiss.rev_swig_ptr(flat.get_xb(), len(ids) * engine.d).reshape(-1, engine.d)
    return _Body(engine, flat, layout, ids, vectors, np.ones(len(ids), np.bool_), len(ids))


def _write_engine(engine: Any, path: Path) -> None:
    try:
        faiss.write_index(engine, str(path))
    except RuntimeError as error:
        raise VectorIndexError(path, str(error)) from error


def _read_engine(path: Path) -> Any:
    try:
        engine = _mapped(path) or faiss.read_index(str(path))
    except RuntimeError as error:
        raise VectorIndexError(path, str(error)) from error
    if not isinstance(engine, faiss.IndexFlat | faiss.IndexHNSWFlat):
        raise VectorIndexError(path, f"this is a {type(engine).__name__}")
    return engine


def _mapped(path: Path) -> Any:
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", None)
    if flag is None:
        return None
    try:
        return faiss.read_index(str(path), flag)
    except RuntimeError:
        # Some file systems cannot map; reading says what is wrong if it is the file.
        return None


def _narrowed(body: _Body, allowed: IdArray) -> NDArray[np.bool_]:
    rows = body.rows_of(allowed)
    live = np.zeros(len(body.ids), np.bool_)
    live[rows] = body.live[rows]
    return live


def _selector(live: NDArray[np.bool_]) -> Any:
    if live.all():
        return None
    rows = np.flatnonzero(live)
    # FAISS walks an array of rows in a Flat index, but tests every row against a bitmap.
    if len(rows) * 4 < len(live):
        return faiss.IDSelectorArray(rows)
    return faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))


def _depths(k: int, share: float) -> Iterator[int]:
    """How many neighbours to ask the graph for, so that k of them are eligible; then far more."""
    for widening in (1, 8):
        expected = k if share == 1.0 else 2 * k / share
        depth = int(widening * expected) + _SPARE
        if depth <= _MOST_AT_ONCE:
            yield depth


def _search_graph(
    body: _Body,
    queries: FloatArray,
    live: NDArray[np.bool_],
    waiting: Rows,
    depth: int,
    ef: int,
    found: Neighbours,
) -> Rows:
    """Answer the waiting queries from the graph; return those that got too few.

    The filter is applied to what comes back. Inside the graph it would return k from the fringe
    of what was visited where everything close is masked, and miss most of what lies further on.
    """
    if not len(waiting):
        return waiting
    params = faiss.SearchParametersHNSW(efSearch=ef)
    _, rows = body.engine.search(queries[waiting], depth, params=params)
    rows = np.where((rows >= 0) & live[rows], rows, -1)
    enough: NDArray[np.bool_] = (rows >= 0).sum(axis=1) >= found.ids.shape[1]
    _place_all(body, queries, waiting[enough], rows[enough], found)
    return waiting[~enough]


def _search_flat(
    body: _Body, queries: FloatArray, live: NDArray[np.bool_], waiting: Rows, found: Neighbours
) -> None:
    """Answer the waiting queries by comparing everything that is live."""
    if not len(waiting):
        return
    k, eligible = found.ids.shape[1], int(np.count_nonzero(live))
    wanted = min(k + _SPARE, eligible)
    params = faiss.SearchParameters(sel=_selector(live))
    while len(waiting) and wanted <= _MOST_AT_ONCE:
        scores, rows = body.flat.search(queries[waiting], wanted, params=params)
        # The edge is settled once something is clearly worse than the k-th.
        settled = (wanted == eligible) | (scores[:, -1] < scores[:, min(k, wanted) - 1] - SLACK)
        _place_all(body, queries, waiting[settled], rows[settled], found)
        waiting = waiting[~settled]
        wanted = min(wanted * 4, eligible)
    if len(waiting):
        _compare_all(body, queries, live, waiting, found)


def _compare_all(
    body: _Body, queries: FloatArray, live: NDArray[np.bool_], waiting: Rows, found: Neighbours
) -> None:
    """Answer queries where a heap of candidates would be too large: large k, many ties."""
    every = bool(live.all())
    ids, pool = (body.ids, body.vectors) if every else (body.ids[live], body.vectors[live])
    best = nearest(queries[waiting], ids, pool, found.ids.shape[1])
    found.ids[waiting], found.scores[waiting] = best.ids, best.scores


def _place_all(
    body: _Body, queries: FloatArray, waiting: Rows, rows: IdArray, found: Neighbours
) -> None:
    for at, candidates in zip(waiting, rows, strict=True):
        kept = cast(Rows, candidates[candidates >= 0])
        place(found, int(at), queries[at], body.ids, body.vectors, kept)
