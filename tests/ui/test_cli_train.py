"""`soundpost train diffatr` over a tiny random CLAP: from captions to a reranker that can be loaded."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from soundpost.models.diffatr import DiffAtrReranker
from soundpost.models.reranker import Candidates

RATE_HZ = 8_000
PATIENCE_S = 240.0
SHORT = ("--contrastive-steps", "6", "--joint-steps", "6", "--distil-steps", "4", "--batch", "4")
WORDS = ("a low hum", "a high whistle", "wind noise")

# Runs the command line; returns its exit code, and what it printed.
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory, save_tiny_clap: Callable[..., Path]) -> Path:
    return save_tiny_clap(tmp_path_factory.mktemp("clap") / "tiny")


@pytest.fixture
def soundpost(soundpost: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, on one core."""
    monkeypatch.setenv("SOUNDPOST_THREADS", "1")
    monkeypatch.setenv("SOUNDPOST_DEVICE", "cpu")
    return soundpost


def write_sound(path: Path, number: int, length_s: float = 0.5) -> None:
    """Write one of three kinds of sound, every one another."""
    rng = np.random.default_rng(number)
    time_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    hz = (120.0, 2_500.0, 0.0)[number % 3] * rng.uniform(0.9, 1.1)
    wave = 0.3 * np.sin(2 * np.pi * hz * time_s) + 0.02 * rng.standard_normal(len(time_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE_HZ, subtype="PCM_16")


def write_simple(folder: Path, count: int = 20) -> Path:
    """Write sounds and a list of path and caption."""
    rows = [("path", "caption")]
    for number in range(count):
        write_sound(folder / f"{number}.wav", number)
        rows.append((f"{number}.wav", f"{WORDS[number % 3]}, number {number}"))
    return write_rows(folder / "captions.csv", rows)


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_audiocaps(folder: Path) -> Path:
    rows = [("audiocap_id", "youtube_id", "start_time", "caption")]
    for number in range(12):
        write_sound(folder / "audio" / f"Yvideo_{number}.wav", number)
        rows += [
            (f"{number}{n}", f"video_{number}", "30", f"{WORDS[number % 3]} {n}") for n in (0, 1)
        ]
    return write_rows(folder / "val.csv", rows)


def write_clotho(folder: Path) -> Path:
    rows = [("file_name", *(f"caption_{n}" for n in range(1, 6)))]
    for number in range(12):
        write_sound(folder / "audio" / f"Sound {number}.wav", number)
        rows.append((f"Sound {number}.wav", *(f"{WORDS[number % 3]} {n}" for n in range(5))))
    return write_rows(folder / "clotho_captions_validation.csv", rows)


@pytest.mark.slow
def test_a_reranker_is_trained_measured_and_can_be_loaded(
    soundpost: Run, clap: Path, tmp_path: Path
) -> None:
    data = write_simple(tmp_path / "sounds")
    told = soundpost("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine", *SHORT)
    assert told.code == 0, told.err
    assert "captions.csv: path and caption, 20 clips with 20 captions" in told.out
    assert "16 clips to train with, 2 to choose by, 2 held out" in told.out
    for said in ("text to sound: 2 queries over 2", "sound to text", "similarity alone", "gain"):
        assert said in told.out
    assert f"export SOUNDPOST_RERANKER={tmp_path / 'mine'}" in told.out
    assert f"export SOUNDPOST_ENCODER={clap}" in told.out
    card = (tmp_path / "mine" / "README.md").read_text()
    for said in ("captions.csv", "16 clips", "6 contrastive, 6 joint, 4 distil", "mAP@10"):
        assert said in card
    assert str(tmp_path) not in card.replace(str(clap), "")
    assert not (tmp_path / "mine" / "left-out.csv").exists()
    assert probabilities(clap, tmp_path / "mine").sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_the_settings_that_it_tells_let_a_search_use_it(
    soundpost: Run, clap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_simple(tmp_path / "sounds", 12)
    told = soundpost("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine", *SHORT)
    for line in told.out.splitlines():
        if line.strip().startswith("export "):
            name, _, value = line.strip().removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOUNDPOST_RERANK_BUDGET_S", "60")
    assert soundpost("ingest", tmp_path / "sounds").code == 0
    found = soundpost("search", "a low hum", "--min-score", "0", "--json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document["rerank"]["applied"], document["rerank"]
    assert document["rerank"]["candidates"] >= len(document["hits"]) > 0


def probabilities(clap: Path, folder: Path) -> Any:
    """Let a trained reranker judge three sounds."""
    from soundpost.models.clap import ClapEncoder

    encoder = ClapEncoder.load(str(clap), threads=1)
    reranker = DiffAtrReranker.load(folder, encoder)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, encoder.spec.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    candidates = Candidates(np.arange(3), vectors, vectors[:, None], np.ones(3, np.int64))
    cosines = vectors @ encoder.embed_text(["a hum"])[0]
    return reranker.joint_probability("a hum", cosines, candidates)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_audiocaps, "val.csv: AudioCaps, 12 clips with 24 captions"),
        (write_clotho, "clotho_captions_validation.csv: Clotho, 12 clips with 60 captions"),
    ],
)
def test_published_captions_are_read_and_files_beside_them_found(
    soundpost: Run, clap: Path, tmp_path: Path, write: Callable[[Path], Path], said: str
) -> None:
    data = write(tmp_path / "data")
    (tmp_path / "data" / "audio").rename(tmp_path / "elsewhere")
    told = soundpost(
        *("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine", *SHORT),
        *("--audio", tmp_path / "elsewhere"),
    )
    assert told.code == 0, told.err
    assert said in told.out
    assert "10 clips to train with, 1 to choose by, 1 held out" in told.out


