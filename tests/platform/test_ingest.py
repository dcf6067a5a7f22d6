"""An ingest ends in the same rows however it was cut up, and says what became of every file."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sqlalchemy import func, select

from soundpost.archive.discover import Discovery, Selection, find_files
from soundpost.archive.embed import TAGS_A_WINDOW
from soundpost.archive.frames import locate, pool_frames
from soundpost.archive.index import FloatArray, IdArray, Neighbours
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions, Timing, Workload
from soundpost.archive.recorder_names import moment_from_text
from soundpost.archive.summary import Progress, Summary
from soundpost.errors import InvalidValueError
from soundpost.models.encoder import AudioEncoding
from soundpost.models.placeholder import ToneEncoder
from soundpost.store import recordings, sources, windows
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost.store.tables import Embedding, Recording, Tag, Window

RATE_HZ = 16_000


class Shelf:
    """An index that keeps everything, for looking at what was added."""

    def __init__(self) -> None:
        self.kept: dict[int, FloatArray] = {}

    @property
    def dimension(self) -> int:
        return 32

    def __len__(self) -> int:
        return len(self.kept)

    def add(self, ids: IdArray, vectors: FloatArray) -> None:
        self.kept.update(zip(ids.tolist(), vectors, strict=True))

    def remove(self, ids: IdArray) -> int:
        return sum(self.kept.pop(key, None) is not None for key in ids.tolist())

    def search(self, vectors: FloatArray, k: int, allowed: IdArray | None = None) -> Neighbours:
        raise NotImplementedError


def tone(hz: float, duration_s: float, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """A quiet sine."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def write(path: Path, wave: NDArray[np.float32], rate_hz: int = RATE_HZ) -> Path:
    """Write a 16-bit file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz, subtype="PCM_16")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six short recordings and a longer one, of different pitch, length and rate."""
    root = tmp_path / "audio"
    for number, hz in enumerate((220.0, 330.0, 440.0, 550.0, 660.0, 880.0)):
        write(
            root / f"{number}.wav",
            tone(hz, 1.0 + number, 8_000 + 4_000 * number),
            8_000 + 4_000 * number,
        )
    long = np.concatenate([tone(200.0 + 50.0 * step, 6.0) for step in range(10)])
    write(root / "long.wav", long)
    return root


def run(
    store: Store,
    *paths: Path,
    index: Shelf | None = None,
    encoder: ToneEncoder | None = None,
    objects: AudioFiles | None = None,
    stop: threading.Event | None = None,
    progress: Any = None,
    **options: Any,
) -> Summary:
    """Ingest paths with the stand-in encoder."""
    found = find_files(paths, Selection())
    return ingest(
        found,
        replace(IngestOptions(batch_size=4), **options),
        store,
        encoder or ToneEncoder(),
        Shelf() if index is None else index,
        objects,
        progress,
        stop,
    )


def content(store: Store) -> dict[str, Any]:
    """Everything a person could find out about an archive, without ids and times of writing."""
    with store.reading() as session:
        return {
            row.path: (
                row.sha256,
                row.status,
                row.truncated,
                row.error_code,
                row.duration_s,
                row.sample_rate_hz,
                row.started_at,
                row.remarks,
                list(_windows(session, row.id)),
            )
            for row in session.scalars(select(Recording).order_by(Recording.path))
        }


def _windows(session: Any, recording_id: int) -> Iterator[Any]:
    statement = (
        select(Window, Embedding)
        .join(Embedding, Embedding.window_id == Window.id)
        .where(Window.recording_id == recording_id)
        .order_by(Window.start_s)
    )
    for window, embedding in session.execute(statement):
        tags = session.execute(
            select(Tag.label, func.round(Tag.probability, 4))
            .where(Tag.window_id == window.id)
            .order_by(Tag.label)
        ).all()
        vector = np.frombuffer(embedding.vector, "<f4").round(4).tolist()
        yield window.start_s, window.end_s, window.acoustics, vector, embedding.frames, tags


