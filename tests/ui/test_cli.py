"""The command line in one process: what is printed where, and what it takes."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import boto3
import numpy as np
import pytest
import soundfile
from moto.server import ThreadedMotoServer
from rich.text import Text

from soundpost.archive.search import MIN_SCORE
from soundpost.archive.summary import Finding, Progress, Summary
from soundpost.errors import InvalidValueError
from soundpost.explain import caption
from soundpost.explain.caption import FixedCaptioner
from soundpost.store.session import SCHEMA_REVISION
from soundpost_ui import terminal
from soundpost_ui.cli import main
from soundpost_ui.commands.search import DEFAULT_MIN_SCORE
from soundpost_ui.demo import choose_real_clips
from soundpost_ui.progress import describe, showing_progress

# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Five seconds of 440 Hz."""
    path = tmp_path / "20260315_043000.wav"
    time_s = np.arange(5 * 8_000) / 8_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time_s), 8_000)
    return path


def test_help_lists_every_command(soundpost: Run) -> None:
    told = soundpost("--help")
    assert told.code == 0
    for name in ("ingest", "search", "similar", "clip", "recordings", "sources", "models"):
        assert name in told.out
    for name in ("watch-folder", "listen"):
        assert name in told.out
    for name in ("delete", "index", "doctor", "upgrade", "demo", "incidents", "rules", "silence"):
        assert name in told.out


def test_results_go_to_stdout_and_hints_to_stderr(soundpost: Run, tone: Path) -> None:
    assert "1 ingested" in soundpost("ingest", tone).out
    found = soundpost("search", "440 hz")
    assert found.code == 0
    assert "20260315_043000.wav" in found.out
    assert found.err == ""
    missed = soundpost("search", "a choir")
    assert missed.out == "Nothing found above 0.30.\n"
    assert "The nearest" in missed.err


def test_a_filter_that_meets_nothing_says_so(soundpost: Run, tone: Path) -> None:
    soundpost("ingest", tone)
    told = soundpost("search", "440 hz", "--after", "2030-01-01")
    assert "No recording meets the filters" in told.err


def test_times_are_read_in_the_zone_of_the_source(soundpost: Run, tone: Path) -> None:
    soundpost("ingest", tone, "--time-from-name", "--timezone", "Asia/Tokyo", "--source", "roof")

    def hits(*args: str) -> int:
        told = soundpost("search", "440 hz", "--json", *args)
        return len(json.loads(told.out)["hits"])

    assert hits("--source", "roof", "--after", "2026-03-15T04:29") == 1
    assert hits("--source", "roof", "--after", "2026-03-15T04:31") == 0
    assert hits("--after", "2026-03-14T19:29", "--before", "2026-03-14T19:31") == 1
    assert hits("--after", "2026-03-15T04:29", "--timezone", "Asia/Tokyo") == 1


def test_started_at_and_time_from_name_exclude_each_other(soundpost: Run, tone: Path) -> None:
    told = soundpost("ingest", tone, "--time-from-name", "--started-at", "2026-03-15")
    assert told.code == 2
    assert "[invalid-value]" in told.err


