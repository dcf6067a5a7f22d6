"""Explaining by job: every finding once, whatever messages do and whatever became of the audio."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import func, select

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.config import Settings
from soundpost.errors import AudioStoreError, BrokenCheckpointError
from soundpost.explain import between, captioning
from soundpost.explain.caption import FixedCaptioner
from soundpost.explain.difference import DifferenceExplainer, FixedWriter
from soundpost.jobs import JobQueue, NoSender, caption_key
from soundpost.models.placeholder import ToneEncoder
from soundpost.monitoring.feedback import explain_findings, tell_and_learn
from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.store import captions, explanations, incidents, jobs, recordings, rules
from soundpost.store.explain_tables import StoredExplanation
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost.store.tables import Job, Recording, Window, utc_now
from soundpost.store.watch_tables import Finding
from soundpost_workers.explain import ExplainTools, caption, explain

RATE_HZ = 16_000


class Explained:
    """Two recordings of one source, and an incident of the louder one."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.encoder = ToneEncoder()
        self.loads: list[str] = []
        self.queue = JobQueue(NoSender())
        time_s = np.arange(4 * RATE_HZ) / RATE_HZ
        for name, level in (("normal", 0.05), ("loud", 0.4)):
            wave = level * np.sin(2 * np.pi * 440.0 * time_s)
            soundfile.write(folder / f"{name}.wav", wave, RATE_HZ, subtype="PCM_16")
        found = find_files([folder], Selection())
        options = IngestOptions(source="pump-3")
        assert not ingest(found, options, store, self.encoder, None).failed
        with store.reading() as session:
            rows = session.execute(
                select(Recording.path, Window.id, Recording.source_id).join(
                    Window, Window.recording_id == Recording.id
                )
            ).all()
        self.windows = {Path(path).stem: window_id for path, window_id, _ in rows}
        self.source_id = rows[0].source_id
        self.tools = ExplainTools(
            settings=Settings(home=folder / "home"),
            store=store,
            files=AudioFiles((folder / "objects").as_uri()),
            explainer=self._explainer,
            captioner=lambda: FixedCaptioner(self.encoder, "a pump hums", "a machine runs"),
            worker="worker",
        )

    def _explainer(self) -> DifferenceExplainer:
        self.loads.append("explainer")
        return DifferenceExplainer(self.encoder, None)

    def open_incident(self, **fields: Any) -> int:
        """Open an incident with one finding; return the finding."""
        now = utc_now()
        with self.store.session() as session:
            kind = {"kind": "level", "created_by": "ann", "settings": {"above_dbfs": -30}}
            rule = rules.add(session, rules.NewRule(name="loud", **kind), now=now)
            firing = Firing(rule.id, self.source_id, now, now, "loud")
            told = tell_and_learn(self.queue)
            round_ = Round(self.source_id, [firing], {rule.id: now}, now)
            incident_id = apply(session, round_, now, told).changes[0].incident_id
            made = Finding(
                incident_id=incident_id,
                window_id=self.windows["loud"],
                reference_window_id=self.windows["normal"],
                measurements={"sentence": "18.1 dB louder (A-weighted)"},
            )
            for name, value in fields.items():
                setattr(made, name, value)
            session.add(made)
            session.flush()
            explain_findings(self.queue)(session, incident_id, [made])
            return made.id

    def waiting(self, kind: str = "explain") -> list[int]:
        """The jobs that wait."""
        with self.store.reading() as session:
            return [job.id for job in jobs.find(session, kind=kind, state="queued")]

    def state(self, job_id: int) -> tuple[str, str | None]:
        """The state of a job, and the code of its last error."""
        with self.store.reading() as session:
            job = session.get_one(Job, job_id)
            return job.state, job.error_code

    def finding(self, finding_id: int) -> Finding:
        """A finding as it is now."""
        with self.store.reading() as session:
            return explanations.finding(session, finding_id)


