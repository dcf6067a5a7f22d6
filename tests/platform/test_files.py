"""Audio files: what stays in place is checked, what is copied is found by its content."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from soundpost.errors import (
    AudioStoreError,
    FileChangedError,
    FileMissingError,
    NotAFileError,
    UnreadableFileError,
)
from soundpost.store import files
from soundpost.store.files import AudioFiles, key_of, sha256_of

SOUND = b"RIFF....WAVE" + bytes(range(256)) * 64


@dataclass(frozen=True)
class Kept:
    """What the store knows of a recording's audio."""

    path: str
    sha256: str | None
    size_bytes: int | None = None
    modified_ns: int | None = None
    object_key: str | None = None


def as_ingested(path: Path) -> Kept:
    found = path.stat()
    return Kept(str(path), sha256_of(path), found.st_size, found.st_mtime_ns)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "archive" / "Wähler 3.WAV"
    path.parent.mkdir()
    path.write_bytes(SOUND)
    return path


@pytest.fixture(params=["local", "memory"])
def audio(request: pytest.FixtureRequest, tmp_path: Path) -> AudioFiles:
    url = (tmp_path / "objects here").as_uri() if request.param == "local" else "memory:///"
    return AudioFiles(url)


# --- copied in --------------------------------------------------------------------------------


def test_a_copy_is_known_by_its_content(audio: AudioFiles, recording: Path) -> None:
    digest = sha256(SOUND)
    key = audio.put(recording, digest)
    assert key == f"{digest[:2]}/{digest[2:4]}/{digest}.wav"
    recording.unlink()
    found = audio.open_local(Kept(str(recording), digest, object_key=key))
    assert found.read_bytes() == SOUND
    assert found.suffix == ".wav"


@pytest.mark.parametrize(
    "suffix, kept",
    [(".FLAC", ".flac"), ("", ""), (".m 4a", ""), (".ümp", ""), (".verylongsuffix", "")],
)
def test_only_plain_suffixes_become_part_of_a_key(suffix: str, kept: str) -> None:
    assert key_of("ab" * 32, suffix) == "ab/ab/" + "ab" * 32 + kept


def test_the_same_content_is_copied_once(tmp_path: Path, recording: Path) -> None:
    audio = AudioFiles(str(tmp_path / "objects"))
    key = audio.put(recording, sha256(SOUND))
    copied = tmp_path / "objects" / key
    before = copied.stat()
    other = recording.with_name("other.wav")
    other.write_bytes(SOUND)
    assert audio.put(other, sha256(SOUND)) == key
    after = copied.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_content_that_changed_since_it_was_hashed_is_not_kept(
    audio: AudioFiles, recording: Path
) -> None:
    digest = sha256(SOUND)
    recording.write_bytes(SOUND[::-1])
    with pytest.raises(FileChangedError, match="while it was copied"):
        audio.put(recording, digest)
    with pytest.raises(FileMissingError):
        audio.open_local(Kept("", digest, object_key=key_of(digest, ".wav")))


def test_deleting_an_object_twice_is_harmless(audio: AudioFiles, recording: Path) -> None:
    key = audio.put(recording, sha256(SOUND))
    audio.delete(key)
    audio.delete(key)
    with pytest.raises(FileMissingError, match=key[:20]):
        audio.open_local(Kept("", sha256(SOUND), object_key=key))
    assert audio.put(recording, sha256(SOUND)) == key


def test_large_files_are_copied_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    chunk = os.urandom(1024 * 1024)
    with path.open("wb") as file:
        for _ in range(64):
            file.write(chunk)
    audio = AudioFiles(str(tmp_path / "objects"))
    digest = sha256_of(path)
    tracemalloc.start()
    audio.put(path, digest)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 32 * 1024 * 1024
    assert sha256_of(audio.open_local(Kept("", digest, object_key=key_of(digest, ".wav")))) == (
        digest
    )


