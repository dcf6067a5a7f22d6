"""What a new user does, from an empty home to a clip in hand, and what they are told on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.acceptance

WriteTones = Callable[..., Path]


@pytest.fixture
def archive(soundpost: Any, write_tones: WriteTones) -> Path:
    """Three recordings, one beep, and a note."""
    folder: Path = soundpost.folder / "archive"
    write_tones(folder / "20260715_043000.wav", (200, 21), (1000, 3), (200, 6))
    write_tones(folder / "20260715_053000.wav", (600, 10))
    write_tones(folder / "sub" / "20260715_063000.wav", (3000, 10))
    (folder / "notes.txt").write_text("north wall")
    return folder


def test_from_nothing_to_a_clip(soundpost: Any, archive: Path) -> None:
    told = soundpost(
        *("ingest", archive, "--source", "yard"),
        *("--time-from-name", "--timezone", "Europe/Berlin"),
    )
    assert "3 files: 3 ingested, 0 already there, 0 failed." in told.out
    assert "Not audio: 1 file, .txt (1)" in told.out

    (hit,) = soundpost("search", "1000 hz tone", "--json").document["hits"]
    assert hit["path"] == str(archive / "20260715_043000.wav")
    assert (hit["start_s"], hit["end_s"]) == (21.0, 24.0)
    assert hit["at"].startswith("2026-07-15T04:30:2") and hit["at"].endswith("+02:00")

    told = soundpost("search", "1000 hz tone")
    assert "archive/20260715_043000.wav" in told.out
    assert "0:21-0:24" in told.out
    assert "CEST" in told.out

    number = hit["recording_id"]
    soundpost("clip", f"{number}@21-24", "beep.wav")
    wave, rate_hz = soundfile.read(soundpost.folder / "beep.wav")
    assert (len(wave), rate_hz) == (24_000, 8_000)
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) * rate_hz / len(wave) == pytest.approx(1000, abs=2)
    assert "output-exists" in soundpost("clip", str(number), "beep.wav", code=2).err

    (again, *_) = soundpost("similar", "beep.wav", "--json").document["hits"]
    assert again["recording_id"] == number

    (source,) = soundpost("sources", "--json").document
    assert (source["name"], source["recordings"]) == ("yard", 3)
    (model,) = soundpost("models", "--json").document
    assert model["vectors"] == soundpost.windows()

    told = soundpost("delete", str(number), "--yes")
    assert "Deleted 1 recording" in told.out
    assert soundpost("search", "1000 hz tone", "--json").document["hits"] == []
    assert (archive / "20260715_043000.wav").exists()


def test_finding_nothing_is_an_answer(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive)
    told = soundpost("search", "a church choir")
    assert "Nothing found above 0.30." in told.out
    assert "The nearest, at 0." in told.err
    document = soundpost("search", "a church choir", "--json").document
    assert document["hits"] == []
    assert document["nearest"]["relevance"] < 0.3


def test_the_same_again_is_quick_and_changes_nothing(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive)
    before = soundpost.content()
    document = soundpost("ingest", archive, "--json").document
    assert (document["ingested"], document["duplicate"]) == (0, 3)
    assert soundpost.content() == before


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("ingest", "nowhere"), "path-not-found"),
        (("ingest", ""), "invalid-value"),
        (("ingest",), "invalid-value"),
        (("ingest", "@nowhere.txt"), "path-not-found"),
        (("ingest", "."), "no-audio-found"),
        (("ingest", ".", "--timezone", "Mars/Olympus"), "no-audio-found"),
        (("search", "rain"), "empty-archive"),
        (("search", " "), "invalid-value"),
        (("search", "rain", "-k", "0"), "invalid-value"),
        (("search", "rain", "--min-score", "2"), "invalid-value"),
        (("search", "rain", "--after", "soon"), "invalid-value"),
        (("search", "rain", "--source", "nowhere"), "unknown-source"),
        (("similar", "nowhere.wav"), "path-not-found"),
        (("similar", "7@5-2"), "invalid-value"),
        (("clip", "7", "out.wav"), "unknown-recording"),
        (("delete", "7", "--yes"), "unknown-recording"),
        (("recordings", "--source", "nowhere"), "unknown-source"),
    ],
)
def test_a_mistake_is_one_line_and_its_remedy(
    soundpost: Any, args: tuple[str, ...], code: str
) -> None:
    told = soundpost(*args, code=2)
    assert told.out == ""
    first, second = told.err.strip().splitlines()
    assert first.startswith(f"error [{code}] ")
    assert second.startswith("remedy: ")


def test_a_wrong_setting_is_named(soundpost: Any) -> None:
    soundpost.more["SOUNDPOST_BATCH_SIZE"] = "many"
    told = soundpost("sources", code=2)
    assert "SOUNDPOST_BATCH_SIZE=many" in told.err


def test_nothing_is_cut_or_coloured_in_a_pipe(
    soundpost: Any, archive: Path, write_tones: WriteTones
) -> None:
    name = "a very long name " * 8 + ".wav"
    write_tones(archive / name, (440, 2))
    soundpost.more["COLUMNS"] = "40"
    soundpost("ingest", archive)
    listed = soundpost("recordings").out
    header, *rows = [line.split("\t") for line in listed.splitlines()]
    assert len(rows) == 4
    assert any(name in row[header.index("path")] for row in rows)
    assert name in soundpost("search", "440 hz").out
    assert "\x1b" not in listed


def test_a_reader_that_has_enough_gets_no_complaint(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive)
    process = soundpost.start("recordings", "--json")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


def test_the_doctor_finds_what_is_wrong(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive)
    assert "error" not in soundpost("doctor", "--files").out
    (archive / "20260715_053000.wav").unlink()
    (archive / "20260715_043000.wav").write_bytes(b"other")
    told = soundpost("doctor", "--files", code=1)
    assert "[file-missing]" in told.out
    assert "[file-changed]" in told.out
    assert "remedy:" in told.out


def test_a_moved_folder_is_recognised(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive)
    moved = archive.rename(archive.with_name("moved"))
    document = soundpost("ingest", moved, "--json").document
    assert (document["ingested"], document["moved"], document["failed"]) == (0, 3, [])
    assert "error" not in soundpost("doctor", "--files").out


def test_a_copied_archive_outlives_its_files(soundpost: Any, archive: Path) -> None:
    soundpost("ingest", archive, "--copy")
    shutil.rmtree(archive)
    (hit,) = soundpost("search", "3000 hz", "--json").document["hits"]
    soundpost("clip", str(hit["recording_id"]), "out.wav")
    assert soundfile.info(soundpost.folder / "out.wav").duration == pytest.approx(10.0)


BAD = {
    "empty.wav": "empty-file",
    "text.wav": "not-audio",
    "header.wav": "no-samples",
    "folder.wav": "not-a-file",
    "link.wav": "broken-link",
}
KEPT = {
    "cut.wav": "truncated",
    "nan.wav": "non-finite-samples",
    "silent.wav": "silent",
    "clipped.wav": "clipped",
}
PLAIN = ("8bit.wav", "24bit.wav", "float64.wav", "1khz.wav", "384khz.wav", "16channels.wav")


def _write_odd_files(folder: Path) -> None:
    rng = np.random.default_rng(3)
    wave = 0.1 * rng.standard_normal(16_000)
    write = soundfile.write
    write(folder / "8bit.wav", wave, 16_000, subtype="PCM_U8")
    write(folder / "24bit.wav", wave, 16_000, subtype="PCM_24")
    write(folder / "float64.wav", wave, 16_000, subtype="DOUBLE")
    write(folder / "1khz.wav", wave[:3_000], 1_000)
    write(folder / "384khz.wav", 0.1 * rng.standard_normal(384_000), 384_000)
    write(folder / "16channels.wav", 0.1 * rng.standard_normal((16_000, 16)), 16_000)
    write(folder / "silent.wav", np.zeros(16_000), 16_000)
    write(folder / "clipped.wav", np.clip(30 * wave, -1, 1), 16_000, subtype="PCM_16")
    write(
        folder / "nan.wav", np.where(np.arange(16_000) == 99, np.nan, wave), 16_000, subtype="FLOAT"
    )
    write(folder / "header.wav", np.zeros(0), 16_000)
    write(folder / "cut.wav", 0.1 * rng.standard_normal(80_000), 16_000, subtype="PCM_16")
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not a sound at all " * 50)
    (folder / "folder.wav").mkdir()
    (folder / "link.wav").symlink_to(folder / "nowhere.wav")


def test_every_kind_of_bad_input_gets_its_code_and_stops_nothing(soundpost: Any) -> None:
    folder = soundpost.folder / "odd"
    folder.mkdir()
    _write_odd_files(folder)
    told = soundpost("ingest", folder, "--json").document
    assert told["ingested"] == len(PLAIN) + len(KEPT)

    def by_name(findings: list[dict[str, str]]) -> dict[str, str]:
        return {Path(finding["path"]).name: finding["code"] for finding in findings}

    assert by_name(told["failed"]) == BAD
    assert by_name(told["truncated"] + told["remarked"]) == KEPT
    assert all(finding["remedy"] for finding in told["failed"] + told["truncated"])

    listed = soundpost("recordings", "--json").document["recordings"]
    rows = {Path(row["path"]).name: row for row in listed}
    assert {name: rows[name]["error_code"] for name in BAD} == BAD
    assert all(rows[name]["remedy"] for name in BAD)
    assert rows["cut.wav"]["truncated"] is True
    assert all(rows[name]["status"] == "embedded" for name in (*PLAIN, *KEPT))

    summary = soundpost("ingest", folder).out
    assert "[empty-file]" in summary and "Remedy for empty-file" in summary


def test_nothing_but_failures_is_exit_code_1(soundpost: Any) -> None:
    (soundpost.folder / "a.wav").touch()
    assert "0 ingested" in soundpost("ingest", "a.wav", code=1).out


def test_what_may_not_be_read_is_a_failure_of_its_own(
    soundpost: Any, write_tones: WriteTones
) -> None:
    folder = soundpost.folder / "audio"
    write_tones(folder / "good.wav", (440, 2))
    write_tones(folder / "secret.wav", (440, 3)).chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0)
    if os.geteuid() == 0:
        # The superuser may read everything, unless that is taken from them.
        soundpost.before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    document = soundpost("ingest", folder, "--json").document
    (folder / "locked").chmod(0o700)
    assert document["ingested"] == 1
    codes = {Path(finding["path"]).name: finding["code"] for finding in document["failed"]}
    assert codes == {"secret.wav": "unreadable-file", "locked": "unreadable-file"}


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "torch", "sqlalchemy", "soundfile", "av", "faiss"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def bare(soundpost: Any) -> Any:
    """The command as a bare install has it: without the platform's packages."""
    (soundpost.folder / "sitecustomize.py").write_text(BLOCKER)
    soundpost.more["PYTHONPATH"] = str(soundpost.folder)
    return soundpost


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("search", "--help")])
def test_a_bare_install_explains_itself(bare: Any, args: tuple[str, ...]) -> None:
    assert "soundpost" in bare(*args).out


@pytest.mark.parametrize(
    "args",
    [
        ("search", "rain"),
        ("similar", "rain.wav"),
        ("ingest", "."),
        ("clip", "1", "out.wav"),
        ("recordings",),
        ("delete", "1"),
        ("doctor",),
        ("upgrade",),
        ("demo",),
        ("train", "diffatr", "--data", "captions.csv", "--out", "mine"),
    ],
)
def test_a_bare_install_says_what_to_install(bare: Any, args: tuple[str, ...]) -> None:
    told = bare(*args, code=2)
    assert "error [missing-extra]" in told.err
    assert "pip install 'soundpost[cpu]'" in told.err


def test_it_runs_as_a_plain_process_without_a_terminal(soundpost: Any) -> None:
    done = subprocess.run(
        soundpost.line(["--version"]),
        env=soundpost.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("soundpost ")
