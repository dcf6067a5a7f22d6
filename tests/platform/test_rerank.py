"""Reranking puts what was found in order, says what it did, and never stands in a search's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import event, select, update

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.archive.rerank import (
    MOST_CANDIDATES,
    REACH_S,
    SecondStage,
    check_rerank,
    gather,
    read_rerank,
)
from soundpost.archive.search import (
    SearchOptions,
    SearchResult,
    example_from_file,
    search_similar,
    search_text,
)
from soundpost.config import Settings
from soundpost.errors import (
    EncoderUnavailableError,
    InvalidValueError,
    NoRerankerError,
    SoundpostError,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import embeddings
from soundpost.store.session import Store
from soundpost.store.tables import Embedding, Window
from soundpost_indexer.exact import ExactIndex

RATE_HZ = 16_000
QUERY = "1000 hz before 200 hz"
# Two seconds of silence between the tones, so that no window holds more of one than of the other.
PIECES = {
    "low first": ((200, 4), (0, 2), (1000, 4)),
    "high first": ((1000, 4), (0, 2), (200, 4)),
    "both at once, low first": ((200, 2), (1000, 2), (200, 1), (1000, 1)),
    "only high": ((1000, 6),),
    "only low": ((200, 6),),
}


@dataclass
class Archive:
    """A searchable archive of tones."""

    store: Store
    index: ExactIndex
    stages: list[SecondStage] = field(default_factory=list)

    def search(self, reranker: Any = None, text: str = QUERY, **options: Any) -> SearchResult:
        """Search it by text, in the order of a reranker if one is given."""
        budget_s = options.pop("budget_s", 30.0)
        stage = SecondStage(reranker or NoRerankerError(), budget_s=budget_s)
        self.stages.append(stage)
        options = {"min_score": 0.05, **options}
        return search_text(
            text, SearchOptions(**options), self.store, ToneEncoder(), self.index, stage
        )

    def damage(self, name: str | None = None) -> None:
        """Overwrite the vectors of a recording, or of all, with NaN."""
        bad = np.full(32, np.nan, dtype="<f4").tobytes()
        with self.store.session() as session:
            statement = update(Embedding).values(vector=bad)
            if name is not None:
                (hit,) = [h for h in self.search().hits if Path(h.path).stem == name]
                windows = select(Window.id).where(Window.recording_id == hit.recording_id)
                statement = statement.where(Embedding.window_id.in_(windows))
            session.execute(statement)


def tones(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """Sines one after the other: (pitch in Hz, seconds)."""
    waves = [
        0.3 * np.sin(2 * np.pi * hz * np.arange(round(length_s * RATE_HZ)) / RATE_HZ)
        for hz, length_s in parts
    ]
    return np.concatenate(waves).astype(np.float32)


def fill(store: Store, folder: Path, pieces: dict[str, Any]) -> Archive:
    """Embed recordings of tones."""
    for name, parts in pieces.items():
        soundfile.write(folder / f"{name}.wav", tones(*parts), RATE_HZ, subtype="PCM_16")
    index = ExactIndex(32)
    found = find_files([folder], Selection())
    assert not ingest(found, IngestOptions(), store, ToneEncoder(), index).failed
    return Archive(store, index)


@pytest.fixture
def archive(sqlite_store: Store, tmp_path: Path) -> Iterator[Archive]:
    """Recordings that hold two tones in one order or the other, or only one of them."""
    filled = fill(sqlite_store, tmp_path, PIECES)
    yield filled
    for stage in filled.stages:
        stage.close()


def names(result: SearchResult) -> list[str]:
    return [Path(hit.path).stem for hit in result.hits]


# --- what a search gives ----------------------------------------------------------------------


def test_what_is_meant_comes_first_though_it_is_no_more_similar(
    archive: Archive, order_reranker: Any
) -> None:
    assert names(archive.search(order_reranker))[0] == "high first"
    assert names(archive.search(order_reranker, text="200 hz before 1000 hz"))[0] != "high first"
    plain = archive.search().hits
    similarity = {Path(hit.path).stem: hit.similarity for hit in plain}
    assert similarity["high first"] == pytest.approx(similarity["low first"], abs=0.02)


def test_a_hit_says_why_it_is_where_it_is(archive: Archive, order_reranker: Any) -> None:
    result = archive.search(order_reranker, k=50)
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    for hit in result.hits:
        assert hit.joint_probability is not None
        wanted = hit.similarity + order_reranker.weight * hit.joint_probability
        assert hit.score == pytest.approx(wanted, abs=2e-4)
    assert sum(hit.joint_probability or 0.0 for hit in result.hits) == pytest.approx(1, abs=1e-3)
    done = result.rerank
    assert (done.applied, done.reason, done.left_out) == (True, None, 0)
    assert (done.reranker, done.revision, done.steps, done.weight) == ("order", "7", 1, 2.0)
    assert done.candidates == len(result.hits)
    assert done.took_s > 0


def test_it_makes_no_hit_and_refuses_none(archive: Archive, order_reranker: Any) -> None:
    for min_score in (0.0, 0.05, 0.2, 0.9):
        reranked = archive.search(order_reranker, k=50, min_score=min_score)
        plain = archive.search(k=50, min_score=min_score)
        assert sorted(names(reranked)) == sorted(names(plain))
        assert all(hit.relevance >= min_score for hit in reranked.hits)


def test_without_a_reranker_similarity_decides_and_the_answer_says_why(archive: Archive) -> None:
    result = archive.search()
    similarities = [hit.similarity for hit in result.hits]
    assert similarities == sorted(similarities, reverse=True)
    assert [hit.score for hit in result.hits] == similarities
    assert {hit.joint_probability for hit in result.hits} == {None}
    assert (result.rerank.applied, result.rerank.reason) == (False, "no-reranker")


def test_off_is_off(archive: Archive, order_reranker: Any) -> None:
    result = archive.search(order_reranker, rerank="off")
    assert (result.rerank.applied, result.rerank.reason) == (False, "off")
    assert result.hits == archive.search().hits
    assert order_reranker.asked == []


def test_what_is_not_judged_follows_by_similarity(archive: Archive, order_reranker: Any) -> None:
    plain = names(archive.search(k=50))
    for count in (1, 2, 3):
        result = archive.search(order_reranker, k=50, rerank=count)
        assert result.rerank.candidates == count
        assert sorted(names(result)[:count]) == sorted(plain[:count])
        assert names(result)[count:] == plain[count:]
        known = [hit.joint_probability is not None for hit in result.hits]
        assert known == [place < count for place in range(len(known))]


def test_more_is_judged_than_is_shown(archive: Archive, order_reranker: Any) -> None:
    everything = archive.search(order_reranker, k=50)
    for k in (1, 2):
        result = archive.search(order_reranker, k=k)
        assert result.hits == everything.hits[:k]
        assert result.rerank.candidates == everything.rerank.candidates


def test_the_settings_say_how_many_auto_is(archive: Archive, order_reranker: Any) -> None:
    settings = Settings(rerank_candidates=2, rerank_budget_s=30.0)
    stage = SecondStage.load(settings, lambda: order_reranker)
    options = SearchOptions(k=50, min_score=0.05)
    result = search_text(QUERY, options, archive.store, ToneEncoder(), archive.index, stage)
    assert result.rerank.candidates == 2
    stage.close()


def test_one_hit_is_certain_and_none_is_nothing_to_order(
    archive: Archive, order_reranker: Any
) -> None:
    one = archive.search(order_reranker, rerank=1, k=1)
    assert one.hits[0].joint_probability == 1.0
    nothing = archive.search(order_reranker, text="a church choir", min_score=0.3)
    assert nothing.hits == ()
    assert nothing.nearest is not None and nothing.nearest.joint_probability is None
    assert (nothing.rerank.applied, nothing.rerank.reason) == (False, "nothing-to-order")
    assert len(order_reranker.asked) == 1


def test_examples_are_not_reranked(archive: Archive, tmp_path: Path) -> None:
    example = example_from_file(tmp_path / "only low.wav", ToneEncoder())
    options = SearchOptions(min_score=0.05)
    result = search_similar(example, options, archive.store, ToneEncoder(), archive.index)
    assert result.hits
    assert (result.rerank.applied, result.rerank.reason) == (False, "by-example")


def test_the_same_search_gives_the_same_answer(archive: Archive, order_reranker: Any) -> None:
    def told() -> dict[str, Any]:
        document = archive.search(order_reranker, k=50).to_document()
        del document["rerank"]["took_s"]
        return document

    assert told() == told()


def test_words_that_claim_nothing_are_left_to_similarity(
    archive: Archive, order_reranker: Any
) -> None:
    result = archive.search(order_reranker, text="200 hz")
    assert (result.rerank.applied, result.rerank.reason) == (False, "no-claim")
    assert order_reranker.asked == []
    assert all(hit.joint_probability is None for hit in result.hits)
    assert result.hits == archive.search(text="200 hz").hits


# --- what goes wrong --------------------------------------------------------------------------


def test_after_the_budget_similarity_order_comes_back_and_says_so(
    archive: Archive, order_reranker: Any
) -> None:
    order_reranker.let.clear()
    result = archive.search(order_reranker, budget_s=0.05)
    assert (result.rerank.applied, result.rerank.reason) == (False, "rerank-timeout")
    assert "0.05 s" in result.rerank.detail
    assert result.hits == archive.search().hits
    order_reranker.let.set()
    assert archive.search(order_reranker).rerank.applied


def test_one_that_hangs_does_not_pile_up_work(archive: Archive, order_reranker: Any) -> None:
    order_reranker.let.clear()
    stage = SecondStage(order_reranker, budget_s=0.01)
    options = SearchOptions(min_score=0.05)
    parts = archive.store, ToneEncoder(), archive.index
    for _ in range(20):
        assert not search_text(QUERY, options, *parts, stage).rerank.applied
    order_reranker.let.set()
    patient = SecondStage(order_reranker, budget_s=30.0)
    assert search_text(QUERY, options, *parts, patient).rerank.applied
    assert len(order_reranker.asked) <= 2
    stage.close()
    patient.close()


def test_one_of_another_encoder_is_not_used(archive: Archive, order_reranker: Any) -> None:
    reranker = type(order_reranker)(encoder_revision="2")
    result = archive.search(reranker)
    assert (result.rerank.applied, result.rerank.reason) == (False, "reranker-mismatch")
    assert "placeholder:tone 2" in result.rerank.detail
    assert result.hits == archive.search().hits
    assert reranker.asked == []


class Broken:
    """Answers with what it is given, or raises it."""

    def __init__(self, like: Any, answer: Callable[[int], NDArray[np.float32]] | Exception) -> None:
        self.spec, self.weight = like.spec, like.weight
        self._answer = answer

    def applies_to(self, text: str) -> bool:
        """Nothing is wrong with this answer."""
        return True

    def joint_probability(self, text: str, similarities: Any, candidates: Any) -> Any:
        """Answer wrongly."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer(len(candidates))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda count: np.full(count, np.nan, np.float32), "broken-checkpoint"),
        (lambda count: np.full(count + 1, 0.1, np.float32), "broken-checkpoint"),
        (EncoderUnavailableError(None, "its process ended"), "encoder-unavailable"),
    ],
)
def test_one_that_fails_leaves_the_search_whole(
    archive: Archive, order_reranker: Any, answer: Any, reason: str
) -> None:
    result = archive.search(Broken(order_reranker, answer))
    assert (result.rerank.applied, result.rerank.reason) == (False, reason)
    assert result.hits == archive.search().hits