def test_several_writers_of_one_content_agree(audio: AudioFiles, recording: Path) -> None:
    keys: list[str] = []
    writers = [
        threading.Thread(target=lambda: keys.append(audio.put(recording, sha256(SOUND))))
        for _ in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert keys == [key_of(sha256(SOUND), ".wav")] * 8
    found = audio.open_local(Kept("", sha256(SOUND), object_key=keys[0]))
    assert found.read_bytes() == SOUND


def test_what_is_fetched_is_checked_and_kept_for_the_next_time(recording: Path) -> None:
    audio = AudioFiles("memory:///")
    key = audio.put(recording, sha256(SOUND))
    kept = Kept("", sha256(SOUND), object_key=key)
    first = audio.open_local(kept)
    audio.delete(key)
    assert audio.open_local(kept) == first
    with pytest.raises(FileChangedError, match="damaged"):
        damaged = audio.put(recording, sha256(SOUND))
        first.unlink()
        audio.open_local(Kept("", "0" * 64, object_key=damaged))
    assert list(first.parent.iterdir()) == []


def test_the_cache_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    audio = AudioFiles("memory:///", cache_dir=cache, cache_bytes=2500)
    kept = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(bytes([number]) * 1000)
        digest = sha256_of(path)
        kept.append(Kept("", digest, object_key=audio.put(path, digest)))
    first, second = audio.open_local(kept[0]), audio.open_local(kept[1])
    (cache / "notes.txt").write_text("not ours" * 1000)
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    audio.open_local(kept[0])
    third = audio.open_local(kept[2])
    assert {path.name for path in cache.iterdir()} == {first.name, third.name, "notes.txt"}
    assert audio.open_local(kept[1]).read_bytes() == b"\1" * 1000


def test_a_cache_of_its_own_goes_away_with_its_owner(recording: Path) -> None:
    audio = AudioFiles("memory:///")
    key = audio.put(recording, sha256(SOUND))
    folder = audio.open_local(Kept("", sha256(SOUND), object_key=key)).parent
    assert folder.exists()
    del audio
    assert not folder.exists()


@pytest.mark.parametrize("url", ["ftp://host/folder", "az://container/prefix", "nonsense://"])
def test_a_store_that_cannot_be_opened_is_named(url: str, recording: Path) -> None:
    with pytest.raises(AudioStoreError, match=url) as caught:
        AudioFiles(url).put(recording, sha256(SOUND))
    assert "\n" not in str(caught.value)
    assert "SOUNDPOST_OBJECTS_URL" in caught.value.remedy


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(AudioStoreError, match="archive"):
        AudioFiles(str(recording / "objects")).put(recording, sha256(SOUND))


def test_an_archive_in_place_needs_no_object_store(tmp_path: Path, recording: Path) -> None:
    audio = AudioFiles(str(tmp_path / "objects"))
    audio.open_local(as_ingested(recording))
    assert not (tmp_path / "objects").exists()


# --- in place ---------------------------------------------------------------------------------


def test_an_untouched_file_is_not_read(
    audio: AudioFiles, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = as_ingested(recording)
    monkeypatch.setattr(files, "sha256_of", refuse)
    assert audio.open_local(kept) == recording


def refuse(path: Path) -> str:
    raise AssertionError(f"{path} was hashed")


def test_a_touched_file_is_hashed_once(
    audio: AudioFiles, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = as_ingested(recording)
    os.utime(recording, ns=(1, 1))
    assert audio.open_local(kept) == recording
    monkeypatch.setattr(files, "sha256_of", refuse)
    assert audio.open_local(kept) == recording
    monkeypatch.undo()
    recording.write_bytes(SOUND[::-1])
    with pytest.raises(FileChangedError):
        audio.open_local(kept)


@pytest.mark.parametrize("content", [SOUND + b"more", SOUND[:-1], b"", SOUND[::-1]])
def test_other_content_is_noticed(audio: AudioFiles, recording: Path, content: bytes) -> None:
    kept = as_ingested(recording)
    recording.write_bytes(content)
    os.utime(recording, ns=(1, 1))
    with pytest.raises(FileChangedError, match="Wähler 3"):
        audio.open_local(kept)


def remove(path: Path) -> None:
    path.unlink()


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_folder_by_file(path: Path) -> None:
    move_folder(path)
    path.parent.write_text("a file now")


@pytest.mark.parametrize("loss", [remove, move_folder, replace_folder_by_file])
def test_a_file_that_is_gone_is_missing(
    audio: AudioFiles, recording: Path, loss: Callable[[Path], None]
) -> None:
    kept = as_ingested(recording)
    loss(recording)
    with pytest.raises(FileMissingError, match="Wähler 3"):
        audio.open_local(kept)


# --- hashing ----------------------------------------------------------------------------------


def test_the_hash_is_the_standard_one(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4, the example of one block.
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_cannot_be_hashed_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotAFileError):
        sha256_of(tmp_path)
    with pytest.raises(FileMissingError):
        sha256_of(tmp_path / "nothing")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UnreadableFileError, match="symbolic"):
        sha256_of(loop)
