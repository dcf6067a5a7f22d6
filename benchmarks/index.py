"""How fast the index answers one query, and how much of the truth it finds, by size and layout.

Vectors are clustered, as the windows of an archive are. Audio queries are like the vectors. Text
queries lie elsewhere: mixtures of cluster centres plus an offset that all texts share, which is
what the gap between the two towers of a text and audio encoder looks like. An index that was built
on audio vectors finds fewer neighbours for those, so both are measured, against the exact index.

    python benchmarks/index.py --sizes 10000 1000000 --dimension 256

A million vectors of 256 dimensions take a few minutes, nearly all of them for building HNSW
(M = 32, efConstruction = 64), and about 4 GB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.index import FloatArray, IdArray
from soundpost_indexer.exact import ExactIndex
from soundpost_indexer.faiss_index import (
    HNSW_EF_CONSTRUCTION,
    HNSW_EF_SEARCH,
    HNSW_LINKS,
    FaissIndex,
    Layout,
)
from soundpost_indexer.interface import Chunk, VectorIndex

K = 10
CHUNK = 8192
# Distance of a vector from the centre of its cluster, and of texts from audio; centres have one.
SPREAD = 0.8
MODALITY_GAP = 0.8
LAYOUTS: tuple[Layout, ...] = ("flat", "hnsw")


@dataclass(frozen=True)
class Space:
    """A clustered space of unit vectors, the same for the same seed."""

    dimension: int
    seed: int
    centres: FloatArray

    @classmethod
    def of(cls, size: int, dimension: int, seed: int) -> Space:
        """Make as many clusters as leave about a hundred vectors each."""
        rng = np.random.default_rng([seed, 0])
        return cls(dimension, seed, _unit(rng.normal(size=(max(10, size // 100), dimension))))

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Give out the vectors (ids [N], vectors [N, D]) without ever holding all of them."""
        rng = np.random.default_rng([self.seed, 1])
        for first in range(0, size, CHUNK):
            ids = np.arange(first, min(first + CHUNK, size), dtype=np.int64)
            yield ids, self._near(rng, len(ids))

    def queries(self, count: int) -> dict[str, FloatArray]:
        """Queries [count, D] like the vectors, and queries as those of texts are."""
        rng = np.random.default_rng([self.seed, 2])
        weights = rng.dirichlet(np.ones(3), size=count)
        parts = self.centres[rng.integers(len(self.centres), size=(count, 3))]
        offset = MODALITY_GAP * _unit(rng.normal(size=(1, self.dimension)))
        mixtures = _unit(np.einsum("qm,qmd->qd", weights, parts))
        return {"audio": self._near(rng, count), "text": _unit(mixtures + offset)}

    def _near(self, rng: np.random.Generator, count: int) -> FloatArray:
        noise = rng.standard_normal((count, self.dimension), dtype=np.float32)
        centres = self.centres[rng.integers(len(self.centres), size=count)]
        return _unit(centres + noise * np.float32(SPREAD / self.dimension**0.5))


def run(
    sizes: Sequence[int] = (10_000,), dimension: int = 256, queries: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Measure Flat against HNSW at each size; times are of one query at a time.

    Every layout: build_s, bytes, and for audio and text queries p50_ms, p95_ms, p99_ms and
    recall_at_10. peak_rss_bytes is the most the whole process took.
    """
    measured = {str(size): _run_size(size, dimension, queries, seed) for size in sizes}
    return {
        "dimension": dimension,
        "queries": queries,
        "hnsw": {"M": HNSW_LINKS, "ef_construction": HNSW_EF_CONSTRUCTION, "ef": HNSW_EF_SEARCH},
        "cores": os.cpu_count(),
        "sizes": measured,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _run_size(size: int, dimension: int, count: int, seed: int) -> dict[str, Any]:
    space = Space.of(size, dimension, seed)
    queries = space.queries(count)
    truth = _truth(space, size, queries)
    measured: dict[str, Any] = {}
    for layout in LAYOUTS:
        # One at a time in memory.
        gc.collect()
        measured[layout] = _run_layout(space, size, layout, queries, truth)
    return measured


def _truth(space: Space, size: int, queries: dict[str, FloatArray]) -> dict[str, IdArray]:
    index = ExactIndex(space.dimension)
    index.fill(space.chunks(size), size)
    return {kind: index.search(vectors, K).ids for kind, vectors in queries.items()}


def _run_layout(
    space: Space,
    size: int,
    layout: Layout,
    queries: dict[str, FloatArray],
    truth: dict[str, IdArray],
) -> dict[str, Any]:
    index = FaissIndex(space.dimension, layout=layout)
    began_s = time.perf_counter()
    index.fill(space.chunks(size), size)
    build_s = time.perf_counter() - began_s
    found = {kind: _search(index, vectors, truth[kind]) for kind, vectors in queries.items()}
    return {"build_s": round(build_s, 2), "bytes": index.stats().bytes, **found}


def _search(index: VectorIndex, queries: FloatArray, truth: IdArray) -> dict[str, float]:
    index.search(queries[:1], K)
    taken_ms, hits = [], 0
    for query, true in zip(queries, truth, strict=True):
        began_s = time.perf_counter()
        found = index.search(query[None], K)
        taken_ms.append(1000.0 * (time.perf_counter() - began_s))
        hits += int(np.isin(true, found.ids).sum())
    p50, p95, p99 = np.percentile(taken_ms, [50, 95, 99]).round(3).tolist()
    recall = round(hits / truth.size, 4)
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "recall_at_10": recall}


def _unit(vectors: NDArray[np.floating]) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def main() -> None:
    """Run from the command line and write the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps(run(**vars(arguments)), indent=2) + "\n")


if __name__ == "__main__":
    main()
