"""Every engine of the vector index, against a dictionary and against each other."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from soundpost.archive.index import FloatArray, IdArray, Neighbours
from soundpost.errors import DimensionError, InvalidValueError, VectorIndexError
from soundpost_indexer.exact import ExactIndex
from soundpost_indexer.faiss_index import FLAT_UP_TO, FaissIndex, choose_layout, layout_bytes
from soundpost_indexer.interface import VectorIndex

DIMENSION = 4
ENGINES: dict[str, Callable[[int], VectorIndex]] = {
    "exact": ExactIndex,
    "flat": lambda dimension: FaissIndex(dimension, layout="flat"),
    "hnsw": lambda dimension: FaissIndex(dimension, layout="hnsw"),
    "graph": lambda dimension: FaissIndex(dimension, layout="hnsw", exact_up_to=0),
}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Callable[[int], VectorIndex]:
    """Make an empty index of each engine; "graph" answers from HNSW however small it is."""
    return ENGINES[request.param]


def ints(*values: int) -> IdArray:
    return np.array(values, dtype=np.int64)


def noise(count: int, dimension: int = DIMENSION, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def reseal(index: VectorIndex) -> None:
    """Bring everything into the body, as sealing a snapshot does."""
    ids = index.ids()
    index.fill([(ids, index.vectors(ids))], len(ids))


# --- against a dictionary ---------------------------------------------------------------------

ID = st.integers(0, 30)
# Small whole numbers: many vectors point the same way, so that ties are common.
VECTOR = st.lists(st.integers(-2, 2), min_size=DIMENSION, max_size=DIMENSION)
BATCH = st.lists(st.tuples(ID, VECTOR), min_size=1, max_size=12)


class IndexMachine(RuleBasedStateMachine):
    """Any sequence of operations finds what a dictionary of vectors says."""

    name = "exact"

    def __init__(self) -> None:
        super().__init__()
        self.index = ENGINES[self.name](DIMENSION)
        self.truth: dict[int, NDArray[np.float64]] = {}

    @rule(batch=BATCH)
    def add(self, batch: list[tuple[int, list[int]]]) -> None:
        vectors = np.array([vector for _, vector in batch], dtype=np.float32)
        self.index.add(ints(*(key for key, _ in batch)), vectors)
        for key, vector in batch:
            length = np.linalg.norm(vector)
            self.truth[key] = np.array(vector) / (length or 1.0)

    @rule(ids=st.lists(ID, max_size=8))
    def remove(self, ids: list[int]) -> None:
        known = self.truth.keys() & set(ids)
        assert self.index.remove(ints(*ids)) == len(known)
        for key in known:
            del self.truth[key]

    @precondition(lambda self: self.truth)
    @rule()
    def seal(self) -> None:
        reseal(self.index)
        assert self.index.stats().tail == self.index.stats().removed == 0

    @rule()
    def save_and_load(self) -> None:
        with TemporaryDirectory() as folder:
            self.index.save(Path(folder))
            self.index = ENGINES[self.name](DIMENSION)
            self.index.load(Path(folder))

    @rule(
        queries=st.lists(VECTOR, min_size=1, max_size=3),
        k=st.integers(1, 40),
        allowed=st.none() | st.lists(ID | st.integers(100, 110), max_size=20),
    )
    def search(self, queries: list[list[int]], k: int, allowed: list[int] | None) -> None:
        wanted = None if allowed is None else ints(*allowed)
        found = self.index.search(np.array(queries, np.float32), k, wanted)
        assert found.ids.shape == found.scores.shape == (len(queries), k)
        eligible = self.truth.keys() if allowed is None else self.truth.keys() & set(allowed)
        for row, query in enumerate(queries):
            self.check(found.ids[row], found.scores[row], query, set(eligible))

    def check(self, ids: IdArray, scores: FloatArray, query: list[int], eligible: set[int]) -> None:
        count = min(len(ids), len(eligible))
        assert (ids[count:] == -1).all() and np.isneginf(scores[count:]).all()
        best, marks = ids[:count].tolist(), scores[:count].tolist()
        assert len(set(best)) == count and set(best) <= eligible
        assert list(zip([-mark for mark in marks], best, strict=True)) == sorted(
            zip([-mark for mark in marks], best, strict=True)
        )
        direction = np.array(query) / (np.linalg.norm(query) or 1.0)
        cosines = {key: float(self.truth[key] @ direction) for key in eligible}
        np.testing.assert_allclose(marks, [cosines[key] for key in best], atol=1e-6)
        if count and self.name != "graph":
            left_out = [cosines[key] for key in eligible - set(best)]
            assert max(left_out, default=-2.0) <= marks[-1] + 1e-6

    @invariant()
    def holds_the_same(self) -> None:
        ids = self.index.ids()
        assert ids.tolist() == sorted(self.truth) and len(self.index) == len(self.truth)
        assert self.index.stats().vectors == len(self.truth)
        expected = np.array([self.truth[key] for key in ids.tolist()]).reshape(-1, DIMENSION)
        np.testing.assert_allclose(self.index.vectors(ids), expected, atol=1e-6)


@pytest.mark.parametrize("name", list(ENGINES))
def test_any_sequence_of_operations_agrees_with_a_dictionary(name: str) -> None:
    machine = type(f"{name.title()}Machine", (IndexMachine,), {"name": name})
    test_case = machine.TestCase
    test_case.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
    test_case().runTest()


# --- what every engine refuses and promises ---------------------------------------------------


def test_an_empty_index_finds_nothing(engine: Callable[[int], VectorIndex]) -> None:
    index = engine(DIMENSION)
    found = index.search(noise(2), 3)
    assert (found.ids == -1).all() and np.isneginf(found.scores).all()
    assert len(index) == 0 and index.remove(ints(1)) == 0 and index.ids().size == 0


def test_no_queries_give_no_results(engine: Callable[[int], VectorIndex]) -> None:
    index = engine(DIMENSION)
    index.add(ints(1), noise(1))
    assert index.search(np.empty((0, DIMENSION), np.float32), 3).ids.shape == (0, 3)


@pytest.mark.parametrize(
    "vectors", [noise(2, DIMENSION + 1), noise(1)[0], noise(4).reshape(2, 2, 4)]
)
def test_a_wrong_dimension_is_refused(
    engine: Callable[[int], VectorIndex], vectors: FloatArray
) -> None:
    index = engine(DIMENSION)
    with pytest.raises(DimensionError):
        index.search(vectors, 1)
    with pytest.raises(DimensionError):
        index.add(np.arange(len(vectors)), vectors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_and_changes_nothing(
    engine: Callable[[int], VectorIndex], value: float
) -> None:
    index = engine(DIMENSION)
    index.add(ints(1), noise(1))
    bad = noise(3, seed=1)
    bad[1, 2] = value
    with pytest.raises(InvalidValueError, match="row 1"):
        index.add(ints(1, 2, 3), bad)
    with pytest.raises(InvalidValueError, match="row 1"):
        index.search(bad, 1)
    assert index.ids().tolist() == [1]
    np.testing.assert_allclose(index.vectors(ints(1)), unit(noise(1)), atol=1e-6)


def test_bad_ids_and_k_are_refused(engine: Callable[[int], VectorIndex]) -> None:
    index = engine(DIMENSION)
    for ids in ([-1], [0.5], [[1]], [1, 2]):
        with pytest.raises(InvalidValueError):
            index.add(np.array(ids), noise(1))
    for k in (0, -1):
        with pytest.raises(InvalidValueError):
            index.search(noise(1), k)
    with pytest.raises(InvalidValueError, match="7"):
        index.vectors(ints(7))
    assert len(index) == 0


def test_scores_are_cosines_of_any_length(engine: Callable[[int], VectorIndex]) -> None:
    index = engine(DIMENSION)
    vectors = noise(3)
    index.add(ints(1, 2, 3), vectors * np.array([[1e-20], [1.0], [1e15]], np.float32))
    found = index.search(vectors * 1000.0, 1)
    assert found.ids[:, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.scores, 1.0, atol=1e-6)


def test_equal_vectors_rank_by_id_wherever_they_lie(engine: Callable[[int], VectorIndex]) -> None:
    """Many windows of silence are alike: the same search must list the same ones."""
    index = engine(64)
    same = np.repeat(noise(1, 64), 600, axis=0)
    others = noise(600, 64, seed=1)
    index.fill([(np.arange(0, 1200, 2), same), (np.arange(2000, 2600), others)], 1200)
    index.add(np.arange(1, 1200, 2), same)
    for k in (1, 10, 500):
        found = index.search(same[:1], k)
        assert found.ids.shape == (1, k)
        if index.stats().layout == "flat":
            assert found.ids[0].tolist() == list(range(k))
        assert (np.diff(found.ids[0]) > 0).all()
        assert len(set(found.scores[0].tolist())) == 1


def test_search_while_another_thread_adds_and_removes(
    engine: Callable[[int], VectorIndex],
) -> None:
    """What stays is always found, whatever comes and goes beside it."""
    index = engine(16)
    stays = noise(200, 16)
    index.fill([(np.arange(200), stays)], 200)
    done = threading.Event()

    def disturb() -> None:
        for turn in range(40):
            ids = np.arange(1000 + turn * 5, 1200 + turn * 5)
            index.add(ids, noise(200, 16, seed=turn + 1))
            index.remove(ids[::2])
        done.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    searches = 0
    while not done.is_set() or searches < 5:
        assert index.search(stays[:8], 1).ids[:, 0].tolist() == list(range(8))
        searches += 1
    thread.join()


def test_files_of_another_dimension_are_refused(
    engine: Callable[[int], VectorIndex], tmp_path: Path
) -> None:
    written = engine(DIMENSION)
    written.add(ints(1), noise(1))
    written.save(tmp_path)
    with pytest.raises(VectorIndexError):
        engine(DIMENSION + 1).load(tmp_path)


def test_a_pickle_in_place_of_ids_is_never_loaded(
    engine: Callable[[int], VectorIndex], tmp_path: Path
) -> None:
    written = engine(DIMENSION)
    written.add(ints(1), noise(1))
    written.save(tmp_path)
    np.save(tmp_path / "ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(VectorIndexError):
        engine(DIMENSION).load(tmp_path)


def test_a_body_is_filled_in_order_of_ids(engine: Callable[[int], VectorIndex]) -> None:
    index = engine(DIMENSION)
    chunks = [(ints(5, 6), noise(2)), (ints(1, 2), noise(2, seed=1))]
    if index.stats().engine == "exact":
        index.fill(chunks, 4)
        assert index.ids().tolist() == [1, 2, 5, 6]
    else:
        with pytest.raises(InvalidValueError):
            index.fill(chunks, 4)


# --- FAISS against exact ----------------------------------------------------------------------


class Sounds:
    """Clustered vectors, queries like them, and queries from elsewhere, as those of texts are.

    A text lies off the vectors of audio by an offset that is common to all texts.
    """

    def __init__(self, count: int, dimension: int = 64, clusters: int = 60) -> None:
        self.rng = np.random.default_rng(7)
        self.centres = unit(noise(clusters, dimension))
        self.vectors = unit(self._near(self.rng.integers(clusters, size=count)))
        self.ids = 3 * np.arange(count) + 1
        self.audio = unit(self._near(self.rng.integers(clusters, size=100)))
        mixed = self.rng.dirichlet(np.ones(3), size=100)
        parts = self.centres[self.rng.integers(clusters, size=(100, 3))]
        offset = unit(noise(1, dimension, seed=9))
        self.texts = unit(np.einsum("qm,qmd->qd", mixed, parts) + 0.8 * offset)

    def _near(self, members: NDArray[np.int64]) -> FloatArray:
        shape = (len(members), self.centres.shape[1])
        spread = self.rng.normal(scale=0.12, size=shape)
        return np.asarray(self.centres[members] + spread, np.float32)

    def filled(self, index: VectorIndex) -> VectorIndex:
        halves = np.array_split(np.arange(len(self.ids)), 2)
        index.fill([(self.ids[half], self.vectors[half]) for half in halves], len(self.ids))
        return index


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return Sounds(4000)


@pytest.fixture(scope="module")
def oracle(sounds: Sounds) -> VectorIndex:
    return sounds.filled(ExactIndex(64))


@pytest.fixture(scope="module")
def graph_folder(sounds: Sounds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    sounds.filled(FaissIndex(64, layout="hnsw")).save(folder)
    return folder


@pytest.fixture
def graph(graph_folder: Path) -> FaissIndex:
    index = FaissIndex(64, exact_up_to=0)
    index.load(graph_folder)
    return index


def recall(found: Neighbours, truth: Neighbours) -> float:
    """Mean share of the true neighbours that were found, however they are ordered."""
    pairs = zip(found.ids, truth.ids, strict=True)
    return float(np.mean([np.isin(true, got).mean() for got, true in pairs]))


def test_flat_gives_the_very_results_of_exact(sounds: Sounds, oracle: VectorIndex) -> None:
    index = sounds.filled(FaissIndex(64, layout="flat"))
    for allowed in (None, sounds.ids[::2], sounds.ids[::50], ints(1, 4, 99), ints()):
        for queries in (sounds.audio, sounds.texts):
            found, truth = index.search(queries, 10, allowed), oracle.search(queries, 10, allowed)
            np.testing.assert_array_equal(found.ids, truth.ids)
            np.testing.assert_array_equal(found.scores, truth.scores)


@settings(max_examples=30, deadline=None)
@given(
    sealed=st.integers(0, 300),
    newer=st.integers(0, 100),
    k=st.integers(1, 400),
    seed=st.integers(0, 1000),
)
def test_the_split_into_body_and_tail_does_not_show(
    sealed: int, newer: int, k: int, seed: int
) -> None:
    assume(sealed + newer)
    rng = np.random.default_rng(seed)
    ids, vectors = np.arange(sealed + newer), noise(sealed + newer, 16, seed)
    index, truth = FaissIndex(16, layout="flat"), ExactIndex(16)
    index.fill([(ids[:sealed], vectors[:sealed])] if sealed else [], sealed)
    index.add(ids[sealed:], vectors[sealed:])
    truth.add(ids, vectors)
    gone = rng.permutation(ids)[: rng.integers(len(ids))]
    assert index.remove(gone) == truth.remove(gone)
    found, expected = (each.search(noise(3, 16, seed + 1), k) for each in (index, truth))
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.05])
def test_hnsw_finds_nearly_all(
    sounds: Sounds, oracle: VectorIndex, graph: FaissIndex, share: float
) -> None:
    assert graph.stats().layout == "hnsw"
    picked = np.random.default_rng(3).random(len(sounds.ids)) < share
    allowed = None if share == 1.0 else sounds.ids[picked]
    for queries in (sounds.audio, sounds.texts):
        found = graph.search(queries, 10, allowed)
        assert recall(found, oracle.search(queries, 10, allowed)) >= 0.95
        if allowed is not None:
            assert np.isin(found.ids, allowed).all()


def test_a_filter_on_what_is_far_away_is_answered_in_full(
    sounds: Sounds, oracle: VectorIndex, graph: FaissIndex
) -> None:
    """A graph search does not leave the neighbourhood of its query; none of that is allowed here."""
    query = sounds.audio[:1]
    by_distance = oracle.search(query, len(sounds.ids)).ids[0]
    allowed = by_distance[1500:]
    found = graph.search(query, 10, allowed)
    assert recall(found, oracle.search(query, 10, allowed)) >= 0.95


def test_tombstones_do_not_eat_results(
    sounds: Sounds, oracle: VectorIndex, graph: FaissIndex
) -> None:
    query = sounds.texts[:1]
    by_distance = oracle.search(query, len(sounds.ids)).ids[0]
    graph.remove(by_distance[:3000])
    found = graph.search(query, 20)
    np.testing.assert_array_equal(found.ids[0], by_distance[3000:3020])
    assert graph.stats().removed == 3000
    graph.remove(by_distance[3000:-5])
    assert graph.search(query, 20).ids[0].tolist() == by_distance[-5:].tolist() + [-1] * 15


def test_what_was_removed_is_not_in_the_next_body(sounds: Sounds, graph: FaissIndex) -> None:
    gone = sounds.ids[::2]
    graph.remove(gone)
    graph.compact()
    assert graph.stats().removed == 0 and graph.stats().vectors == len(sounds.ids) - len(gone)
    assert not np.isin(graph.search(sounds.audio, 50).ids, gone).any()


# --- choosing ---------------------------------------------------------------------------------


def test_the_layout_follows_size_and_memory() -> None:
    plenty = 1 << 40
    assert choose_layout(0, 256, 1) == "flat"
    assert choose_layout(FLAT_UP_TO, 256, plenty) == "flat"
    assert choose_layout(FLAT_UP_TO + 1, 256, plenty) == "hnsw"
    needed = layout_bytes("hnsw", 1_000_000, 256)
    assert choose_layout(1_000_000, 256, needed) == "hnsw"
    assert choose_layout(1_000_000, 256, needed - 1) == "flat"


@pytest.mark.parametrize("layout", ["flat", "hnsw"])
def test_the_size_said_is_about_the_size_on_disk(layout: str, tmp_path: Path) -> None:
    index = ENGINES[layout](64)
    index.fill([(np.arange(2000), noise(2000, 64))], 2000)
    index.save(tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert written == pytest.approx(index.stats().bytes, rel=0.05)


def test_a_child_forked_after_construction_builds_and_searches() -> None:
    """A process that forks after OpenMP has started leaves a child that hangs."""
    program = (
        "import os\n"
        "from soundpost_indexer.faiss_index import FaissIndex\n"
        "FaissIndex(8, threads=1)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    import numpy as np\n"
        "    index = FaissIndex(8, layout='hnsw', exact_up_to=0, threads=2)\n"
        "    index.fill([(np.arange(500), np.eye(8)[np.arange(500) % 8])], 500)\n"
        "    os._exit(0 if index.search(np.eye(8), 3).ids.min() >= 0 else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