def test_a_list_can_be_given_twice_over(soundpost: Run, tone: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{tone}\n")
    told = soundpost("ingest", "@list.txt", "--from-file", "list.txt", "--json")
    assert json.loads(told.out)["files"] == 1


def test_deleting_asks_first(soundpost: Run, tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    soundpost("ingest", tone)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert soundpost("delete", "1").code == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "Deleted 1 recording" in soundpost("delete", "1").out
    assert json.loads(soundpost("recordings", "--json").out)["total"] == 0


def test_recordings_can_be_filtered_and_limited(soundpost: Run, tone: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    soundpost("ingest", ".")
    failed = json.loads(soundpost("recordings", "--status", "failed", "--json").out)
    assert [row["error_code"] for row in failed["recordings"]] == ["empty-file"]
    assert "1 of 2" in soundpost("recordings", "--limit", "1").err
    assert "remedy for empty-file" in soundpost("recordings").err
    assert "none that meets" in soundpost("recordings", "--after", "2030-01-01").err


def test_the_doctor_rebuilds_and_reports(soundpost: Run, tone: Path) -> None:
    soundpost("ingest", tone)
    told = soundpost("doctor", "--rebuild-index", "--json")
    checks = json.loads(told.out)
    assert told.code == 0
    assert {"versions", "settings", "disk", "database", "model", "index"} <= {
        check["name"] for check in checks
    }
    assert all(check["level"] == "ok" for check in checks if check["name"] == "index")


def test_the_doctor_reports_what_cannot_be_opened(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUNDPOST_ENCODER", "/no/such/folder")
    told = soundpost("doctor")
    assert told.code == 1
    assert "[model-not-found]" in told.out


def test_the_doctor_warns_of_another_models_archive(soundpost: Run, tone: Path) -> None:
    import sqlite3

    soundpost("ingest", tone)
    with sqlite3.connect("home/soundpost.db") as database:
        database.execute("UPDATE models SET revision = 'older'")
    database.close()
    assert "embedded by another model" in soundpost("doctor").out
    told = soundpost("search", "440 hz")
    assert "[empty-archive]" in told.err and "ingest them again" in told.err


def test_the_index_says_what_can_be_found_and_what_is_sealed(soundpost: Run, tone: Path) -> None:
    assert "No model has embedded anything yet" in soundpost("index").err
    soundpost("ingest", tone)
    (before,) = json.loads(soundpost("index", "--json").out)
    assert before["vectors"] == before["behind"] == 2
    assert before["snapshot"] is None and before["age_s"] is None
    (after,) = json.loads(soundpost("index", "--rebuild", "--json").out)
    assert (after["vectors"], after["behind"], after["sealed"]) == (2, 0, 2)
    assert (after["engine"], after["layout"]) == ("exact", "flat")
    assert after["bytes"] > 0 and after["age_s"] >= 0.0
    assert (Path("home/index") / after["snapshot"]).is_dir()
    soundpost("delete", "1", "--yes")
    (deleted,) = json.loads(soundpost("index", "--model", "1", "--json").out)
    assert (deleted["vectors"], deleted["behind"], deleted["sealed"]) == (0, 2, 2)


def test_the_index_in_a_pipe_is_a_table(soundpost: Run, tone: Path) -> None:
    soundpost("ingest", tone)
    bare = soundpost("index").out.splitlines()
    assert bare[0].split("\t")[:4] == ["id", "model", "serving", "vectors"]
    told = soundpost("index", "--rebuild")
    assert told.code == 0
    columns, row = (line.split("\t") for line in told.out.splitlines())
    shown = dict(zip(columns, row, strict=True))
    assert (shown["vectors"], shown["layout"], shown["behind"]) == ("2", "exact flat", "0")


def test_the_index_of_a_model_that_is_not_there_is_refused(
    soundpost: Run,
) -> None:
    told = soundpost("index", "--model", "7")
    assert told.code == 2
    assert "[invalid-value]" in told.err and "--model 7" in told.err


def test_the_doctor_and_the_index_agree_on_a_rebuilt_snapshot(soundpost: Run, tone: Path) -> None:
    soundpost("ingest", tone)
    assert soundpost("doctor", "--rebuild-index").code == 0
    (report,) = json.loads(soundpost("index", "--json").out)
    assert (report["sealed"], report["behind"]) == (2, 0)


def test_an_upgrade_says_from_where_to_where(soundpost: Run) -> None:
    told = soundpost("upgrade")
    assert told.out == f"The tables are at revision empty to {SCHEMA_REVISION}.\n"
    assert "as it was" in soundpost("upgrade").out


@pytest.mark.postgres
def test_a_server_is_not_upgraded_unasked(
    soundpost: Run,
    postgres_server: Any,
    tone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = postgres_server.create()
    monkeypatch.setenv("SOUNDPOST_DATABASE_URL", postgres_server.url(database))
    told = soundpost("sources")
    assert told.code == 2
    assert "[schema]" in told.err and "soundpost upgrade" in told.err
    soundpost("upgrade")
    assert "1 ingested" in soundpost("ingest", tone).out
    assert "20260315_043000.wav" in soundpost("search", "440 hz").out


def test_a_setting_that_cannot_be_is_named(soundpost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUNDPOST_INDEX", "magic")
    told = soundpost("sources")
    assert told.code == 2
    assert "SOUNDPOST_INDEX=magic" in told.err


def test_debug_shows_where_an_error_comes_from(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["soundpost", "--debug", "search", " "])
    with pytest.raises(InvalidValueError):
        main()
    monkeypatch.delenv("SOUNDPOST_DEBUG")


def test_a_mistake_of_ours_is_reported_as_one(
    soundpost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("soundpost_ui.commands.search.run_search", broken)
    told = soundpost("search", "rain")
    assert told.code == 70
    assert "error [unexpected]" in told.err and "--debug" in told.err


def test_the_default_floor_is_that_of_the_search() -> None:
    assert DEFAULT_MIN_SCORE == MIN_SCORE


@pytest.fixture
def two_tones(tmp_path: Path) -> Path:
    """A folder with 440 and 450 Hz."""
    folder = tmp_path / "tones"
    folder.mkdir()
    time_s = np.arange(5 * 8_000) / 8_000
    for hz in (440, 450):
        soundfile.write(folder / f"{hz}.wav", 0.3 * np.sin(2 * np.pi * hz * time_s), 8_000)
    return folder


def test_hits_tell_how_they_were_reranked(
    soundpost: Run,
    two_tones: Path,
    untrained_reranker: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soundpost("ingest", two_tones)
    monkeypatch.setenv("SOUNDPOST_RERANKER", str(untrained_reranker))
    monkeypatch.setenv("SOUNDPOST_RERANK_BUDGET_S", "60")
    told = soundpost("search", "440 hz")
    assert told.code == 0
    assert told.out.count(" · similarity ") == told.out.count(" · joint ") == 2
    assert "diffatr put 2 hits in order" in told.err
    document = json.loads(soundpost("search", "440 hz", "--json", "--rerank", "1").out)
    assert document["rerank"]["candidates"] == 1
    first, second = document["hits"]
    assert first["joint_probability"] == 1.0
    assert second["joint_probability"] is None
    assert first["score"] == pytest.approx(first["similarity"] + document["rerank"]["weight"])
    off = soundpost("search", "440 hz", "--rerank", "off")
    assert " · joint " not in off.out and off.err == ""
    assert "diffatr" in soundpost("doctor").out


def test_why_hits_are_not_reranked_is_said_to_who_asked(
    soundpost: Run, two_tones: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    soundpost("ingest", two_tones)
    assert soundpost("search", "440 hz").err == ""
    assert "[no-reranker]" in soundpost("search", "440 hz", "--rerank", "5").err
    monkeypatch.setenv("SOUNDPOST_RERANKER", str(tmp_path / "nowhere"))
    told = soundpost("search", "440 hz")
    assert told.code == 0 and "440.wav" in told.out
    assert "[reranker-not-found]" in told.err and "nowhere" in told.err
    assert "[reranker-not-found]" in soundpost("doctor").out


@pytest.mark.parametrize("value", ["0", "-1", "1001", "all", "", "1.5"])
def test_what_cannot_be_reranked_is_refused(soundpost: Run, value: str) -> None:
    told = soundpost("search", "440 hz", "--rerank", value)
    assert told.code != 0
    assert "[invalid-value]" in told.err and "1 to 1000" in told.err


@pytest.mark.parametrize("text", ["x" * 10_000, "\udcff rain", " "])
def test_texts_that_cannot_be_searched_are_refused(soundpost: Run, tone: Path, text: str) -> None:
    soundpost("ingest", tone)
    told = soundpost("search", text)
    assert told.code != 0
    assert "[invalid-value]" in told.err


@pytest.mark.parametrize(
    ("seconds", "digits", "expected"),
    [
        (0, 0, "0:00"),
        (59.6, 0, "1:00"),
        (61, 0, "1:01"),
        (3599.999, 2, "1:00:00.00"),
        (36_061.25, 1, "10:01:01.2"),
    ],
)
def test_clocks(seconds: float, digits: int, expected: str) -> None:
    assert terminal.clock(seconds, digits) == expected


def test_bars_never_leave_their_frame() -> None:
    assert terminal.bar(0.52) == "█████·····"
    assert {len(terminal.bar(share)) for share in (-1.0, 0.0, 0.999, 1.0, 7.0)} == {10}


def test_what_a_terminal_must_not_see_is_escaped() -> None:
    assert terminal.printable("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert terminal.printable("caf\udce9.wav") == "caf\\udce9.wav"
    assert terminal.printable("Müller 犬.wav") == "Müller 犬.wav"


def test_wall_clocks_name_their_zone() -> None:
    moment = datetime(2026, 7, 15, 2, 30, tzinfo=UTC)
    assert terminal.wall_clock(moment, ZoneInfo("Europe/Berlin")) == "2026-07-15 04:30:00 CEST"
    assert terminal.wall_clock(None, UTC) == ""


def test_rows_in_a_pipe_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_rows(("id", "path"), [(1, "a\tb.wav"), (None, "c" * 300)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["id\tpath", "1\ta\\tb.wav", "\t" + "c" * 300]


@pytest.mark.parametrize(("width", "lines"), [("200", 2), ("30", 3)])
def test_rows_that_do_not_fit_a_terminal_put_the_path_below(
    width: str,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.print_rows(("id", "path"), [(1, "x" * 40)], below=("path",))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert any("x" * 40 in line for line in printed)


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    progress = Progress(3, 10, 1800.0, 7200.0, 1, 60.0)
    assert describe(progress) == "3/10 files · 0.50/2.00 h · 0.0083 h/s · 3:00 left · 1 failed"
    assert "left" not in describe(Progress(0, 10, 0.0, 0.0, 0, 1.0))


def test_progress_in_a_log_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress() as report:
        for _ in range(100):
            report(Progress(1, 2, 1.0, 2.0, 0, 1.0))
    assert capsys.readouterr().err == ""


def test_text_for_people_is_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("[bold]dog[/bold].wav")
    terminal.say(Text("[x]"))
    assert capsys.readouterr().out == "[bold]dog[/bold].wav\n[x]\n"


def test_real_clips_are_chosen_evenly_and_always_the_same(tmp_path: Path) -> None:
    assert choose_real_clips(tmp_path) == []
    rows = [f"{label}/{number}.opus,{label}" for label in ("dog", "rain") for number in range(50)]
    (tmp_path / "audio.csv").write_text("\n".join(["path,label", *rows, "one.opus,owl"]))
    chosen = choose_real_clips(tmp_path, 21)
    assert chosen == choose_real_clips(tmp_path, 21)
    labels = [path.parent.name for path in chosen]
    assert labels.count("dog") == labels.count("rain") == 10
    assert tmp_path / "audio" / "one.opus" in chosen


# --- ways in ----------------------------------------------------------------------------------


def test_listening_to_a_file_queues_its_segments_with_their_times(
    soundpost: Run, tone: Path, tmp_path: Path
) -> None:
    told = soundpost("listen", tone, "--source", "mic 3/b", "--segment-s", "2")
    assert told.code == 0
    assert told.out == "3 recordings, 0:05 in all, over 1 connection.\n"
    assert "Listening to file://" in told.err
    assert "info: listening stream=file://" in told.err
    rows = json.loads(soundpost("recordings", "--json").out)["recordings"]
    assert [row["status"] for row in rows] == ["queued"] * 3
    moments = [datetime.fromisoformat(row["started_at"]) for row in rows]
    assert (moments[1] - moments[0]).total_seconds() == 2.0
    assert list((tmp_path / "home" / "spool").rglob("*.flac*")) == []


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("listen", "nowhere", "--source", "mic"), "invalid-value"),
        (("listen", "http://u:secret@[x/", "--source", "mic"), "invalid-value"),
        (("watch-folder", "nowhere", "--source", "mic"), "path-not-found"),
        (("ingest", "s3:///x"), "invalid-value"),
    ],
)
def test_a_way_in_that_leads_nowhere_is_refused_at_once(
    soundpost: Run, args: tuple[str, ...], code: str
) -> None:
    told = soundpost(*args)
    assert told.code == 2
    assert f"[{code}]" in told.err
    assert "secret" not in told.err


def test_a_source_that_cannot_be_is_refused_before_listening(soundpost: Run, tone: Path) -> None:
    told = soundpost("listen", tone, "--source", " ")
    assert told.code == 2
    assert "[invalid-value]" in told.err


def test_what_is_logged_is_a_line_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.showing_logs():
        facts = {"stream": "rtsp://cam/\x1b", "retry_s": 0.51234, "reason": "no route"}
        logging.getLogger("soundpost.audio").warning("the stream was lost", extra=facts)
    logging.getLogger("soundpost.audio").warning("after the command")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        'warning: the stream was lost stream=rtsp://cam/\\x1b retry_s=0.512 reason="no route"'
    )


def test_a_part_of_an_ingest_shows_how_far_everything_is() -> None:
    part = Progress(2, 10, 60.0, 300.0, 1, 5.0)
    before = Summary(files=10, ingested=9, audio_s=300.0, wall_s=20.0)
    before.failed.append(Finding("x", "not-audio", "", ""))
    assert part.after(before, 40) == Progress(12, 40, 360.0, 1200.0, 2, 25.0)
    assert part.after(Summary(), 10) == part


def test_a_bucket_is_ingested_beside_files(
    soundpost: Run, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        where = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
        for name, value in (secrets | where).items():
            monkeypatch.setenv(name, value)
        client: Any = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="field-site")
        for name in ("a/20260316_043000.wav", "a/b.wav", "a/readme.md"):
            wave = io.BytesIO()
            soundfile.write(wave, np.zeros(9_000) + len(name) / 100, 8_000, format="WAV")
            client.put_object(Bucket="field-site", Key=name, Body=wave.getvalue())
        monkeypatch.setenv("SOUNDPOST_CAPTIONS", "on")
        monkeypatch.setattr(
            caption, "load_captioner", lambda settings, encoder: FixedCaptioner(encoder, "a hum")
        )
        told = soundpost("ingest", tone, "s3://field-site/a", "--time-from-name", "--json")
        summary = json.loads(told.out)
        assert (summary["files"], summary["ingested"]) == (3, 3)
        again = soundpost("ingest", "s3://field-site/a", "--time-from-name")
        assert again.out.startswith("2 files: 0 ingested, 2 already there")
        captioned = soundpost("caption", "--archive").out
        assert captioned == "0 captions of 0 recordings written.\n"
    finally:
        server.stop()
    listed = soundpost("recordings", "--json").out
    paths = {row["path"]: row["started_at"] for row in json.loads(listed)["recordings"]}
    assert paths["s3://field-site/a/20260316_043000.wav"] == "2026-03-16T04:30:00+00:00"
    hit = soundpost("search", "440 hz", "--json")
    assert hit.code == 0
    told = soundpost("doctor", "--files")
    assert "file-missing" not in told.out + told.err
