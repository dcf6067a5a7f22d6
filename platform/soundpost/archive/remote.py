"""Recordings in an object store (s3://, gs://, az://) into the archive.

The audio is taken into the archive's own store, as with --copy, so that it can be heard and
embedded again whatever becomes of the bucket; the recording's path is the URL of the object.
Nothing is written to the bucket. An object that is known by its URL, size and time is not fetched
again, so the same call goes on where an earlier one ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import ObjectStore, from_url

from soundpost.archive.discover import Discovery, Origin, Selection, suffixes
from soundpost.archive.plan import Timing
from soundpost.archive.summary import Finding, Summary
from soundpost.archive.triage import finished_at
from soundpost.errors import (
    AudioError,
    AudioStoreError,
    FileMissingError,
    InvalidValueError,
    NoAudioFoundError,
    RemoteStoreError,
    UnreadableFileError,
)
from soundpost.store import recordings, sources
from soundpost.store.session import Store

SCHEMES = ("s3", "gs", "az")
_CHUNK_BYTES = 1024 * 1024
# What is fetched before it is handed on: one group is fetched while the one before is embedded.
_GROUP_FILES = 32
_GROUP_BYTES = 512 * 1024**2
_AT_ONCE = 4
_LONGEST_NAME_BYTES = 200
_LOOKED_UP = 500


@dataclass(frozen=True)
class RemoteObject:
    """An object as it was listed."""

    url: str
    key: str
    size_bytes: int
    modified_ns: int


@dataclass
class RemoteListing:
    """What was found below a URL, and where to fetch it."""

    store: ObjectStore
    objects: list[RemoteObject] = field(default_factory=list)
    not_audio: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


# Takes fetched files that are gone afterwards, and what became of those before them.
Admit = Callable[[Discovery, Summary], Summary]


def is_remote(text: str) -> bool:
    """Tell whether this names something in an object store."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def find_remote(url: str, selection: Selection) -> RemoteListing:
    """List the recordings below a URL such as s3://bucket/prefix, or the one it names.

    A prefix is whole folders: s3://b/site does not match s3://b/site-2/x.wav. Credentials and
    endpoint are what the provider's own tools read from the environment (AWS_..., GOOGLE_...,
    AZURE_...). Raises InvalidValueError, RemoteStoreError, NoAudioFoundError.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise InvalidValueError(url, "it names no bucket: s3://bucket/prefix")
    root, prefix = f"{scheme.lower()}://{bucket}", key.strip("/")
    with _reading_remote(url):
        listing = RemoteListing(from_url(root))
        for meta in _list(listing.store, prefix):
            _sort_in(_object(root, meta), prefix, selection, listing)
    if not listing.objects:
        raise NoAudioFoundError(url, _what_was_there(listing))
    listing.objects.sort(key=lambda found: found.url)
    return listing


def ingest_remote(
    listing: RemoteListing,
    source: str,
    store: Store,
    admit: Admit,
    scratch: Path,
    *,
    model_id: int | None = None,
    timing: Timing | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Fetch objects group by group and admit them; return what became of each.

    `admit` is an ingest with a copy, or a register. Files are fetched into a folder below
    `scratch`, which goes at the end; what a killed run left there is removed. model_id, timing:
    those of the ingest, to know what needs nothing more. Raises RemoteStoreError where the store
    fails, AudioStoreError where there is no room; what was admitted until then stays.
    """
    stop = stop or threading.Event()
    run = _Run(listing, source, store, stop, model_id, timing or Timing())
    with _scratch(scratch) as folder:
        return run.execute(admit, folder)


@dataclass
class _Fetched:
    """Files with what they are, and the objects that could not be fetched."""

    folder: Path
    found: Discovery = field(default_factory=Discovery)
    faults: list[tuple[RemoteObject, AudioError]] = field(default_factory=list)