def test_hits_with_damaged_vectors_are_left_out_and_counted(
    archive: Archive, order_reranker: Any
) -> None:
    before = archive.search(order_reranker, k=50)
    archive.damage("high first")
    result = archive.search(order_reranker, k=50)
    assert sorted(names(result)) == sorted(names(before))
    assert result.rerank.applied
    assert result.rerank.left_out == names(before).count("high first")
    judged = {Path(hit.path).stem for hit in result.hits if hit.joint_probability is not None}
    assert judged == set(names(before)) - {"high first"}
    assert names(result)[-1] == "high first"
    assert all(np.isfinite(hit.score) for hit in result.hits)


def test_an_archive_of_damaged_vectors_is_still_answered(
    archive: Archive, order_reranker: Any
) -> None:
    plain = archive.search()
    archive.damage()
    result = archive.search(order_reranker)
    assert (result.rerank.reason, result.rerank.left_out) == ("nothing-to-order", len(plain.hits))
    assert result.hits == plain.hits


@dataclass
class NanIndex:
    """An index some of whose cosines are no numbers."""

    inner: ExactIndex

    @property
    def dimension(self) -> int:
        """As the other."""
        return self.inner.dimension

    def __len__(self) -> int:
        return len(self.inner)

    def search(self, vectors: Any, k: int, allowed: Any = None) -> Any:
        """Spoil every second score."""
        found = self.inner.search(vectors, k, allowed)
        found.scores[:, ::2] = np.nan
        return found