@pytest.mark.slow
def test_what_is_missing_or_broken_is_counted_and_listed(
    soundpost: Run, clap: Path, tmp_path: Path
) -> None:
    data = write_simple(tmp_path / "sounds", 24)
    for number in (2, 3, 5):
        (tmp_path / "sounds" / f"{number}.wav").unlink()
    (tmp_path / "sounds" / "7.wav").write_bytes(b"no audio at all")
    write_sound(tmp_path / "sounds" / "8.wav", 8, length_s=31.0)
    told = soundpost("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine", *SHORT)
    assert told.code == 0, told.err
    assert "21 clips with 21 captions" in told.out
    assert "3 files are missing, 1 cannot be heard" in told.out
    assert "1 clip longer than 30 s" in told.out
    with (tmp_path / "mine" / "left-out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"].rpartition("/")[2], row["code"]) for row in rows] == [
        ("2.wav", "file-missing"),
        ("3.wav", "file-missing"),
        ("5.wav", "file-missing"),
        ("7.wav", "not-audio"),
    ]
    assert rows[0]["detail"] == "line 4"


def test_lines_that_cannot_be_used_stop_it_before_any_work(
    soundpost: Run, clap: Path, tmp_path: Path
) -> None:
    data = write_simple(tmp_path / "sounds", 12)
    with data.open("a") as file:
        file.write("1.wav\n2.wav,\n")
    told = soundpost("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine")
    assert told.code == 2
    assert "captions.csv:14 (1 fields, the header has 2)" in told.err
    assert "captions.csv:15 (caption is empty)" in told.err
    assert "2 lines cannot be used" in told.err
    assert "[manifest]" in told.err and "[manifest-line]" in told.err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--data", "none.csv"), "path-not-found", "none.csv"),
        (("--data", "list.csv", "--audio", "none"), "path-not-found", "none"),
        (("--data", "list.csv"), "manifest", "none of its 1 files"),
        (("--data", "notes.txt"), "manifest", "youtube_id"),
        (("--data", "few.csv"), "invalid-value", "2 different recordings"),
        (("--data", "few.csv", "--held-out", "0.7"), "invalid-value", "0.7"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    soundpost: Run, tmp_path: Path, args: tuple[str, ...], code: str, said: str
) -> None:
    (tmp_path / "list.csv").write_text("path,caption\ngone.wav,rain\n")
    (tmp_path / "notes.txt").write_text("remember the milk\n")
    for name in ("a.wav", "b.wav"):
        write_sound(tmp_path / name, 1)
    (tmp_path / "few.csv").write_text("path,caption\na.wav,rain\nb.wav,hail\n")
    told = soundpost("train", "diffatr", "--out", "mine", *args)
    assert told.code == 2
    assert f"[{code}]" in told.err and said in told.err


@pytest.mark.slow
def test_another_training_in_the_folder_is_not_overwritten(
    soundpost: Run, clap: Path, tmp_path: Path
) -> None:
    data = write_simple(tmp_path / "sounds", 12)
    line = ("train", "diffatr", "--encoder", clap, "--data", data, "--out", "mine", *SHORT)
    assert soundpost(*line).code == 0
    weights = (tmp_path / "mine" / "model.safetensors").read_bytes()
    other = soundpost(*line, "--seed", "1")
    assert other.code == 2 and "[output-exists]" in other.err and "--force" in other.err
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == weights
    # The same again has nothing left to do, and ends in the same.
    assert soundpost(*line).code == 0
    assert same_weights(tmp_path / "mine" / "model.safetensors", weights)
    assert soundpost(*line, "--seed", "1", "--force").code == 0
    assert not same_weights(tmp_path / "mine" / "model.safetensors", weights)


def same_weights(path: Path, before: bytes) -> bool:
    other = path.with_name("before.bin")
    other.write_bytes(before)
    ours, theirs = load_file(path), load_file(other)
    other.unlink()
    return all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_killed_while_it_embeds_or_trains_it_goes_on_to_the_same_weights(
    soundpost: Run, clap: Path, tmp_path: Path
) -> None:
    data = write_simple(tmp_path / "sounds", 70)
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    line = ("train", "diffatr", "--encoder", str(clap), "--data", str(data), *SHORT)
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "soundpost_ui", *line, "--out", str(killed)],
            env=os.environ | path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    first_pieces: dict[Path, int] = {}
    for stage in ("sounds/*/piece-*.npz", "0-*.safetensors"):
        process = start()
        last = time.monotonic() + PATIENCE_S
        while not any(killed.glob(stage)):
            assert process.poll() is None and time.monotonic() < last, stage
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        pieces = {path: path.stat().st_mtime_ns for path in killed.glob("sounds/*/piece-*.npz")}
        # What was embedded once is not embedded again.
        assert first_pieces.items() <= pieces.items()
        first_pieces = pieces
    for folder in (killed, quiet):
        assert soundpost(*line, "--out", folder).code == 0
    assert same_weights(quiet / "model.safetensors", (killed / "model.safetensors").read_bytes())
    read = [json.loads((folder / "config.json").read_text()) for folder in (quiet, killed)]
    assert read[0] == read[1]