def test_every_window_is_in_the_rows_and_in_the_index(sqlite_store: Store, folder: Path) -> None:
    index = Shelf()
    summary = run(sqlite_store, folder, index=index)
    assert (summary.files, summary.ingested, summary.duplicate) == (7, 7, 0)
    assert not summary.failed
    assert summary.windows == len(index) == 1 + 1 + 1 + 1 + 2 + 2 + 29
    assert summary.audio_s == pytest.approx(60 + 21)
    assert {"decode", "acoustics", "encode", "store"} <= summary.stages.keys()
    with sqlite_store.reading() as session:
        rows = recordings.find(session)
        assert {row.status for row in rows} == {"embedded"}
        assert [Path(row.path).name for row in rows] == [
            *(f"{n}.wav" for n in range(6)),
            "long.wav",
        ]


def test_windows_keep_their_place_sound_and_tags(sqlite_store: Store, folder: Path) -> None:
    run(sqlite_store, folder / "long.wav")
    found = content(sqlite_store)[str(folder / "long.wav")][-1]
    starts_s = [row[0] for row in found]
    assert starts_s == [2.0 * number for number in range(29)]
    encoder = ToneEncoder()
    wave, _ = soundfile.read(folder / "long.wav", dtype="float32")
    expected = encoder.embed_audio(wave[None, 20 * RATE_HZ : 24 * RATE_HZ])[0]
    np.testing.assert_allclose(found[10][3], expected, atol=1e-3)
    assert found[10][2]["level_dbfs"] == pytest.approx(-13.5, abs=0.3)
    assert len(found[10][4]) == 4 * 32
    assert all(len(row[5]) <= TAGS_A_WINDOW for row in found)
    assert any(label == "tone" for label, _ in found[10][5])


def test_the_same_again_changes_nothing(sqlite_store: Store, folder: Path) -> None:
    run(sqlite_store, folder)
    before = content(sqlite_store)
    index = Shelf()
    summary = run(sqlite_store, folder, index=index)
    assert (summary.ingested, summary.duplicate, len(index)) == (0, 7, 0)
    assert not summary.only_failures
    assert content(sqlite_store) == before


def test_equal_files_are_one_recording_and_the_first_of_them(
    sqlite_store: Store, folder: Path
) -> None:
    shutil.copy(folder / "3.wav", folder / "0-copy.wav")
    summary = run(sqlite_store, folder)
    assert (summary.ingested, summary.duplicate) == (7, 1)
    names = {Path(path).name for path in content(sqlite_store)}
    assert "0-copy.wav" in names
    assert "3.wav" not in names


def test_a_moved_file_is_recognised(sqlite_store: Store, folder: Path) -> None:
    run(sqlite_store, folder)
    (folder / "3.wav").rename(folder / "renamed.wav")
    summary = run(sqlite_store, folder)
    assert (summary.ingested, summary.duplicate, summary.moved) == (0, 6, 1)
    names = {Path(path).name for path in content(sqlite_store)}
    assert "renamed.wav" in names
    assert "3.wav" not in names


def test_changed_content_under_the_same_name_is_a_new_recording(
    sqlite_store: Store, folder: Path
) -> None:
    run(sqlite_store, folder / "0.wav")
    write(folder / "0.wav", tone(999.0, 3.0))
    summary = run(sqlite_store, folder / "0.wav")
    assert (summary.ingested, summary.duplicate) == (1, 0)


def test_what_was_begun_with_other_content_is_not_left_behind(
    sqlite_store: Store, folder: Path
) -> None:
    path = folder / "long.wav"
    with pytest.raises(RuntimeError):
        run(sqlite_store, path, encoder=FailingEncoder(16), chunk_windows=4)
    write(path, tone(700.0, 70.0))
    assert run(sqlite_store, path).ingested == 1
    with sqlite_store.reading() as session:
        assert [row.status for row in recordings.find(session)] == ["embedded"]