class _Run:
    """One ingest of a listing."""

    def __init__(
        self,
        listing: RemoteListing,
        source: str,
        store: Store,
        stop: threading.Event,
        model_id: int | None,
        timing: Timing,
    ) -> None:
        self._listing = listing
        self._source = source
        self._store = store
        self._stop = stop
        self._given_up = threading.Event()
        self._model_id = model_id
        self._timing = timing
        self._summary = Summary(not_audio=listing.not_audio, left_out=len(listing.left_out))

    def execute(self, admit: Admit, folder: Path) -> Summary:
        """Fetch one group ahead of the one that is admitted."""
        waiting: Future[_Fetched] | None = None
        with ThreadPoolExecutor(1, "fetch-ahead") as ahead, ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for number, group in enumerate(_groups(self._unknown())):
                    following = ahead.submit(self._fetch_group, group, folder / str(number), pool)
                    if waiting is not None:
                        self._admit(waiting.result(), admit)
                    waiting = following
                    if self._stop.is_set():
                        break
                if waiting is not None:
                    self._admit(waiting.result(), admit)
            except BaseException:
                # Nobody waits for what is still being fetched.
                self._given_up.set()
                raise
        self._summary.interrupted |= self._stop.is_set()
        self._summary.files = len(self._listing.objects)
        return self._summary

    def _unknown(self) -> Iterator[RemoteObject]:
        """Yield the objects that are not in the archive yet, and count the others."""
        objects = self._listing.objects
        for start in range(0, len(objects), _LOOKED_UP):
            chunk = objects[start : start + _LOOKED_UP]
            known = self._known(chunk)
            for found in chunk:
                if found.url in known:
                    self._summary.duplicate += 1
                else:
                    yield found

    def _known(self, chunk: Sequence[RemoteObject]) -> set[str]:
        with self._store.reading() as session:
            rows = finished_at(session, self._model_id, [found.url for found in chunk])
            states = {
                row.path: (row.size_bytes, row.modified_ns)
                for row in rows
                if row.object_key is not None
                and (row.started_at or not self._timing.moment(Path(row.path)))
            }
        return {
            found.url
            for found in chunk
            if states.get(found.url) == (found.size_bytes, found.modified_ns)
        }

    def _fetch_group(
        self, group: list[RemoteObject], folder: Path, pool: ThreadPoolExecutor
    ) -> _Fetched:
        fetched = _Fetched(folder)
        running = [
            pool.submit(self._fetch, found, folder / str(number))
            for number, found in enumerate(group)
        ]
        for found, future in zip(group, running, strict=True):
            try:
                file = future.result()
            except AudioError as error:
                fetched.faults.append((found, error))
                continue
            if file is not None:
                path, origin = file
                fetched.found.files.append(path)
                fetched.found.origins[path] = origin
        return fetched

    def _fetch(self, found: RemoteObject, folder: Path) -> tuple[Path, Origin] | None:
        """Fetch an object as a stream into a folder of its own; None when told to stop."""
        target = folder / _file_name(found.key)
        digest, size_bytes = hashlib.sha256(), 0
        with _reading_remote(found.url), _reading_object(found.url):
            result = obstore.get(self._listing.store, found.key)
            with _writing(target) as file:
                for chunk in result.stream(_CHUNK_BYTES):
                    if self._stop.is_set() or self._given_up.is_set():
                        return None
                    digest.update(chunk)
                    size_bytes += _write(file, target, bytes(chunk))
        if size_bytes != result.meta["size"]:
            detail = f"{size_bytes} bytes came, it has {result.meta['size']}"
            raise RemoteStoreError(found.url, detail)
        # Of the version that was fetched, which may be newer than the one that was listed.
        modified_ns = _nanoseconds(result.meta)
        return target, Origin(found.url, modified_ns, digest.hexdigest())

    def _admit(self, fetched: _Fetched, admit: Admit) -> None:
        self._note_faults(fetched)
        if fetched.found.files and not self._stop.is_set():
            self._summary.add(admit(fetched.found, self._summary))
        shutil.rmtree(fetched.folder, ignore_errors=True)

    def _note_faults(self, fetched: _Fetched) -> None:
        if not fetched.faults:
            return
        with self._store.session() as session:
            source_id = sources.ensure(session, self._source).id
            for found, fault in fetched.faults:
                row = recordings.record_failure(session, source_id, found.url, fault)
                self._summary.failed.append(Finding.from_error(found.url, fault, row.id))