@pytest.fixture
def explained(store: Store, tmp_path: Path) -> Explained:
    return Explained(store, tmp_path)


def test_a_finding_is_explained_with_its_claims_in_one_transaction(explained: Explained) -> None:
    finding_id = explained.open_incident()
    (job_id,) = explained.waiting()
    assert explain(explained.tools, job_id)
    assert explained.state(job_id) == ("done", None)
    found = explained.finding(finding_id)
    document = found.explanation
    assert document is not None
    assert set(document["tiers"]) == {"1", "2", "3"}
    assert document["without_audio"] is None
    assert document["heard"]["audio_1"]["start_s"] == 0.0
    assert "dB" in document["summary"]
    assert found.claims
    assert {claim["tier"] for claim in found.claims} == {1, 2, 3}
    assert all(claim["verdict"] != "contradicted" for claim in found.claims)
    assert any("louder" in document["tiers"][tier]["text"] for tier in "123")


def test_who_wrote_it_is_kept_and_what_was_taken_back(explained: Explained) -> None:
    finding_id = explained.open_incident()
    texts = {tier: ["Audio 2 is softer.", "Audio 2 is louder."] for tier in (1, 2, 3)}
    explainer = DifferenceExplainer(explained.encoder, FixedWriter(texts))
    (job_id,) = explained.waiting()
    assert explain(replace(explained.tools, explainer=lambda: explainer), job_id)
    document = explained.finding(finding_id).explanation
    assert document is not None
    assert (document["model"], document["revision"]) == ("fixed", "1")
    told = document["tiers"]["1"]
    assert (told["text"], told["written_by"], told["attempts"]) == (
        "Audio 2 is louder.",
        "model",
        2,
    )
    assert any("softer" in quote for quote in told["excluded"])
    with explained.store.reading() as session:
        stored = session.scalars(select(StoredExplanation)).one()
        assert (stored.model, stored.revision) == ("fixed", "1")


def test_messages_may_come_twice_and_incidents_may_be_asked_about_again(
    explained: Explained,
) -> None:
    finding_id = explained.open_incident()
    (job_id,) = explained.waiting()
    assert [explain(explained.tools, job_id) for _ in range(3)] == [True, False, False]
    with explained.store.session() as session:
        incident_id = explanations.finding(session, finding_id).incident_id
        assert explained.queue.explain_incident(session, incident_id) == []


def test_the_same_sounds_are_explained_once(explained: Explained) -> None:
    first = explained.open_incident()
    explain(explained.tools, explained.waiting()[0])
    with explained.store.session() as session:
        again = explained.queue.explain(session, first, explained.source_id)
        job_id = again.id

    def broken() -> DifferenceExplainer:
        made = DifferenceExplainer(explained.encoder, None)
        made.explain = None  # type: ignore[assignment, method-assign]  # Nobody may ask it.
        return made

    assert explain(replace(explained.tools, explainer=broken), job_id)
    assert explained.state(job_id) == ("done", None)
    with explained.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(StoredExplanation)) == 1


def test_another_version_explains_anew(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding_id = explained.open_incident()
    explain(explained.tools, explained.waiting()[0])
    monkeypatch.setattr(between, "__version__", "99.0")
    with explained.store.session() as session:
        job_id = explained.queue.explain(session, finding_id, explained.source_id).id
    assert explain(explained.tools, job_id)
    with explained.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(StoredExplanation)) == 2


def test_a_finding_without_a_reference_is_not_asked_about(explained: Explained) -> None:
    explained.open_incident(reference_window_id=None)
    assert explained.waiting() == []