def test_bad_files_fail_by_name_and_the_good_ones_go_in(sqlite_store: Store, folder: Path) -> None:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not a sound")
    (folder / "dir.wav").mkdir()
    (folder / "link.wav").symlink_to(folder / "nowhere.wav")
    write(folder / "header.wav", tone(440.0, 0.0))
    write(folder / "blink.wav", tone(440.0, 0.01))
    summary = run(sqlite_store, folder)
    assert summary.ingested == 7
    codes = {Path(finding.path).name: finding.code for finding in summary.failed}
    assert codes == {
        "empty.wav": "empty-file",
        "text.wav": "not-audio",
        "dir.wav": "not-a-file",
        "link.wav": "broken-link",
        "header.wav": "no-samples",
        "blink.wav": "too-short",
    }
    assert all(finding.message and finding.remedy for finding in summary.failed)
    with sqlite_store.reading() as session:
        rows = recordings.find(session, status="failed")
        assert {Path(row.path).name: row.error_code for row in rows} == codes


def test_a_failure_stays_one_row_and_goes_when_the_file_is_mended(
    sqlite_store: Store, folder: Path
) -> None:
    bad = folder / "bad.wav"
    bad.touch()
    first, second = run(sqlite_store, bad), run(sqlite_store, bad)
    assert first.only_failures and second.only_failures
    with sqlite_store.reading() as session:
        assert recordings.count(session, status="failed") == 1
    write(bad, tone(440.0, 2.0))
    assert run(sqlite_store, bad).ingested == 1
    with sqlite_store.reading() as session:
        assert recordings.count(session, status="failed") == 0


class FailingEncoder(ToneEncoder):
    """Stands for a machine that dies: the encoder fails after some windows."""

    def __init__(self, survives: int) -> None:
        self.left = survives

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        self.left -= len(waves)
        if self.left < 0:
            raise RuntimeError("the machine is gone")
        return super().encode_audio(waves, lengths)


@pytest.mark.parametrize("survives", [0, 3, 8, 13, 20, 33])
def test_an_interrupted_run_ends_in_the_rows_of_an_uninterrupted_one(
    survives: int, sqlite_store: Store, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="the machine is gone"):
        run(sqlite_store, folder, encoder=FailingEncoder(survives), chunk_windows=4)
    summary = run(sqlite_store, folder)
    assert not summary.failed
    assert content(sqlite_store) == _uninterrupted(folder, tmp_path)


def _uninterrupted(folder: Path, tmp_path: Path) -> dict[str, Any]:
    from soundpost.store.session import open_store
    from soundpost_migrations.upgrade import upgrade

    url = f"sqlite:///{tmp_path / 'reference.db'}"
    upgrade(url)
    store = open_store(url)
    run(store, folder)
    found = content(store)
    store.close()
    return found


def test_a_long_recording_goes_on_from_its_last_window(sqlite_store: Store, folder: Path) -> None:
    with pytest.raises(RuntimeError):
        run(sqlite_store, folder / "long.wav", encoder=FailingEncoder(16), chunk_windows=4)
    with sqlite_store.reading() as session:
        (row,) = recordings.find(session)
        done = windows.last_complete(session, row.id, 1)
        assert row.status == "embedding"
    assert 0 < done < 29
    assert run(sqlite_store, folder / "long.wav").windows == 29 - done


def test_stopping_writes_what_is_embedded_and_says_what_is_left(
    sqlite_store: Store, folder: Path, tmp_path: Path
) -> None:
    stop = threading.Event()

    def at_ten_seconds(progress: Progress) -> None:
        if progress.audio_done_s >= 10.0:
            stop.set()

    summary = run(sqlite_store, folder, stop=stop, progress=at_ten_seconds)
    assert summary.interrupted
    assert 0 < summary.windows < 37
    assert run(sqlite_store, folder).windows == 37 - summary.windows
    assert content(sqlite_store) == _uninterrupted(folder, tmp_path)


def test_the_encoder_sees_full_batches_of_many_short_recordings(
    sqlite_store: Store, tmp_path: Path
) -> None:
    for number in range(20):
        write(tmp_path / "short" / f"{number:02d}.wav", tone(100.0 + 20 * number, 0.5))
    sizes: list[int] = []

    class Counting(ToneEncoder):
        def encode_audio(
            self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
        ) -> AudioEncoding:
            sizes.append(len(waves))
            return super().encode_audio(waves, lengths)

    run(sqlite_store, tmp_path / "short", encoder=Counting(), batch_size=8)
    assert sizes == [8, 8, 4]