def _list(store: ObjectStore, prefix: str) -> Iterator[obstore.ObjectMeta]:
    is_folder = False
    for batch in obstore.list(store, prefix=prefix or None):
        is_folder = True
        # Some tools leave an empty object under the name of the folder.
        yield from (meta for meta in batch if meta["path"] != prefix)
    if prefix and not is_folder:
        try:
            yield obstore.head(store, prefix)
        except FileNotFoundError:
            return


def _object(root: str, meta: obstore.ObjectMeta) -> RemoteObject:
    key = meta["path"]
    return RemoteObject(f"{root}/{key}", key, meta["size"], _nanoseconds(meta))


def _nanoseconds(meta: obstore.ObjectMeta) -> int:
    return round(meta["last_modified"].timestamp() * 1000) * 1_000_000


def _sort_in(
    found: RemoteObject, prefix: str, selection: Selection, listing: RemoteListing
) -> None:
    below = PurePosixPath(found.key).relative_to(prefix)
    if not below.parts:
        # What is named itself is always tried, as a file would be.
        listing.objects.append(found)
    elif not selection.recursive and len(below.parts) > 1:
        return
    elif not selection.is_audio(below.name):
        listing.not_audio.append(Path(found.key))
    elif not selection.matches(below):
        listing.left_out.append(Path(found.key))
    else:
        listing.objects.append(found)


def _what_was_there(listing: RemoteListing) -> str:
    if listing.left_out:
        return f"the pattern matches none of {len(listing.left_out)} objects"
    if listing.not_audio:
        kinds = suffixes(listing.not_audio)
        return f"{len(listing.not_audio)} objects are not audio by suffix: {kinds}"
    return "there are no objects"


def _groups(objects: Iterator[RemoteObject]) -> Iterator[list[RemoteObject]]:
    group: list[RemoteObject] = []
    size_bytes = 0
    for found in objects:
        if group and (len(group) == _GROUP_FILES or size_bytes + found.size_bytes > _GROUP_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(found)
        size_bytes += found.size_bytes
    if group:
        yield group


def _file_name(key: str) -> str:
    """Return a name that a file system takes, with the end of the key's: time and suffix."""
    name = key.rpartition("/")[2].replace("\0", "_").encode("utf-8", "replace")
    return name[-_LONGEST_NAME_BYTES:].decode("utf-8", "ignore")


@contextmanager
def _reading_remote(url: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise RemoteStoreError(url, str(error).partition("\n")[0]) from error


@contextmanager
def _reading_object(url: str) -> Iterator[None]:
    """Turn what is wrong with this object only into an error of its own."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissingError(url) from error
    except PermissionDeniedError as error:
        raise UnreadableFileError(url, "permission denied") from error


@contextmanager
def _writing(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True)
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise AudioStoreError(path, error.strerror or str(error)) from error
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, path: Path, chunk: bytes) -> int:
    left = memoryview(chunk)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError as error:
        raise AudioStoreError(path, error.strerror or str(error)) from error
    return len(chunk)


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Give a folder that is gone afterwards; those of killed runs are removed."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.iterdir():
            _remove_if_left_behind(old)
        folder = Path(tempfile.mkdtemp(prefix="fetch-", dir=parent))
        lock = _locked(folder)
    except OSError as error:
        raise AudioStoreError(parent, error.strerror or str(error)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_if_left_behind(folder: Path) -> None:
    lock = _locked(folder) if folder.name.startswith("fetch-") else None
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None if another has it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
