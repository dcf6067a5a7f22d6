"""Explanations and captions at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import select

from soundpost.explain import between, caption
from soundpost.explain.caption import FixedCaptioner
from soundpost.jobs import JobQueue, NoSender
from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.store import explanations, rules, sources
from soundpost.store.session import open_store
from soundpost.store.tables import Recording, Window
from soundpost.store.watch_tables import Finding
from soundpost_ui.commands.explain import print_explanation

RATE_HZ = 16_000
START = datetime(2026, 11, 21, 12, tzinfo=UTC)

# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


def write(path: Path, level: float, length_s: float = 4.0, rate_hz: int = RATE_HZ) -> None:
    time_s = np.arange(round(length_s * rate_hz)) / rate_hz
    soundfile.write(path, level * np.sin(2 * np.pi * 440.0 * time_s), rate_hz, subtype="PCM_16")


@pytest.fixture
def soundpost(soundpost: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line beside a soft and a loud tone, which are files and no recordings yet."""
    monkeypatch.setenv("SOUNDPOST_EXPLAINER", "off")
    write(tmp_path / "soft.wav", 0.02)
    write(tmp_path / "loud.wav", 0.4)
    return soundpost


@pytest.fixture
def captioner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A captioner that always says the same."""
    monkeypatch.setattr(
        caption,
        "load_captioner",
        lambda settings, encoder: FixedCaptioner(encoder, "a pump hums", "a machine runs"),
    )


def test_two_files_are_told_apart_with_claims_and_measurements(soundpost: Run) -> None:
    told = soundpost("explain", "soft.wav", "loud.wav")
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0] == "audio 1 is soft.wav, 0:00.0-0:04.0; audio 2 is loud.wav, 0:00.0-0:04.0"
    assert any(line.startswith("In a sentence") for line in lines)
    assert any(line.strip().startswith("yes") and '"' in line for line in lines)
    assert any(line.startswith("Measured") for line in lines)
    assert lines[-1] == "Written from measurements alone."


def test_one_tier_of_a_recording_and_a_part_of_a_file_as_json(
    soundpost: Run, tmp_path: Path
) -> None:
    assert soundpost("ingest", "soft.wav").code == 0
    write(tmp_path / "other.wav", 0.4, 8.0, 44_100)
    told = soundpost("explain", "1", "other.wav@2-5", "--tier", "1", "--json")
    document = json.loads(told.out)
    assert document["query"] == {"first": "1", "second": "other.wav@2-5"}
    assert list(document["tiers"]) == ["1"]
    assert document["compared"] == [[0.0, 4.0], [2.0, 5.0]]
    for claim in document["tiers"]["1"]["claims"]:
        assert claim["verdict"] in ("supported", "not measurable")


def test_a_sound_does_not_differ_from_itself(soundpost: Run) -> None:
    told = soundpost("explain", "soft.wav", "soft.wav", "--tier", "1")
    assert "no audible difference" in told.out.lower()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("soft.wav", "loud.wav", "--tier", "4"), "invalid-value"),
        (("soft.wav", "loud.wav", "--tier", "0"), "invalid-value"),
        (("soft.wav", "nowhere.wav"), "path-not-found"),
        (("999", "soft.wav"), "unknown-recording"),
        (("soft.wav@3-1", "loud.wav"), "invalid-value"),
        (("soft.wav", "notes.txt"), "not-audio"),
        (("soft.wav", "loud.wav@100-110"), "no-samples"),
        (("soft.wav", "loud.wav@1-1.0001"), "too-short"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    soundpost: Run, tmp_path: Path, args: tuple[str, ...], code: str
) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    told = soundpost("explain", *args)
    assert (told.code, told.out) == (2, "")
    assert f"[{code}]" in told.err
    assert "remedy:" in told.err


def test_more_than_an_hour_is_too_long(soundpost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between, "LONGEST_S", 1.0)
    told = soundpost("explain", "soft.wav", "loud.wav")
    assert told.code == 2
    assert "[too-long]" in told.err


def test_a_recording_whose_file_is_gone_is_named(soundpost: Run, tmp_path: Path) -> None:
    assert soundpost("ingest", "soft.wav").code == 0
    (tmp_path / "soft.wav").unlink()
    assert "[file-missing]" in soundpost("explain", "1", "loud.wav").err


def open_incident(tmp_path: Path, explained: bool = True) -> None:
    """Let a rule fire for the loud recording, which is found beside the soft one.

    explained: it has its words; otherwise a job is to find them.
    """
    url = f"sqlite:///{tmp_path / 'home' / 'soundpost.db'}"
    with closing(open_store(url)) as store, store.session() as session:
        new = rules.NewRule(name="loud", kind="level", created_by="a", settings={"above_dbfs": -30})
        rule = rules.add(session, new, now=START)
        source_id = sources.by_name(session, "archive").id
        apply(session, Round(source_id, [Firing(rule.id, source_id, START, START, "loud")]), START)
        statement = select(Recording.path, Window.id).join(
            Window, Window.recording_id == Recording.id
        )
        windows = {Path(path).stem: number for path, number in session.execute(statement)}
        found = Finding(
            incident_id=1,
            heard_at=START,
            window_id=windows["loud"],
            reference_window_id=windows["soft"],
            measurements={"sentence": "26 dB louder"},
        )
        session.add(found)
        session.flush()
        if not explained:
            JobQueue(NoSender()).explain(session, found.id, source_id)
            return
        claim = {
            "tier": 1,
            "quote": "louder",
            "verdict": "supported",
            "measurement": {"level_change_db": 26.0},
            "reason": "the whole is louder",
        }
        vague = {
            "tier": 1,
            "quote": "the hum is faster",
            "verdict": "not measurable",
            "measurement": {},
            "reason": "nothing pulses",
        }
        text = {
            "text": "Audio 2 is louder.",
            "claims": [claim, vague],
            "written_by": "model",
            "attempts": 2,
            "excluded": ["a dog barks"],
        }
        document = {
            "tiers": {"1": text},
            "summary": "level +26.0 dB",
            "model": "adiff",
            "revision": "0123456789abcdef",
            "compared": [[0.0, 4.0], [0.0, 4.0]],
            "without_audio": None,
        }
        explanations.explain_finding(session, found.id, document, [claim])


def test_an_incident_shows_what_differs_with_its_evidence(soundpost: Run, tmp_path: Path) -> None:
    assert soundpost("ingest", "soft.wav", "loud.wav").code == 0
    open_incident(tmp_path)
    told = soundpost("incidents", "show", "1").out
    assert "(audio 2), told apart from" in told
    assert "Audio 2 is louder." in told
    assert 'yes "louder"  the whole is louder; level_change_db 26' in told
    assert told.count("told apart from") == 1
    assert 'taken back, as the recordings do not bear it out: "a dog barks"' in told
    assert "Measured: level +26.0 dB" in told
    assert "Written by adiff 0123456789ab, then checked." in told
    assert 'not measurable "the hum is faster"  nothing pulses' in told
    document = json.loads(soundpost("incidents", "show", "1", "--json").out)
    (finding,) = document["findings"]
    assert finding["explanation"]["tiers"]["1"]["text"] == "Audio 2 is louder."
    assert finding["claims"][0]["verdict"] == "supported"


def test_who_wrote_what_is_shown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    by = {"1": "measurements", "3": "model"}
    texts = {
        tier: {"text": f"Text {tier}.", "claims": [], "written_by": who, "excluded": []}
        for tier, who in by.items()
    }
    document = {"tiers": texts, "summary": "", "model": "adiff", "revision": "0123"}
    print_explanation(document)
    assert capsys.readouterr().out.endswith("Written by adiff 0123, then checked.\n")
    print_explanation(document, tiers=(1,))
    assert capsys.readouterr().out.endswith("Written from measurements alone.\n")


def test_watching_says_which_findings_could_not_be_explained(
    soundpost: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soundpost("ingest", "soft.wav", "loud.wav").code == 0
    open_incident(tmp_path, explained=False)
    monkeypatch.setenv("SOUNDPOST_EXPLAINER", str(tmp_path / "nowhere"))
    told = soundpost("watch")
    assert told.code == 0
    assert "explained" not in told.out
    assert "Job 1 (explain) failed: [explainer-not-found]" in told.err
    assert "soundpost jobs --retry 1" in told.err
    assert soundpost("jobs", "--retry", "1").code == 0
    monkeypatch.setenv("SOUNDPOST_EXPLAINER", "off")
    assert "1 finding explained" in soundpost("watch").out


# --- captions ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("captioner")
def test_a_file_is_captioned_window_by_window(soundpost: Run) -> None:
    told = soundpost("caption", "soft.wav@1-3", "-n", "1")
    assert told.out.startswith("0:01-0:03  a pump hums")
    document = json.loads(soundpost("caption", "soft.wav", "--json").out)
    assert document["captioner"] == {"name": "fixed", "revision": "1"}
    first = document["captions"][0]
    assert (first["start_s"], first["end_s"], first["place"]) == (0.0, 4.0, 1)
    assert 1 <= len(document["captions"]) <= 3


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("soft.wav", "-n", "0"), "invalid-value"),
        (("soft.wav", "-n", "1000"), "invalid-value"),
        ((), "invalid-value"),
        (("soft.wav", "--archive"), "invalid-value"),
        (("nowhere.wav",), "path-not-found"),
        (("soft.wav@1-1.04",), "too-short"),
        (("999",), "unknown-recording"),
    ],
)
@pytest.mark.usefixtures("captioner")
def test_what_cannot_be_captioned_is_refused(
    soundpost: Run, args: tuple[str, ...], code: str
) -> None:
    told = soundpost("caption", *args)
    assert (told.code, told.out) == (2, "")
    assert f"[{code}]" in told.err


def test_without_a_captioner_for_the_encoder_that_is_said(soundpost: Run) -> None:
    assert "[captioner-unavailable]" in soundpost("caption", "soft.wav").err


@pytest.mark.usefixtures("captioner")
def test_an_archive_is_captioned_once_and_searched_by_words(soundpost: Run) -> None:
    assert soundpost("ingest", "soft.wav", "loud.wav").code == 0
    told = soundpost("caption", "--archive", "-n", "1")
    assert told.out == "2 captions of 2 recordings written.\n"
    assert soundpost("caption", "--archive").out == "0 captions of 0 recordings written.\n"
    found = soundpost("search", "a humming pump").out
    assert '"a pump hums" (found by its words alone)' in found
    hit = json.loads(soundpost("search", "a humming pump", "--json").out)["hits"][0]
    assert (hit["caption"], hit["matched"]) == ("a pump hums", ["words"])
    assert '"a pump hums"' in soundpost("search", "440 hz").out


@pytest.mark.usefixtures("captioner")
def test_ingest_captions_where_the_settings_say_so(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUNDPOST_CAPTIONS", "on")
    told = soundpost("ingest", "soft.wav")
    assert "1 recording put into words by fixed." in told.out
    assert soundpost("caption", "--archive").out == "0 captions of 0 recordings written.\n"


def test_ingest_without_a_captioner_says_so_and_goes_on(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUNDPOST_CAPTIONS", "on")
    told = soundpost("ingest", "soft.wav")
    assert told.code == 0
    assert "Nothing is captioned: [captioner-unavailable]" in told.err


def test_ingest_with_a_captioner_that_cannot_be_loaded_says_so_and_goes_on(
    soundpost: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dac").mkdir()
    (tmp_path / "dac" / "config.json").write_text("{")
    monkeypatch.setenv("SOUNDPOST_CAPTIONS", "on")
    monkeypatch.setenv("SOUNDPOST_CAPTIONER", str(tmp_path / "dac"))
    told = soundpost("ingest", "soft.wav")
    assert told.code == 0
    assert told.out.startswith("1 file: 1 ingested")
    assert "Nothing is captioned: [broken-checkpoint]" in told.err


def test_captions_that_could_not_be_written_are_not_counted(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FixedCaptioner):
        def caption(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(caption, "load_captioner", lambda settings, encoder: Failing(encoder))
    monkeypatch.setenv("SOUNDPOST_CAPTIONS", "on")
    told = soundpost("ingest", "soft.wav")
    assert told.code == 0
    assert "put into words" not in told.out
    assert "(caption) failed: [unexpected]" in told.err
