"""Explanations and captions over HTTP: what is answered, and how it gives up."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import select

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    ExplainTimeoutError,
    FileMissingError,
    InvalidValueError,
    NoSamplesError,
    NotAudioError,
    UnknownRecordingError,
)
from soundpost.explain import between
from soundpost.explain.difference import DifferenceExplainer
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.placeholder import ToneEncoder
from soundpost.service.app import create_app
from soundpost.service.explaining import LazyExplainer
from soundpost.store import captions, models
from soundpost.store.captions import Author, NewCaption
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost.store.tables import Window
from soundpost_indexer.exact import ExactIndex

RATE_HZ = 16_000


def tone(level: float, length_s: float = 4.0, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    time_s = np.arange(round(length_s * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * 440.0 * time_s)).astype(np.float32)


@pytest.fixture
def filled(start_service: Any, store: Store) -> Any:
    """A service without a network, with a soft and a loud tone, and its ids by name."""
    service = start_service(store, explainer="off", explain_timeout_s=120.0)
    service.ids = service.fill(soft=tone(0.02), loud=tone(0.4))
    return service


def test_two_recordings_are_told_apart_with_every_claim_checked(filled: Any) -> None:
    made = filled.client.explain(filled.ids["soft"], filled.ids["loud"])
    assert [tier.tier for tier in made.tiers] == [1, 2, 3]
    assert "dB" in made.summary
    assert made.compared == [[0.0, 4.0], [0.0, 4.0]]
    claims = [claim for tier in made.tiers for claim in tier.claims]
    assert claims
    for tier in made.tiers:
        for claim in tier.claims:
            assert tier.text[claim.start : claim.end] == claim.quote
            assert claim.verdict != "contradicted"
    assert made.took_s > 0


def test_one_tier_and_stretches(filled: Any) -> None:
    made = filled.client.explain(
        filled.ids["soft"],
        filled.ids["loud"],
        tiers=[1],
        of_first={"start_s": 1.0, "end_s": 3.0},
        of_second={"start_s": 2.0},
    )
    assert [tier.tier for tier in made.tiers] == [1]
    assert made.compared == [[1.0, 3.0], [2.0, 4.0]]


def test_the_same_recording_twice_has_no_audible_difference(filled: Any) -> None:
    same = filled.ids["soft"]
    made = filled.client.explain(same, same)
    assert all("no audible difference" in tier.text.lower() for tier in made.tiers)


def test_an_upload_at_another_rate_is_told_apart_from_a_recording(
    filled: Any, tmp_path: Path
) -> None:
    path = tmp_path / "new.wav"
    soundfile.write(path, tone(0.4, 3.0, 44_100), 44_100)
    made = filled.client.explain_audio(path, filled.ids["soft"], tier=1)
    assert made.compared == [[0.0, 4.0], [0.0, 3.0]]
    part = filled.client.explain_audio(
        path, filled.ids["soft"], tier=1, start_s=1.0, end_s=2.0, reference_start_s=2.0
    )
    assert part.compared == [[2.0, 4.0], [1.0, 2.0]]
    assert filled.left_behind() == []


def test_what_cannot_be_told_apart_is_refused_with_its_code(filled: Any, tmp_path: Path) -> None:
    soft, explain = filled.ids["soft"], filled.client.explain
    with pytest.raises(UnknownRecordingError):
        explain(soft, 999)
    with pytest.raises(InvalidValueError, match="tiers"):
        explain(soft, soft, tiers=[4])
    with pytest.raises(InvalidValueError, match="tiers"):
        explain(soft, soft, tiers=[])
    with pytest.raises(InvalidValueError, match="end_s"):
        explain(soft, soft, of_first={"start_s": 3.0, "end_s": 1.0})
    with pytest.raises((NoSamplesError, InvalidValueError)):
        explain(soft, soft, of_second={"start_s": 100.0})
    (tmp_path / "x.wav").write_text("no sound")
    with pytest.raises(NotAudioError, match=r"x\.wav"):
        filled.client.explain_audio(tmp_path / "x.wav", soft)
    soundfile.write(tmp_path / "y.wav", tone(0.1), RATE_HZ)
    with pytest.raises(UnknownRecordingError):
        filled.client.explain_audio(tmp_path / "y.wav", 999)
    assert filled.left_behind() == []


def test_audio_that_is_gone_is_named(filled: Any) -> None:
    (filled.folder / "hall" / "loud.wav").unlink()
    with pytest.raises(FileMissingError):
        filled.client.explain(filled.ids["soft"], filled.ids["loud"])


def test_too_much_audio_is_refused_with_what_to_do(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(between, "LONGEST_S", 1.0)
    answer = httpx.post(
        f"{filled.url}/v1/explain",
        json={"first": {"recording_id": 1}, "second": {"recording_id": 2}},
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "too-long")
    assert "START-END" in problem["detail"]


# --- time and load ----------------------------------------------------------------------------


class Slow(DifferenceExplainer):
    """Explains nothing before it is let."""

    def __init__(self) -> None:
        super().__init__(ToneEncoder(), None)
        self.let = threading.Event()

    def explain(self, *args: Any, **options: Any) -> Any:
        """Wait, and explain then."""
        assert self.let.wait(60)
        return super().explain(*args, **options)


def test_an_explanation_that_takes_too_long_is_answered(
    start_service: Any, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr("soundpost.service.app._load_explainer", lambda *_: slow)
    service = start_service(sqlite_store, explain_timeout_s=0.2)
    ids = service.fill(soft=tone(0.02))
    try:
        with pytest.raises(ExplainTimeoutError) as caught:
            service.client.explain(ids["soft"], ids["soft"])
    finally:
        slow.let.set()
    assert "SOUNDPOST_EXPLAIN_TIMEOUT_S" in caught.value.remedy


def test_a_model_that_cannot_be_loaded_is_asked_for_again() -> None:
    loads = []

    def load() -> DifferenceExplainer:
        loads.append(1)
        if len(loads) == 1:
            raise BrokenCheckpointError("adiff")
        return DifferenceExplainer(ToneEncoder(), None)

    explainer = LazyExplainer(load)
    with pytest.raises(BrokenCheckpointError):
        explainer()
    assert explainer() is explainer()
    assert len(loads) == 2


def test_an_application_may_be_handed_its_explainer(sqlite_store: Store, tmp_path: Path) -> None:
    mine = DifferenceExplainer(ToneEncoder(), None)
    settings, objects = Settings(home=tmp_path), AudioFiles(tmp_path.as_uri())
    parts = settings, sqlite_store, ExactIndex(32), ToneEncoder(), JobQueue(NoSender()), objects
    app = create_app(*parts, load_explainer=lambda: mine)
    assert app.state.parts.explainer() is mine


# --- captions ---------------------------------------------------------------------------------


def test_captions_are_listed_and_asked_for(filled: Any) -> None:
    soft = filled.ids["soft"]
    assert list(filled.client.captions(soft)) == []
    job = filled.client.caption(soft)
    assert (job.kind, job.state, job.recording_id) == ("caption", "queued", soft)
    with filled.store.session() as session:
        spec = ToneEncoder().spec
        author = Author(models.ensure(session, spec).id, "fixed", "1")
        wordings = {soft: [NewCaption("a soft tone", 0.5), NewCaption("a hum", None)]}
        captions.save(session, author, wordings)
    found = list(filled.client.captions(soft))
    assert [(row.place, row.text, row.similarity) for row in found] == [
        (1, "a soft tone", 0.5),
        (2, "a hum", None),
    ]
    hit = filled.client.search_text("440 hz").hits[0]
    assert hit.caption in ("a soft tone", None)
    assert filled.client.search_text("a soft hum").hits == []
    assert filled.client.search_text("soft tone").hits[0].matched == ["words"]
    for call in (lambda number: list(filled.client.captions(number)), filled.client.caption):
        with pytest.raises(UnknownRecordingError):
            call(999)


def test_the_captions_of_a_long_recording_come_in_pages(start_service: Any, store: Store) -> None:
    service = start_service(store, explainer="off")
    (number,) = service.fill(long=tone(0.1, 21.0)).values()
    with service.store.session() as session:
        windows = list(session.scalars(select(Window.id).order_by(Window.start_s)))
        author = Author(models.ensure(session, ToneEncoder().spec).id, "fixed", "1")
        other = replace(ToneEncoder().spec, revision="of another encoder")
        stranger = Author(models.ensure(session, other).id, "fixed", "1")
        for key in windows:
            captions.save(session, author, {key: [NewCaption("a hum"), NewCaption("a tone")]})
            captions.save(session, stranger, {key: [NewCaption("a fox")]})
    path = f"{service.url}/v1/recordings/{number}/captions"
    page = httpx.get(path, params={"limit": 2}).json()
    assert [(row["start_s"], row["place"]) for row in page["items"]] == [
        (0.0, 1), (0.0, 2), (page["items"][2]["start_s"], 1), (page["items"][2]["start_s"], 2),
    ]  # fmt: skip
    assert page["next"] is not None
    found = list(service.client.captions(number, page_size=2))
    assert len(found) == 2 * len(windows) > 4
    assert {row.text for row in found} == {"a hum", "a tone"}
    assert [row.start_s for row in found] == sorted(row.start_s for row in found)
    assert httpx.get(path, params={"cursor": "x"}).json()["code"] == "invalid-value"
