"""Snapshots: whole or not there, and every wrong byte is found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from soundpost.errors import CorruptSnapshotError, VectorIndexError
from soundpost_indexer import snapshot
from soundpost_indexer.exact import ExactIndex
from soundpost_indexer.faiss_index import FaissIndex
from soundpost_indexer.interface import VectorIndex
from soundpost_indexer.snapshot import Manifest, Snapshot

MANIFEST = Manifest(
    model_name="tone",
    model_revision="1",
    dimension=8,
    engine="faiss",
    layout="flat",
    count=20,
    embedding_id=20,
    tombstone_id=3,
)
ENGINES: list[Callable[[int], VectorIndex]] = [ExactIndex, FaissIndex]


def some_index(engine: Callable[[int], VectorIndex] = FaissIndex, seed: int = 0) -> VectorIndex:
    index = engine(8)
    index.add(np.arange(1, 21), np.random.default_rng(seed).normal(size=(20, 8)))
    return index


def publish(folder: Path, index: VectorIndex | None = None) -> Snapshot:
    with snapshot.writer_lock(folder):
        return snapshot.publish(folder, MANIFEST, (index or some_index()).save)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "writer.lock")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_published_is_verified_and_loaded(
    engine: Callable[[int], VectorIndex], tmp_path: Path
) -> None:
    written = some_index(engine)
    made = publish(tmp_path / "new" / "folder", written)
    manifest = snapshot.verify(made.path)
    assert manifest == made.manifest
    assert replace(manifest, created_at="", files={}) == MANIFEST
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)
    assert abs(age.total_seconds()) < 3600
    read = engine(8)
    read.load(made.path)
    np.testing.assert_array_equal(read.ids(), written.ids())
    np.testing.assert_array_equal(read.vectors(read.ids()), written.vectors(read.ids()))


def test_the_newest_comes_first_and_two_are_kept(tmp_path: Path) -> None:
    made = [publish(tmp_path).path for _ in range(4)]
    assert snapshot.published(tmp_path) == [made[3], made[2]]
    assert names(tmp_path) == ["00000003", "00000004"]


def test_a_folder_that_is_not_there_has_no_snapshots(tmp_path: Path) -> None:
    assert snapshot.published(tmp_path / "none") == []
    assert snapshot.newest_manifest(tmp_path / "none") is None


@pytest.mark.parametrize("engine", ENGINES)
def test_every_flipped_bit_is_found(engine: Callable[[int], VectorIndex], tmp_path: Path) -> None:
    made = publish(tmp_path, some_index(engine))
    rng = np.random.default_rng(5)
    files = sorted(made.path.iterdir())
    assert len(files) == 3
    for path in files:
        good = path.read_bytes()
        for place in {0, len(good) - 1, *rng.integers(len(good), size=40).tolist()}:
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            with pytest.raises(CorruptSnapshotError):
                snapshot.verify(made.path)
        path.write_bytes(good)
    assert snapshot.verify(made.path) == made.manifest


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_shortened_file_is_found(keep: int, tmp_path: Path) -> None:
    made = publish(tmp_path)
    for path in made.path.iterdir():
        good = path.read_bytes()
        path.write_bytes(good[:keep])
        with pytest.raises(CorruptSnapshotError):
            snapshot.verify(made.path)
        path.write_bytes(good)


def test_a_missing_file_is_found_but_a_missing_snapshot_is_only_gone(tmp_path: Path) -> None:
    made = publish(tmp_path)
    (made.path / "ids.npy").unlink()
    with pytest.raises(CorruptSnapshotError, match=r"ids\.npy"):
        snapshot.verify(made.path)
    with pytest.raises(FileNotFoundError):
        snapshot.verify(tmp_path / "00000009")


def test_a_manifest_that_was_edited_is_found(tmp_path: Path) -> None:
    made = publish(tmp_path)
    path = made.path / "manifest.json"
    document = json.loads(path.read_text())
    document["manifest"]["embedding_id"] = 21
    path.write_text(json.dumps(document, sort_keys=True, indent=1) + "\n")
    with pytest.raises(CorruptSnapshotError):
        snapshot.verify(made.path)


def test_a_later_format_is_left_alone(tmp_path: Path) -> None:
    with snapshot.writer_lock(tmp_path):
        later = replace(MANIFEST, format_version=snapshot.FORMAT_VERSION + 1)
        made = snapshot.publish(tmp_path, later, some_index().save)
    with pytest.raises(VectorIndexError, match="later version") as caught:
        snapshot.verify(made.path)
    assert not isinstance(caught.value, CorruptSnapshotError)


def test_the_newest_manifest_passes_over_damaged_and_refused_ones(tmp_path: Path) -> None:
    first, second = publish(tmp_path), publish(tmp_path)
    (second.path / "manifest.json").write_bytes(b"{}")
    assert snapshot.newest_manifest(tmp_path) == first.manifest
    assert snapshot.newest_manifest(tmp_path, lambda known: known.model_name == "other") is None


def test_one_set_aside_is_kept_out_of_sight(tmp_path: Path) -> None:
    first, second = publish(tmp_path), publish(tmp_path)
    assert snapshot.set_aside(second.path, "corrupt", "test") == tmp_path / "00000002.corrupt"
    assert snapshot.set_aside(second.path, "corrupt", "again") is None
    assert snapshot.published(tmp_path) == [first.path]
    third = publish(tmp_path)
    assert third.path.name == "00000003"
    snapshot.set_aside(third.path, "foreign", "test")
    publish(tmp_path)
    assert names(tmp_path) == ["00000001", "00000003.foreign", "00000004"]


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyError("stop")])
def test_a_failed_write_leaves_everything_as_it_was(problem: Exception, tmp_path: Path) -> None:
    first = publish(tmp_path)

    def write(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise problem

    expected = VectorIndexError if isinstance(problem, OSError) else KeyError
    with snapshot.writer_lock(tmp_path), pytest.raises(expected):
        snapshot.publish(tmp_path, MANIFEST, write)
    assert names(tmp_path) == [first.path.name]


# --- writers ----------------------------------------------------------------------------------


WRITE_FOR_EVER = """
import sys, time
from pathlib import Path
from soundpost_indexer import snapshot