def test_a_pending_incident_is_explained_once_it_opens(explained: Explained) -> None:
    finding_id = explained.open_incident()
    with explained.store.session() as session:
        jobs.cancel(session, explained.waiting()[0])
        found = explanations.finding(session, finding_id)
        incident = incidents.get(session, found.incident_id)
        incident.state = "pending"
        session.flush()
        other = Finding(incident_id=incident.id, window_id=1, reference_window_id=2)
        session.add(other)
        session.flush()
        explain_findings(explained.queue)(session, incident.id, [other])
    assert explained.waiting() == []
    with explained.store.session() as session:
        row = incidents.get(session, found.incident_id)
        tell_and_learn(explained.queue)(session, row, "opened", utc_now())
    assert len(explained.waiting()) == 1


@pytest.mark.parametrize("lost", ["loud", "normal"])
def test_where_audio_is_gone_what_was_measured_is_said(explained: Explained, lost: str) -> None:
    finding_id = explained.open_incident()
    (explained.folder / f"{lost}.wav").unlink()
    (job_id,) = explained.waiting()
    assert explain(explained.tools, job_id)
    assert explained.state(job_id) == ("done", None)
    document = explained.finding(finding_id).explanation
    assert document is not None
    assert document["tiers"] == {}
    assert document["summary"] == "18.1 dB louder (A-weighted)"
    assert document["without_audio"]["code"] == "file-missing"
    assert explained.finding(finding_id).claims == []


def test_a_deleted_recording_leaves_what_was_measured(explained: Explained) -> None:
    finding_id = explained.open_incident()
    with explained.store.session() as session:
        gone = session.get_one(Window, explained.windows["normal"]).recording_id
        recordings.remove(session, gone)
    (job_id,) = explained.waiting()
    assert explain(explained.tools, job_id)
    document = explained.finding(finding_id).explanation
    assert document is not None
    assert document["without_audio"]["code"] == "unknown-recording"


def test_the_name_of_a_lost_file_may_be_no_unicode(explained: Explained) -> None:
    finding_id = explained.open_incident()
    with explained.store.session() as session:
        recording_id = session.get_one(Window, explained.windows["loud"]).recording_id
        session.get_one(Recording, recording_id).path = "/gone/pump\udcff.wav"
    (job_id,) = explained.waiting()
    assert explain(explained.tools, job_id)
    assert explained.state(job_id) == ("done", None)
    document = explained.finding(finding_id).explanation
    assert document is not None
    assert r"pump\udcff.wav" in document["without_audio"]["detail"]
    # As it goes over the wire.
    json.dumps(document, ensure_ascii=False).encode()


def test_a_finding_that_was_deleted_is_done_with(explained: Explained) -> None:
    finding_id = explained.open_incident()
    (job_id,) = explained.waiting()
    with explained.store.session() as session:
        session.delete(explanations.finding(session, finding_id))
    assert explain(explained.tools, job_id)
    assert explained.state(job_id) == ("done", None)


def raising(error: Exception) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def test_a_passing_error_is_tried_again_and_a_lasting_one_is_not(explained: Explained) -> None:
    explained.open_incident()
    (job_id,) = explained.waiting()
    away = replace(explained.tools, explainer=raising(AudioStoreError("s3://x", "timeout")))
    assert explain(away, job_id)
    assert explained.state(job_id) == ("queued", "audio-store")
    with explained.store.session() as session:
        jobs.hasten(session, [f"explain:{1}"], utc_now())
    broken = replace(explained.tools, explainer=raising(BrokenCheckpointError("x")))
    assert explain(broken, job_id)
    assert explained.state(job_id) == ("failed", "broken-checkpoint")


# --- captions ---------------------------------------------------------------------------------


def test_captions_are_asked_for_only_where_the_settings_say_so(
    explained: Explained, tmp_path: Path
) -> None:
    with explained.store.session() as session:
        assert explained.queue.caption_embedded(session, 1) is None
        settings = Settings(home=tmp_path, captions="on")
        queue = JobQueue.of(settings, NoSender())
        assert queue.caption_embedded(session, 999) is None
        job = queue.caption_embedded(session, 1)
        assert job is not None
        assert (job.key, job.queue) == (caption_key(1), "explain")


