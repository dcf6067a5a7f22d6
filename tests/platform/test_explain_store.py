"""Captions and explanations in the database, and finding windows by the words of captions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from soundpost.errors import InvalidValueError, UnknownFindingError, UnknownRecordingError
from soundpost.store import caption_search, captions, explanations, recordings
from soundpost.store.caption_search import CaptionMatch, Filters
from soundpost.store.captions import Author, NewCaption
from soundpost.store.explain_tables import Caption, StoredExplanation
from soundpost.store.session import Store
from soundpost.store.tables import Window, utc_now
from soundpost.store.watch_tables import Finding, Incident


class Captioned:
    """Windows of pump-3 with captions."""

    def __init__(self, archive: object) -> None:
        self.archive = archive
        self.store: Store = archive.store  # type: ignore[attr-defined]  # A PumpArchive of conftest.
        self.model_id: int = archive.model_id  # type: ignore[attr-defined]  # As above.
        self.author = Author(self.model_id, "fixed", "1")

    def windows_of(self, recording_id: int) -> list[int]:
        """Its windows, in the order of time."""
        with self.store.reading() as session:
            statement = select(Window.id).where(Window.recording_id == recording_id)
            return list(session.scalars(statement.order_by(Window.start_s)))

    def say(self, window_id: int, *wordings: str, author: Author | None = None) -> None:
        """Caption a window."""
        with self.store.session() as session:
            new = [NewCaption(wording, 0.5) for wording in wordings]
            captions.save(session, author or self.author, {window_id: new})

    def find(self, query: str, limit: int = 10, **filters: object) -> list[CaptionMatch]:
        """Search by words."""
        with self.store.reading() as session:
            chosen = Filters(self.model_id, **filters)  # type: ignore[arg-type]  # As the test says.
            return caption_search.find(session, query, limit, chosen)

    def found(self, query: str, limit: int = 10, **filters: object) -> list[int]:
        """The windows that are found by words."""
        return [match.window_id for match in self.find(query, limit, **filters)]


@pytest.fixture
def captioned(pump_archive: object) -> Captioned:
    return Captioned(pump_archive)


@pytest.fixture
def windows(captioned: Captioned) -> list[int]:
    """The windows of one recording, three of which have captions."""
    found = captioned.windows_of(captioned.archive.record(0))  # type: ignore[attr-defined]  # As above.
    captioned.say(found[0], "A dog barks while an engine is idling.", "a dog near a motor")
    captioned.say(found[1], "rain falls on a metal roof")
    captioned.say(found[2], "an engine starts and a horn blows")
    return found


# --- captions ---------------------------------------------------------------------------------


def test_captions_come_back_in_the_order_of_time_and_worth(
    captioned: Captioned, windows: list[int]
) -> None:
    with captioned.store.reading() as session:
        found = captions.of_recording(session, 1)
        best = captions.best(session, windows, captioned.model_id)
    assert [(row.start_s, row.place) for row in found] == [(0, 1), (0, 2), (5, 1), (10, 1)]
    assert found[1].text == "a dog near a motor"
    assert (found[0].captioner, found[0].revision, found[0].similarity) == ("fixed", "1", 0.5)
    assert best[windows[1]] == "rain falls on a metal roof"
    assert set(best) == set(windows[:3])


def test_the_same_author_replaces_what_it_said(captioned: Captioned, windows: list[int]) -> None:
    captioned.say(windows[0], "silence")
    with captioned.store.reading() as session:
        found = captions.of_recording(session, 1)
    assert [row.text for row in found if row.window_id == windows[0]] == ["silence"]
    # The words of what was replaced are gone too.
    assert captioned.found("dog") == []
    assert captioned.found("silence") == [windows[0]]


def test_another_author_and_another_model_keep_their_own(
    captioned: Captioned, windows: list[int]
) -> None:
    captioned.say(windows[0], "a wolf", author=Author(captioned.model_id, "fixed", "2"))
    other = captioned.archive.add_model("2")  # type: ignore[attr-defined]  # A PumpArchive.
    captioned.say(windows[0], "a fox", author=Author(other, "fixed", "1"))
    with captioned.store.reading() as session:
        texts = [row.text for row in captions.of_recording(session, 1)]
        of_model = captions.of_recording(session, 1, model_id=other)
        assert captions.best(session, windows, captioned.model_id)[windows[0]] == "a wolf"
        assert captions.any_of(session, other)
    assert len(texts) == 6
    assert [row.text for row in of_model] == ["a fox"]


def test_what_is_not_in_words_yet_is_known(captioned: Captioned, windows: list[int]) -> None:
    again = captioned.archive.record(1)  # type: ignore[attr-defined]  # A PumpArchive.
    with captioned.store.reading() as session:
        left = captions.uncaptioned(session, 1, captioned.author)
        both = captions.recordings_without(session, captioned.author)
        after = captions.recordings_without(session, captioned.author, after_id=1)
        assert captions.count(session, captioned.author) == 3
    assert left == windows[3:]
    assert (both, after) == ([1, again], [again])
    for window_id in windows[3:]:
        captioned.say(window_id, "a pump hums")
    with captioned.store.reading() as session:
        assert captions.recordings_without(session, captioned.author) == [again]


def test_a_deleted_recording_takes_its_captions_and_their_words_along(
    captioned: Captioned, windows: list[int]
) -> None:
    with captioned.store.session() as session:
        recordings.remove(session, 1)
    with captioned.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Caption)) == 0
        with pytest.raises(UnknownRecordingError):
            captions.of_recording(session, 1)
    assert captioned.found("dog") == []
    if captioned.store.engine.dialect.name == "sqlite":
        with captioned.store.session() as session:
            # Raises if the index does not fit the table.
            check = "INSERT INTO caption_words (caption_words, rank) VALUES ('integrity-check', 1)"
            session.execute(text(check))


def test_a_window_that_is_gone_is_left_out(captioned: Captioned, windows: list[int]) -> None:
    with captioned.store.session() as session:
        wordings = {windows[3]: [NewCaption("wind")], 10_000: [NewCaption("wind")]}
        assert captions.save(session, captioned.author, wordings) == 1
        assert captions.save(session, captioned.author, {}) == 0


def test_a_caption_without_a_word_is_refused_and_nul_is_left_out(
    captioned: Captioned, windows: list[int]
) -> None:
    captioned.say(windows[3], "wind\0 \n in trees")
    assert captioned.find("wind")[0].text == "wind in trees"
    with pytest.raises(InvalidValueError, match="words"):
        captioned.say(windows[3], " ... ")


def test_two_who_caption_the_same_window_at_once_do_not_fail(
    captioned: Captioned, windows: list[int]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with captioned.store.session() as session:
            captions.save(session, captioned.author, {windows[3]: [NewCaption("a fox")]})
            other = pool.submit(captioned.say, windows[3], "a wolf")
            # Long enough for it to have found no caption, were it not kept waiting.
            with pytest.raises(TimeoutError):
                other.result(timeout=0.5)
        other.result(timeout=30.0)
    with captioned.store.reading() as session:
        assert captions.best(session, windows[3:4], captioned.model_id) == {windows[3]: "a wolf"}


# --- by words ---------------------------------------------------------------------------------


def test_words_find_windows_whole_matches_first(captioned: Captioned, windows: list[int]) -> None:
    assert captioned.found("rain on a roof") == [windows[1]]
    matches = captioned.find("dog engine")
    assert [(match.window_id, match.whole) for match in matches] == [
        (windows[0], True),
        (windows[2], False),
    ]
    assert matches[0].text == "A dog barks while an engine is idling."
    assert (matches[0].recording_id, matches[0].start_s, matches[0].end_s) == (1, 0.0, 5.0)


def test_other_forms_of_a_word_and_other_cases_match(
    captioned: Captioned, windows: list[int]
) -> None:
    assert captioned.found("BARKING dogs") == [windows[0]]
    assert captioned.find("Dog barking")[0].whole


def test_words_that_one_database_drops_count_on_none(
    captioned: Captioned, windows: list[int]
) -> None:
    (match,) = captioned.find("a dog's bark, now, don't they, against itself")
    assert (match.window_id, match.whole) == (windows[0], True)
    assert caption_search.content_words("Don't! Myself again, now") == []


def test_a_window_is_found_once_and_the_limit_holds(
    captioned: Captioned, windows: list[int]
) -> None:
    # Two captions of the first window have the word.
    assert captioned.found("dog") == [windows[0]]
    assert len(captioned.found("dog engine rain", limit=2)) == 2
    assert captioned.found("dog", limit=0) == []


ODD = [
    "",
    "   ",
    "the sound of a",
    '"',
    "dog AND (",
    'NEAR("dog" engine, 2)',
    "text:dog OR",
    "dog* -engine ^rain {a b}",
    "'; DROP TABLE captions; --",
    "& | ! <-> :*",
    "\0dog\0",
    "\ud800",
    "犬 🐕 ___",
    "dog " * 400,
    "%s %(a)s :name ?",
]


@pytest.mark.parametrize("query", ODD)
def test_what_a_person_types_is_never_read_as_syntax(
    query: str, captioned: Captioned, windows: list[int]
) -> None:
    found = captioned.found(query)
    words = caption_search.content_words(query)
    assert set(found) <= set(windows)
    assert (windows[0] in found) == ("dog" in words or "engine" in words)


def test_operators_are_words_like_any_other(captioned: Captioned, windows: list[int]) -> None:
    assert captioned.found("horn NOT engine") == [windows[2], windows[0]]


def test_filters_by_source_time_and_model(captioned: Captioned, windows: list[int]) -> None:
    noon = captioned.archive.noon  # type: ignore[attr-defined]  # A PumpArchive.
    later = noon + timedelta(seconds=5)
    found = captioned.found("dog engine rain", source="pump-3", after=later)
    assert set(found) == set(windows[1:3])
    assert captioned.found("engine", before=later) == [windows[0]]
    assert captioned.found("engine", source="elsewhere") == []
    with captioned.store.reading() as session:
        assert caption_search.find(session, "dog", 9, Filters(captioned.model_id + 1)) == []


def test_content_words_are_few_and_say_something() -> None:
    assert caption_search.content_words("The sound of a Dog, barking dog!") == ["dog", "barking"]
    assert len(caption_search.content_words(" ".join(map(str, range(100))))) == 32


# --- explanations -----------------------------------------------------------------------------


def test_an_explanation_is_kept_by_what_it_was_made_of(store: Store) -> None:
    key = explanations.key_of(["a", "b"], ["compact 1"], (1, 2))
    assert key == explanations.key_of(["a", "b"], ["compact 1"], [2, 1, 1])
    others = [(["b", "a"], ["compact 1"], (1, 2)), (["a", "b"], ["compact 2"], (1, 2))]
    assert key not in [explanations.key_of(*other) for other in others]
    with store.session() as session:
        assert explanations.find(session, key) is None
        explanations.save(session, key, "adiff", "1", {"summary": "2 dB louder"})
        explanations.save(session, key, "adiff", "1", {"summary": "something else"})
        assert explanations.find(session, key) == {"summary": "2 dB louder"}
        assert explanations.remove_old(session, utc_now() - timedelta(days=1)) == 0
        assert explanations.remove_old(session, utc_now() + timedelta(days=1)) == 1
        assert session.scalar(select(func.count()).select_from(StoredExplanation)) == 0


def test_a_finding_is_explained_once_it_has_a_document(captioned: Captioned) -> None:
    archive = captioned.archive
    windows = captioned.windows_of(archive.record(0))  # type: ignore[attr-defined]  # A PumpArchive.
    with captioned.store.session() as session:
        now = utc_now()
        incident = Incident(
            source_id=archive.source_id,  # type: ignore[attr-defined]  # A PumpArchive.
            state="open",
            severity="warning",
            group_key="pump-3",
            pending_since=now,
            last_fired_at=now,
        )
        session.add(incident)
        session.flush()
        made = Finding(
            incident_id=incident.id, window_id=windows[0], reference_window_id=windows[1]
        )
        alone = Finding(incident_id=incident.id, window_id=windows[2])
        # A null of JSON, as whoever names the column and has nothing to say writes it.
        named = Finding(incident_id=incident.id, reference_window_id=windows[1], claims=None)
        session.add_all([made, alone, named])
        session.flush()
        assert explanations.unexplained(session, incident.id) == [made, named]
        session.delete(named)
        assert explanations.explain_finding(session, made.id, {"summary": "x"}, [{"quote": "y"}])
        assert not explanations.explain_finding(session, 999, {}, [])
        finding_id, incident_id = made.id, incident.id
    with captioned.store.reading() as session:
        assert explanations.unexplained(session, incident_id) == []
        found = explanations.finding(session, finding_id)
        assert (found.explanation, found.claims) == ({"summary": "x"}, [{"quote": "y"}])
        with pytest.raises(UnknownFindingError):
            explanations.finding(session, 999)