def test_a_short_recording_is_embedded_without_its_padding(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = write(tmp_path / "short.wav", tone(440.0, 1.5))
    run(sqlite_store, path)
    ((start_s, end_s, _, vector, frames, _),) = content(sqlite_store)[str(path)][-1]
    assert (start_s, end_s) == (0.0, 1.5)
    wave, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(vector, ToneEncoder().embed_audio(wave[None])[0], atol=1e-3)
    assert len(frames) == 2 * 32


def test_a_decoder_that_runs_amok_fails_one_file_only(
    sqlite_store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soundpost.archive import prepare

    real = prepare.resample

    def sometimes(samples: Any, from_hz: int, to_hz: int) -> Any:
        if from_hz == 12_000:
            raise MemoryError("too large")
        return real(samples, from_hz, to_hz)

    monkeypatch.setattr(prepare, "resample", sometimes)
    summary = run(sqlite_store, folder)
    assert summary.ingested == 6
    (finding,) = summary.failed
    assert (Path(finding.path).name, finding.code) == ("1.wav", "decode-failed")
    assert "MemoryError" in finding.message


def test_another_model_embeds_what_is_there_already(sqlite_store: Store, folder: Path) -> None:
    run(sqlite_store, folder)

    class Newer(ToneEncoder):
        @property
        def spec(self) -> Any:
            return replace(super().spec, revision="2")

    summary = run(sqlite_store, folder, encoder=Newer())
    assert (summary.ingested, summary.duplicate, summary.windows) == (7, 0, 37)
    with sqlite_store.reading() as session:
        assert session.scalar(select(func.count(Window.id))) == 37
        assert session.scalar(select(func.count(Embedding.id))) == 74


def test_times_come_from_names_and_what_is_doubtful_is_said(
    sqlite_store: Store, tmp_path: Path
) -> None:
    known = write(tmp_path / "rec" / "20260715_043000.wav", tone(440.0, 1.0))
    unknown = write(tmp_path / "rec" / "owl.wav", tone(550.0, 1.0))
    from soundpost.archive.recorder_names import zone_named

    timing = Timing(from_name=True, zone=zone_named("Europe/Berlin"))
    summary = run(sqlite_store, tmp_path / "rec", timing=timing, timezone="Europe/Berlin")
    assert [(Path(f.path).name, f.code) for f in summary.remarked] == [
        ("owl.wav", "no-time-in-name")
    ]
    rows = content(sqlite_store)
    assert rows[str(known)][6] == datetime(2026, 7, 15, 2, 30, tzinfo=UTC)
    assert rows[str(unknown)][6] is None
    with sqlite_store.reading() as session:
        assert sources.by_name(session, "archive").timezone == "Europe/Berlin"


def test_a_time_given_later_is_added_to_what_is_there(sqlite_store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "20260715_043000.wav", tone(440.0, 1.0))
    run(sqlite_store, path)
    summary = run(sqlite_store, path, timing=Timing(from_name=True))
    assert (summary.dated, summary.duplicate) == (1, 1)
    assert content(sqlite_store)[str(path)][6] == datetime(2026, 7, 15, 4, 30, tzinfo=UTC)


def test_one_start_for_many_recordings_is_refused(sqlite_store: Store, folder: Path) -> None:
    moment = moment_from_text("2026-03-15T04:30", UTC)
    with pytest.raises(InvalidValueError, match="7 files"):
        run(sqlite_store, folder, timing=Timing(started_at=moment))
    assert run(sqlite_store, folder / "0.wav", timing=Timing(started_at=moment)).ingested == 1


def test_copying_keeps_the_audio_when_the_file_goes(
    sqlite_store: Store, folder: Path, tmp_path: Path
) -> None:
    objects = AudioFiles((tmp_path / "objects").as_uri())
    run(sqlite_store, folder / "0.wav")
    summary = run(sqlite_store, folder / "0.wav", objects=objects, copy=True)
    assert summary.duplicate == 1
    before = (folder / "0.wav").read_bytes()
    (folder / "0.wav").unlink()
    with sqlite_store.reading() as session:
        (row,) = recordings.find(session)
    assert objects.open_local(row).read_bytes() == before


def test_a_name_that_is_not_utf8_goes_in_like_any_other(
    sqlite_store: Store, tmp_path: Path
) -> None:
    import os

    path = write(tmp_path / "plain.wav", tone(440.0, 1.0))
    odd = path.rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    assert run(sqlite_store, odd).ingested == 1
    assert run(sqlite_store, odd).duplicate == 1


def test_a_folder_that_cannot_be_listed_is_a_failure(sqlite_store: Store, tmp_path: Path) -> None:
    found = Discovery(unreadable=[tmp_path / "locked"])
    summary = ingest(found, IngestOptions(), sqlite_store, ToneEncoder(), Shelf())
    assert [finding.code for finding in summary.failed] == ["unreadable-file"]
    assert summary.only_failures


def test_progress_rises_to_the_whole(sqlite_store: Store, folder: Path) -> None:
    seen: list[Progress] = []
    run(sqlite_store, folder, progress=seen.append)
    done_s = [progress.audio_done_s for progress in seen]
    assert done_s == sorted(done_s)
    assert seen[-1].files_done == seen[-1].files_total == 7
    assert seen[-1].audio_done_s == pytest.approx(seen[-1].audio_total_s, rel=0.1)


def test_the_summary_is_json_ready(sqlite_store: Store, folder: Path) -> None:
    import json

    (folder / "empty.wav").touch()
    document = json.loads(json.dumps(run(sqlite_store, folder).to_document(), allow_nan=False))
    assert document["ingested"] == 7
    assert document["failed"][0]["code"] == "empty-file"


def test_the_total_is_carried_on_to_files_not_yet_seen(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"x" * 1000)
    workload = Workload(paths)
    assert workload.total_s() == 0.0
    workload.examined(1000, 60.0)
    assert workload.total_s() == pytest.approx(120.0)
    workload.examined(1000, 0.0)
    assert workload.total_s() == pytest.approx(60.0)


def test_frames_are_pooled_to_one_unit_vector_a_second() -> None:
    frames = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    pooled = pool_frames(frames, 0.25, 3.0)
    np.testing.assert_array_equal(pooled, 127 * np.eye(3, dtype=np.int8))
    assert pool_frames(frames, 0.25, 1.5).shape == (2, 3)
    assert pool_frames(frames, 0.25, 0.1).shape == (1, 3)
    mixed = np.array([[1, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(pool_frames(mixed, 0.5, 1.0), [[90, 90]])


def test_frames_slower_than_a_second_leave_no_second_empty() -> None:
    frames = np.eye(2, dtype=np.float32)
    pooled = pool_frames(frames, 2.0, 4.0)
    np.testing.assert_array_equal(pooled, 127 * np.eye(2, dtype=np.int8)[[0, 0, 1, 1]])


def test_a_query_is_located_where_its_frames_are() -> None:
    query = np.array([1.0, 0.0], dtype=np.float32)
    quiet, loud = [0, 127], [127, 0]
    place = locate(np.array([quiet, quiet, [102, 76], loud, quiet], dtype=np.int8), query)
    assert (place.start_s, place.end_s, place.peak_s) == (2, 4, 3)
    everywhere = locate(np.array([loud] * 5, dtype=np.int8), query)
    assert (everywhere.start_s, everywhere.end_s) == (0, 5)


def test_a_few_samples_more_than_a_window_are_no_second_window(
    sqlite_store: Store, tmp_path: Path
) -> None:
    slightly = write(tmp_path / "slightly.wav", tone(440.0, 4.01))
    clearly = write(tmp_path / "clearly.wav", tone(550.0, 4.1))
    run(sqlite_store, slightly, clearly)
    rows = content(sqlite_store)
    assert [row[:2] for row in rows[str(slightly)][-1]] == [(0.0, 4.0)]
    assert rows[str(slightly)][4] == pytest.approx(4.01)
    assert [row[0] for row in rows[str(clearly)][-1]] == pytest.approx([0.0, 0.1])
    assert run(sqlite_store, slightly, clearly).duplicate == 2