def test_a_recording_is_put_into_words_once(explained: Explained) -> None:
    with explained.store.session() as session:
        job_id = explained.queue.caption(session, 1, explained.source_id).id
    assert caption(explained.tools, job_id, Event())
    assert explained.state(job_id) == ("done", None)
    with explained.store.session() as session:
        found = captions.of_recording(session, 1)
        again = explained.queue.caption(session, 1, explained.source_id).id
    assert found[0].text == "a pump hums"
    assert {row.place for row in found} <= {1, 2, 3}
    assert (found[0].captioner, found[0].revision) == ("fixed", "1")
    assert found[0].similarity is not None
    assert caption(explained.tools, again, Event())
    with explained.store.reading() as session:
        assert captions.of_recording(session, 1) == found


@pytest.mark.parametrize("status", ["queued", "embedding"])
def test_captions_that_are_asked_for_too_early_wait_until_there_is_something_to_caption(
    explained: Explained, status: str
) -> None:
    with explained.store.session() as session:
        session.get_one(Recording, 1).status = status
        job = explained.queue.caption(session, 1, explained.source_id)
        job_id, key = job.id, job.key
    assert caption(explained.tools, job_id, Event())
    assert explained.state(job_id) == ("queued", None)
    with explained.store.session() as session:
        assert session.get_one(Job, job_id).attempts == 0
        assert captions.of_recording(session, 1) == []
        session.get_one(Recording, 1).status = "embedded"
        jobs.hasten(session, [key], utc_now())
    assert caption(explained.tools, job_id, Event())
    assert explained.state(job_id) == ("done", None)
    with explained.store.reading() as session:
        assert captions.of_recording(session, 1)


def test_a_captioner_that_cannot_be_loaded_is_no_reason_to_try_again(explained: Explained) -> None:
    with explained.store.session() as session:
        job_id = explained.queue.caption(session, 1, explained.source_id).id
    broken = replace(explained.tools, captioner=raising(BrokenCheckpointError("x")))
    assert caption(broken, job_id, Event())
    assert explained.state(job_id) == ("failed", "broken-checkpoint")


def test_a_long_recording_is_given_back_when_the_worker_is_told_to_stop(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioning, "_TOGETHER", 1)
    time_s = np.arange(40 * RATE_HZ) / RATE_HZ
    (explained.folder / "day").mkdir()
    soundfile.write(explained.folder / "day" / "day.wav", 0.1 * np.sin(999.0 * time_s), RATE_HZ)
    found = find_files([explained.folder / "day"], Selection())
    options = IngestOptions(source="pump-3")
    assert not ingest(found, options, explained.store, explained.encoder, None).failed
    with explained.store.session() as session:
        job_id = explained.queue.caption(session, 3, explained.source_id).id
    stop = Event()

    class Stopping(FixedCaptioner):
        def caption(self, *args: Any, **options: Any) -> Any:
            stop.set()
            return super().caption(*args, **options)

    tools = replace(explained.tools, captioner=lambda: Stopping(explained.encoder, "a hum"))
    assert caption(tools, job_id, stop)
    with explained.store.reading() as session:
        assert len({row.window_id for row in captions.of_recording(session, 3)}) == 1
        assert session.get_one(Job, job_id).attempts == 0
    assert explained.state(job_id) == ("queued", None)
    assert caption(explained.tools, job_id, Event())
    assert explained.state(job_id) == ("done", None)
    with explained.store.reading() as session:
        windows = session.scalar(select(func.count()).where(Window.recording_id == 3))
        assert len({row.window_id for row in captions.of_recording(session, 3)}) == windows > 1


def test_captions_of_a_recording_that_was_deleted_are_none(explained: Explained) -> None:
    with explained.store.session() as session:
        job_id = explained.queue.caption(session, 1, explained.source_id).id
        recordings.remove(session, 1)
    assert caption(explained.tools, job_id, Event())
    assert explained.state(job_id) == ("done", None)
