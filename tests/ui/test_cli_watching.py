"""Rules, incidents, silences and tags at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.store import rules, sources
from soundpost.store.session import open_store
from soundpost.store.watch_tables import Finding

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


@pytest.fixture
def soundpost(soundpost: Run, tmp_path: Path) -> Run:
    """The command line in an archive with one source, yard."""
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(5 * 8_000) / 8_000)
    soundfile.write(tmp_path / "tone.wav", wave, 8_000)
    assert soundpost("ingest", "tone.wav", "--source", "yard").code == 0
    return soundpost


def open_incident(tmp_path: Path) -> None:
    """Let rule 1 fire for the yard."""
    store = open_store(f"sqlite:///{tmp_path / 'home' / 'soundpost.db'}")
    with store.session() as session:
        source_id = sources.by_name(session, "yard").id
        name = rules.get(session, 1).name
        firing = Firing(1, source_id, START, START + timedelta(seconds=35), f"{name}: 71.2 dB")
        apply(session, Round(source_id, [firing]), START)
        sentence = {"sentence": "12 dB louder at 2 kHz"}
        session.add(Finding(incident_id=1, rule_id=1, heard_at=START, measurements=sentence))
    store.close()


def test_a_rule_is_added_listed_switched_and_removed(soundpost: Run) -> None:
    level = ("rules", "add", "level", "--source", "yard", "--set", "above_dbfs=-40")
    told = soundpost(*level, "--name", "loud", "--hold", "30s", "--severity", "critical")
    assert told.out == "Rule 1, loud, watches yard.\n"
    assert soundpost("rules", "add", "novelty", "--tag", "pumps", "--budget", "30d").code == 0
    listed = json.loads(soundpost("rules", "list", "--json").out)
    assert [(r["name"], r["for_s"], r["settings"]) for r in listed] == [
        ("loud", 30.0, {"above_dbfs": -40.0}),
        ("novelty pumps", 0.0, {"budget_s": 2_592_000.0}),
    ]
    assert "off" in soundpost("rules", "disable", "loud").out
    assert "\tno\t" in soundpost("rules").out
    assert soundpost("rules", "remove", "1").out == "Removed rule 1, loud.\n"
    assert "[unknown-rule]" in soundpost("rules", "enable", "loud").err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("level",), "rule-settings"),
        (("level", "--set", "above_dbfs"), "invalid-value"),
        (("text", "--text", "glass", "--set", "threshold=0.4"), "raw-similarity"),
        (("novelty", "--budget", "soon"), "invalid-value"),
        (("novelty", "--hold", "10s"), "rule-settings"),
        (("exemplar",), "rule-settings"),
        (("clock", "--source", "nowhere"), "unknown-source"),
        (("clock", "--source", "yard", "--tag", "pumps"), "invalid-value"),
    ],
)
def test_what_makes_no_sense_is_refused(soundpost: Run, args: tuple[str, ...], code: str) -> None:
    told = soundpost("rules", "add", *args)
    assert (told.code, told.out) == (2, "")
    assert f"[{code}]" in told.err


def test_words_and_a_clip_are_embedded(soundpost: Run) -> None:
    assert soundpost("rules", "add", "text", "--text", "440 hz").code == 0
    assert soundpost("rules", "add", "exemplar", "--clip", "tone.wav@1-3").code == 0
    words, clip = json.loads(soundpost("rules", "list", "--json").out)
    assert words["settings"] == {"text": "440 hz"}
    assert clip["settings"] == {"name": "tone.wav@1-3"}


def test_an_incident_is_shown_acknowledged_and_dismissed(soundpost: Run, tmp_path: Path) -> None:
    assert "No incidents" in soundpost("incidents").err
    soundpost("rules", "add", "level", "--set", "above_dbfs=-40", "--name", "loud")
    open_incident(tmp_path)
    assert "loud: 71.2 dB" in soundpost("incidents").out
    told = soundpost("incidents", "acknowledge", "1", "-r", "on my way")
    assert told.out == "Incident 1 is acknowledged.\n"
    assert "[incident-state]" in soundpost("incidents", "acknowledge", "1").err
    soundpost("incidents", "note", "1", "a bearing?", "--as", "ben")
    assert soundpost("incidents", "dismiss", "1", "-r", "the cleaner").code == 0
    shown = soundpost("incidents", "show", "1").out
    for text in ("Incident 1: dismissed, warning", "12 dB louder", "on my way", "a bearing?"):
        assert text in shown
    document = json.loads(soundpost("incidents", "show", "1", "--json").out)
    assert [(e["actor"], e["action"]) for e in document["history"]] == [
        ("soundpost", "opened"),
        ("ann", "acknowledged"),
        ("ben", "noted"),
        ("ann", "dismissed"),
    ]
    listed = json.loads(soundpost("incidents", "list", "--state", "dismissed", "--json").out)
    assert [row["id"] for row in listed] == [1]
    assert soundpost("incidents", "list", "--since", "2026-11-22").out == ""


def test_a_silence_is_added_listed_and_ended(soundpost: Run) -> None:
    add = ("silence", "add", "--reason", "works")
    assert "Silence 1 holds until" in soundpost(*add, "--source", "yard", "--for", "2h").out
    assert soundpost(*add, "--weekly", "sat,sun 22:00-04:00", "--maintenance").code == 0
    assert "sat,sun 22:00-04:00" in soundpost("silence", "list").out
    assert soundpost("silence", "end", "1").out == "Silence 1 is over.\n"
    assert "[silence-ended]" in soundpost("silence", "end", "1").err
    assert [row["id"] for row in json.loads(soundpost("silence", "list", "--json").out)] == [2]
    for wrong in (("--for", "soon"), ("--weekly", "someday 1-2"), ("--weekly", "sat 9-10"), ()):
        assert "[invalid-value]" in soundpost(*add, *wrong).err


def test_a_source_is_tagged_and_untagged(soundpost: Run) -> None:
    args = ("--tag", "pumps", "--tag", "north", "--cadence", "10m", "--timezone", "Asia/Tokyo")
    told = soundpost("sources", "set", "yard", *args)
    assert told.out == "yard: Asia/Tokyo, heard every 600 s, tagged north, pumps.\n"
    soundpost("sources", "set", "yard", "--untag", "north", "--cadence", "auto")
    listed: list[dict[str, Any]] = json.loads(soundpost("sources", "--json").out)
    assert (listed[0]["tags"], listed[0]["cadence_s"]) == (["pumps"], None)
    assert "pumps" in soundpost("sources").out


def test_what_waits_is_watched_and_said(soundpost: Run, tmp_path: Path) -> None:
    assert soundpost("watch").out == (
        "0 recordings watched, 0 incidents opened, 0 resolved, 0 notifications delivered\n"
    )
    loud = ("rules", "add", "level", "--source", "yard", "--set", "above_dbfs=-60")
    assert soundpost(*loud).code == 0
    wave = 0.3 * np.sin(2 * np.pi * 880 * np.arange(5 * 8_000) / 8_000)
    soundfile.write(tmp_path / "again.wav", wave, 8_000)
    started = ("--started-at", "2026-11-01T04:30")
    assert soundpost("ingest", "again.wav", "--source", "yard", *started).code == 0
    told = soundpost("watch", "yard")
    first, opened, summary = told.out.splitlines()
    assert first == (
        "yard: recording 2, 2026-11-01 04:30:00 UTC, 2 windows, no baseline to score by"
    )
    assert opened.startswith("  incident 1 opened: ")
    assert summary.startswith("1 recording watched, 1 incident opened, 0 resolved")
    document = json.loads(soundpost("watch", "--json").out)
    assert (document["watched"], document["noticed"], document["waiting"]) == (0, [], [])
    refused = soundpost("watch", "nowhere")
    assert refused.code == 2 and "unknown-source" in refused.err


def test_a_watched_recording_is_shown_as_json(soundpost: Run, tmp_path: Path) -> None:
    soundpost("rules", "add", "level", "--set", "above_dbfs=-60")
    soundfile.write(tmp_path / "low.wav", 0.2 * np.sin(np.arange(40_000) / 9), 8_000)
    soundpost("ingest", "low.wav", "--source", "yard", "--started-at", "2026-11-01T04:30")
    (noticed,) = json.loads(soundpost("watch", "--json").out)["noticed"]
    assert (noticed["source"], noticed["began_at"]) == ("yard", "2026-11-01T04:30:00+00:00")
    assert [change["kind"] for change in noticed["changes"]] == ["opened"]
