"""Audio files: objects known by their content, and the files of an archive that stay in place."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from soundpost.errors import (
    AudioStoreError,
    FileChangedError,
    FileMissingError,
    NotAFileError,
    UnreadableFileError,
)

CHUNK_BYTES = 1024 * 1024
# Each holds a part of five megabytes, beside the chunks that wait for it.
UPLOADS_AT_ONCE = 3
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_CONTENT_NAME = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8})?")


class StoredAudio(Protocol):
    """What is needed to find the audio of a recording: its row, or a search result, will do."""

    @property
    def path(self) -> str: ...
    @property
    def object_key(self) -> str | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def size_bytes(self) -> int | None: ...
    @property
    def modified_ns(self) -> int | None: ...


class AudioFiles:
    """The audio of recordings, wherever it is kept.

    objects_url: a folder or file://, s3://, gs://, az://, memory://; it is not touched before it
    is needed. Objects of a remote store are kept in cache_dir up to cache_bytes, the least
    recently used go first; without a folder of its own the cache lasts as long as this does.
    """

    def __init__(
        self, objects_url: str, *, cache_dir: Path | None = None, cache_bytes: int = 2 * 1024**3
    ) -> None:
        self._url = objects_url if "://" in objects_url else Path(objects_url).resolve().as_uri()
        self._given_cache_dir = cache_dir
        self._cache_bytes = cache_bytes
        # Files whose time changed but not their content: hashed once a change.
        self._verified: dict[str, tuple[int, str]] = {}

    def put(self, path: Path, sha256: str) -> str:
        """Copy a file in and return its key; what is there already is not copied again.

        The object appears whole or not at all. Raises FileChangedError if the content is not
        `sha256` any more, FileMissingError, UnreadableFileError or AudioStoreError.
        """
        key = key_of(sha256, path.suffix)
        with reading(path):
            size_bytes = path.stat().st_size
        with self._using(key):
            if self._size_of(key) != size_bytes:
                chunks = _verified_chunks(path, sha256)
                obstore.put(self._store, key, chunks, max_concurrency=UPLOADS_AT_ONCE)
        return key

    def open_local(self, audio: StoredAudio) -> Path:
        """Return a file that holds the audio of a recording, to be opened soon.

        A file in place is trusted while its size and time are the ones that were noted, and
        hashed otherwise. Raises FileMissingError, FileChangedError, UnreadableFileError or
        AudioStoreError.
        """
        if audio.object_key is None:
            return self._in_place(audio)
        with self._using(audio.object_key):
            if isinstance(self._store, LocalStore):
                return self._local_object(self._store, audio.object_key)
            return self._fetched(audio.object_key, audio.sha256)

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no error. Raises AudioStoreError."""
        with self._using(key):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    @cached_property
    def _store(self) -> ObjectStore:
        try:
            if self._url.startswith("file:"):
                return from_url(self._url, mkdir=True)
            return from_url(self._url)
        except (BaseError, ValueError, OSError) as error:
            raise AudioStoreError(self._url, _first_line(error)) from error

    @cached_property
    def _cache_dir(self) -> Path:
        if self._given_cache_dir is not None:
            self._given_cache_dir.mkdir(parents=True, exist_ok=True)
            return self._given_cache_dir
        folder = Path(tempfile.mkdtemp(prefix="soundpost-audio-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @contextmanager
    def _using(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FileMissingError(f"{self._url} {key}") from error
        except (BaseError, OSError) as error:
            raise AudioStoreError(f"{self._url} {key}", _first_line(error)) from error

    def _size_of(self, key: str) -> int | None:
        try:
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError:
            return None

    def _in_place(self, audio: StoredAudio) -> Path:
        path = Path(audio.path)
        with reading(path):
            found = path.stat()
        if found.st_size != audio.size_bytes:
            raise FileChangedError(path, f"{found.st_size} bytes, was {audio.size_bytes}")
        if found.st_mtime_ns == audio.modified_ns:
            return path
        seen = (found.st_mtime_ns, audio.sha256 or "")
        if self._verified.get(audio.path) != seen:
            if sha256_of(path) != audio.sha256:
                raise FileChangedError(path, "same size, other content")
            self._verified[audio.path] = seen
        return path

    def _local_object(self, store: LocalStore, key: str) -> Path:
        obstore.head(store, key)
        return Path(str(store.prefix)) / key

    def _fetched(self, key: str, sha256: str | None) -> Path:
        cached = self._cache_dir / key.rsplit("/", 1)[-1]
        try:
            os.utime(cached)
        except FileNotFoundError:
            self._fetch(key, sha256, cached)
            self._shrink_cache(keep=cached)
        return cached

    def _fetch(self, key: str, sha256: str | None, target: Path) -> None:
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
            try:
                for chunk in obstore.get(self._store, key).stream(CHUNK_BYTES):
                    digest.update(chunk)
                    part.write(chunk)
                part.close()
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise FileChangedError(f"{self._url} {key}", "the object is damaged")
                Path(part.name).replace(target)
            finally:
                Path(part.name).unlink(missing_ok=True)

    def _shrink_cache(self, keep: Path) -> None:
        files = sorted(self._cached_files())
        excess = sum(size_bytes for _, size_bytes, _ in files) - self._cache_bytes
        for _, size_bytes, path in files:
            if excess > 0 and path != keep:
                path.unlink(missing_ok=True)
                excess -= size_bytes

    def _cached_files(self) -> Iterator[tuple[int, int, Path]]:
        for path in self._cache_dir.iterdir():
            # Another process may shrink the same cache; files that are not ours stay.
            with suppress(FileNotFoundError):
                if _CONTENT_NAME.fullmatch(path.name):
                    found = path.stat()
                    yield found.st_mtime_ns, found.st_size, path


def key_of(sha256: str, suffix: str) -> str:
    """The key of a content: aa/bb/<sha256><suffix>, the suffix only where it is a plain one."""
    suffix = suffix.lower()
    plain = suffix if _PLAIN_SUFFIX.fullmatch(suffix) else ""
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}{plain}"


def sha256_of(path: Path) -> str:
    """Hash a file as a stream, in hexadecimal.

    Raises FileMissingError, NotAFileError or UnreadableFileError.
    """
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while reading a file into the error that says so."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissingError(path) from error
    except IsADirectoryError as error:
        raise NotAFileError(path) from error
    except OSError as error:
        raise UnreadableFileError(path, error.strerror or str(error)) from error


def _verified_chunks(path: Path, sha256: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    with reading(path), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            yield chunk
    # Raised before the upload is completed, which aborts it.
    if digest.hexdigest() != sha256:
        raise FileChangedError(path, "it changed while it was copied")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