def test_cosines_that_are_no_numbers_are_no_hits(archive: Archive, order_reranker: Any) -> None:
    archive.index = NanIndex(archive.index)  # type: ignore[assignment]  # a search index too
    result = archive.search(order_reranker, k=50)
    assert result.hits
    assert all(np.isfinite(hit.score) for hit in result.hits)
    assert result.rerank.candidates == len(result.hits)


# --- what may be asked for --------------------------------------------------------------------


@pytest.mark.parametrize("rerank", [0, -1, MOST_CANDIDATES + 1, True, "all", "64", None, 2.5])
def test_a_number_out_of_range_is_refused(archive: Archive, rerank: Any) -> None:
    with pytest.raises(InvalidValueError, match="1 to 1000") as caught:
        archive.search(rerank=rerank)
    assert str(rerank) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", "auto"), (" Off ", "off"), ("64", 64), ("1000", 1000)]
)
def test_it_is_read_as_people_write_it(text: str, expected: object) -> None:
    read = read_rerank(text)
    assert read == expected
    check_rerank(read)


@pytest.mark.parametrize("text", ["", "0", "-3", "1001", "1.5", "all", "9" * 5000])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        read_rerank(text)


@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "x" * 10_000, "дождь " * 2_000, "a \ud800 b", "🌧" * 1_001],
    ids=["empty", "blank", "long", "long in Cyrillic", "half a character", "long in emoji"],
)
def test_texts_that_cannot_be_searched_are_refused(
    archive: Archive, order_reranker: Any, text: str
) -> None:
    with pytest.raises(InvalidValueError):
        archive.search(order_reranker, text=text)
    assert order_reranker.asked == []