def write(folder):
    (folder / "half").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)

with snapshot.writer_lock(Path(sys.argv[1])):
    snapshot.publish(Path(sys.argv[1]), None, write)
"""


@pytest.fixture
def dead_writer(tmp_path: Path) -> Path:
    """A folder in which a process was killed while it wrote."""
    publish(tmp_path)
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        with snapshot.writer_lock(tmp_path, wait=False) as mine:
            assert not mine
        assert (tmp_path / "writing" / "half").exists(), "the writer was still alive"
        writer.kill()
    return tmp_path


def test_what_a_dead_writer_left_is_removed(dead_writer: Path) -> None:
    assert len(snapshot.published(dead_writer)) == 1
    with snapshot.writer_lock(dead_writer, wait=False) as mine:
        assert mine
        assert names(dead_writer) == ["00000001"]


def test_writers_take_turns(tmp_path: Path) -> None:
    at_once, most = 0, 0
    lock = threading.Lock()

    def write(folder: Path) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        some_index().save(folder)
        with lock:
            at_once -= 1

    def work() -> None:
        for _ in range(5):
            with snapshot.writer_lock(tmp_path):
                snapshot.publish(tmp_path, MANIFEST, write)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert names(tmp_path) == ["00000019", "00000020"]


def test_readers_never_see_half_a_snapshot(tmp_path: Path) -> None:
    publish(tmp_path)
    done = threading.Event()

    def write() -> None:
        for seed in range(25):
            publish(tmp_path, some_index(seed=seed))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set():
        for path in snapshot.published(tmp_path):
            try:
                snapshot.verify(path)
            except FileNotFoundError:
                continue  # Removed since it was listed, as a whole.
            seen += 1
    writer.join()
    assert seen