@pytest.mark.parametrize(
    "text", ["雨の音", "дождь по крыше", "صوت المطر", "🐶🔊", "\u200b", "a\u0301\u0302", "x" * 490]
)
def test_any_script_is_a_query(archive: Archive, order_reranker: Any, text: str) -> None:
    result = archive.search(order_reranker, text=f"{text} before {text}", min_score=0.0)
    assert result.hits
    assert result.rerank.applied
    assert all(np.isfinite(hit.score) for hit in result.hits)


# --- candidates -------------------------------------------------------------------------------


def expected_frames(store: Store, embedding_id: int) -> NDArray[np.float32]:
    """What a candidate's frames are, worked out one second after the other.

    A second is that of the first window that has it.
    """
    with store.reading() as session:
        (own,) = embeddings.spans(session, [embedding_id])
        ids = embeddings.ids_of(session, own.recording_id)
        details = embeddings.details(session, ids)
    near = [d for d in details if own.start_s - REACH_S <= d.start_s < own.end_s + REACH_S]
    seconds: dict[int, NDArray[np.float32]] = {}
    for detail in sorted(near, key=lambda item: item.start_s):
        for place, frame in enumerate(detail.frames):
            at_s = round(detail.start_s) + place
            if own.start_s - REACH_S <= at_s < own.end_s + REACH_S:
                seconds.setdefault(at_s, frame / np.float32(127))
    return np.stack([seconds[at_s] for at_s in sorted(seconds)])


def ids_of_all(store: Store) -> list[int]:
    with store.reading() as session:
        return list(session.scalars(select(Embedding.id).order_by(Embedding.id)))


def test_a_candidate_is_what_is_heard_around_its_window(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path, {"long": ((200, 20), (1000, 7), (3000, 21.3)), **PIECES})
    ids = ids_of_all(store)
    rng = np.random.default_rng(3)
    wanted = [ids[place] for place in rng.permutation(len(ids))]
    with store.reading() as session:
        candidates = gather(session, wanted)
    assert candidates.keys.tolist() == wanted
    np.testing.assert_allclose(np.linalg.norm(candidates.vectors, axis=1), 1.0, atol=1e-5)
    for row, embedding_id in enumerate(wanted):
        frames = expected_frames(store, embedding_id)
        assert candidates.lengths[row] == len(frames) <= 4 + 2 * REACH_S
        np.testing.assert_allclose(candidates.frames[row, : len(frames)], frames, atol=1e-5)
        assert not candidates.frames[row, len(frames) :].any()


def test_candidates_do_not_depend_on_each_other_or_their_order(
    archive: Archive,
) -> None:
    ids = ids_of_all(archive.store)
    with archive.store.reading() as session:
        together = gather(session, ids)
        backwards = gather(session, ids[::-1])
        alone = [gather(session, [embedding_id]) for embedding_id in ids]
    np.testing.assert_array_equal(together.vectors, backwards.vectors[::-1])
    np.testing.assert_array_equal(together.frames, backwards.frames[::-1])
    for row, one in enumerate(alone):
        np.testing.assert_array_equal(together.vectors[row], one.vectors[0])
        length = int(one.lengths[0])
        np.testing.assert_array_equal(together.frames[row, :length], one.frames[0])


def test_candidates_are_fetched_by_one_query(archive: Archive) -> None:
    ids, statements = ids_of_all(archive.store), list[str]()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(archive.store.engine, "before_cursor_execute", note)
    with archive.store.reading() as session:
        candidates = gather(session, ids)
    assert len(candidates) == len(ids) > 5
    assert len(statements) == 1


@pytest.mark.parametrize("ids", [[], [10**9], [10**9, 10**9 + 1]])
def test_what_was_deleted_is_no_candidate(store: Store, ids: Sequence[int]) -> None:
    with store.reading() as session:
        assert len(gather(session, ids)) == 0


def test_every_reason_that_is_an_error_has_a_remedy() -> None:
    for code in ("no-reranker", "reranker-mismatch", "rerank-timeout"):
        kinds = [k for k in all_kinds(SoundpostError) if k.code == code]
        assert len(kinds) == 1 and "oundpost" in kinds[0].remedy.lower()


def all_kinds(kind: type[SoundpostError]) -> Iterator[type[SoundpostError]]:
    for below in kind.__subclasses__():
        yield below
        yield from all_kinds(below)
