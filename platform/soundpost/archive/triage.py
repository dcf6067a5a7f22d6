"""What each file is to the archive before it is decoded: new, known, moved, or unusable.

Files are examined (header, hash, copy) by threads some way ahead, and admitted in their own order
by one thread, so that of two equal files the first is always the recording.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from soundpost.archive.discover import Discovery, Origin
from soundpost.archive.plan import IngestOptions, Plan, Workload
from soundpost.archive.prepare import SHORTEST_S, Job
from soundpost.archive.relay import StoppedError, Stopwatch
from soundpost.archive.summary import Finding, Summary
from soundpost.audio.decode import AudioInfo, probe
from soundpost.errors import (
    AudioError,
    DecodeError,
    SoundpostError,
    UnreadableFileError,
    about,
)
from soundpost.store import recordings, sources, windows
from soundpost.store.files import AudioFiles, sha256_of
from soundpost.store.session import Store
from soundpost.store.tables import Embedding, Recording, Source, Window

_AHEAD = 64
_THREADS = 2


@dataclass(frozen=True)
class Examined:
    """A file as it was found; without a hash it is unusable, or known and unchanged."""

    path: Path
    size_bytes: int | None = None
    modified_ns: int | None = None
    info: AudioInfo | None = None
    sha256: str | None = None
    object_key: str | None = None
    fault: AudioError | None = None
    origin: Origin | None = None

    @property
    def name(self) -> str:
        """The path or URL that is kept."""
        return self.origin.url if self.origin else str(self.path)


# Takes part in the transaction that admits a recording.
Enqueue = Callable[[Session, Job], None]


class Triage:
    """Turns files into jobs for what is not embedded yet, and counts everything else.

    It is the only writer of `summary.duplicate`, `moved` and `dated`. `enqueue` is called for each
    job in the transaction of its recording. `writing` is held around
    transactions, so that the threads of this process queue here and not at the database.
    """

    def __init__(
        self,
        store: Store,
        objects: AudioFiles | None,
        plan: Plan,
        summary: Summary,
        stopwatch: Stopwatch,
        writing: threading.Lock,
        enqueue: Enqueue | None = None,
    ) -> None:
        self._store = store
        self._objects = objects
        self._plan = plan
        self._summary = summary
        self._stopwatch = stopwatch
        self._writing = writing
        self._enqueue = enqueue
        self._claimed: set[int] = set()

    def run(
        self, files: Sequence[Path], hand_on: Callable[[Job], None], workload: Workload
    ) -> None:
        """Admit files one after the other; returns early when nobody takes jobs any more."""
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="examine")
        try:
            for group in _in_groups(self._examinations(files, pool)):
                for job, file in self._admit_all(group):
                    workload.examined(file.size_bytes or 0, self._to_do_s(job, file))
                    if job is not None:
                        hand_on(job)
        except StoppedError:
            return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _examinations(
        self, files: Sequence[Path], pool: ThreadPoolExecutor
    ) -> Iterator[Future[Examined]]:
        left = iter(files)
        while chunk := list(islice(left, _AHEAD)):
            unchanged = self._unchanged(chunk)
            for path in chunk:
                yield pool.submit(self._examine, path, path in unchanged)

    def _unchanged(self, paths: Sequence[Path]) -> set[Path]:
        """Return the files that are known under their path and not touched since."""
        names = [str(path) for path in paths]
        with self._store.reading() as session:
            known = {row.path: row for row in finished_at(session, self._plan.model_id, names)}
        return {path for path in paths if self._is_unchanged(path, known.get(str(path)))}

    def _is_unchanged(self, path: Path, known: Recording | None) -> bool:
        if known is None or (self._objects is not None and known.object_key is None):
            return False
        if known.started_at is None and self._plan.timing.moment(path) is not None:
            return False
        try:
            state = path.stat()
        except OSError:
            return False
        return (state.st_size, state.st_mtime_ns) == (known.size_bytes, known.modified_ns)

    def _examine(self, path: Path, unchanged: bool) -> Examined:
        """Find out what a file is; what is wrong with it is in the answer, never raised."""
        if unchanged:
            return Examined(path)
        origin = self._plan.origins.get(path)
        try:
            return self._read(path, origin)
        except AudioError as error:
            fault = about(error, origin.url) if origin else error
            return Examined(path, fault=fault, origin=origin)
        except SoundpostError:
            # The database or the object store is at fault, and every other file would meet it too.
            raise
        except OSError as error:
            fault = UnreadableFileError(path, error.strerror or str(error))
            fault.__cause__ = error
        # One file must never stop a batch, and decoders meet broken ones with errors of any kind.
        except Exception as error:  # noqa: BLE001
            fault = DecodeError(path, f"{type(error).__name__}: {error}")
            fault.__cause__ = error
        return Examined(path, fault=fault, origin=origin)

    def _read(self, path: Path, origin: Origin | None) -> Examined:
        with self._stopwatch.stage("probe"):
            info = probe(path)
        state = path.stat()
        with self._stopwatch.stage("hash"):
            sha256 = origin.sha256 if origin else sha256_of(path)
        key = self._objects.put(path, sha256) if self._objects is not None else None
        modified_ns = origin.modified_ns if origin else state.st_mtime_ns
        return Examined(path, state.st_size, modified_ns, info, sha256, key, origin=origin)

    def _admit_all(self, group: Sequence[Examined]) -> list[tuple[Job | None, Examined]]:
        with self._writing, self._stopwatch.stage("store"), self._store.session() as session:
            admitted = [(self._admit(session, file), file) for file in group]
            for job, _ in admitted:
                if job is not None and self._enqueue is not None:
                    self._enqueue(session, job)
            return admitted

    def _admit(self, session: Session, file: Examined) -> Job | None:
        if file.fault is not None:
            self._refuse(session, file, file.fault)
            return None
        if file.sha256 is None or file.info is None:
            self._summary.duplicate += 1
            return None
        recording, is_new = recordings.add(session, self._new(file, file.info, file.sha256))
        if is_new:
            _forget_unfinished(session, recording)
            self._claimed.add(recording.id)
            notes = self._plan.timing.remarks(file.path)
            return Job(recording.id, file.path, notes=notes, name=file.name)
        return self._recognise(session, file, recording)

    def _refuse(self, session: Session, file: Examined, fault: AudioError) -> None:
        row = recordings.record_failure(session, self._plan.source_id, file.name, fault)
        self._summary.failed.append(Finding.from_error(file.name, fault, row.id))

    def _new(self, file: Examined, info: AudioInfo, sha256: str) -> recordings.NewRecording:
        moment = self._plan.timing.moment(file.path)
        return recordings.NewRecording(
            source_id=self._plan.source_id,
            sha256=sha256,
            path=file.name,
            size_bytes=file.size_bytes or 0,
            modified_ns=file.modified_ns or 0,
            object_key=file.object_key,
            started_at=moment.at if moment else None,
            duration_s=info.duration_s,
            sample_rate_hz=info.sample_rate_hz,
            channels=info.channels,
            format=info.format,
        )

    def _recognise(self, session: Session, file: Examined, known: Recording) -> Job | None:
        """Bring a known recording up to date; return a job if it was never finished."""
        moved = self._relocate(session, file, known)
        self._complete(session, file, known)
        if known.id not in self._claimed:
            self._claimed.add(known.id)
            if not _is_finished(session, known, self._plan.model_id):
                done = self._windows_done(session, known)
                notes = self._plan.timing.remarks(file.path)
                return Job(known.id, file.path, done, notes, file.name)
        self._summary.moved += moved
        self._summary.duplicate += not moved
        return None

    def _windows_done(self, session: Session, known: Recording) -> int:
        if self._plan.model_id is None:
            return 0
        return windows.last_complete(session, known.id, self._plan.model_id)

    def _relocate(self, session: Session, file: Examined, known: Recording) -> bool:
        same = known.path == file.name
        # An object elsewhere is not looked up: its audio was copied.
        if not same and ("://" in known.path or Path(known.path).is_file()):
            return False
        size_bytes, modified_ns = file.size_bytes or 0, file.modified_ns or 0
        recordings.relocate(session, known.id, file.name, size_bytes, modified_ns)
        return not same

    def _complete(self, session: Session, file: Examined, known: Recording) -> None:
        moment = self._plan.timing.moment(file.path)
        if known.started_at is None and moment is not None:
            recordings.describe(session, known.id, started_at=moment.at)
            self._summary.dated += known.id not in self._claimed
        if known.object_key is None and file.object_key is not None:
            recordings.describe(session, known.id, object_key=file.object_key)

    def _to_do_s(self, job: Job | None, file: Examined) -> float:
        if job is None or file.info is None:
            return 0.0
        return max(0.0, (file.info.duration_s or 0.0) - job.skip * self._plan.hop_s)


def source_of(
    session: Session, found: Discovery, options: IngestOptions, summary: Summary
) -> Source:
    """Return the source of an ingest, having noted the folders that could not be listed."""
    source = sources.ensure(session, options.source, options.timezone)
    for folder in found.unreadable:
        fault = UnreadableFileError(folder, "the folder cannot be listed")
        row = recordings.record_failure(session, source.id, str(folder), fault)
        summary.failed.append(Finding.from_error(str(folder), fault, row.id))
    return source


def _in_groups(futures: Iterable[Future[Examined]]) -> Iterator[list[Examined]]:
    """Wait for the first of the examinations, then take along what else is ready."""
    source = iter(futures)
    pending = deque(islice(source, _AHEAD))
    while pending:
        group = [pending.popleft().result()]
        while pending and pending[0].done():
            group.append(pending.popleft().result())
        yield group
        pending.extend(islice(source, _AHEAD - len(pending)))


def _forget_unfinished(session: Session, now: Recording) -> None:
    """Remove what was begun under this path with other content, such as a file still growing.

    It can never be finished: that content is nowhere any more, unless a copy was kept.
    """
    begun = select(Recording.id).where(
        Recording.path == now.path,
        Recording.id != now.id,
        Recording.status != "embedded",
        Recording.object_key.is_(None),
    )
    for recording_id in session.scalars(begun).all():
        recordings.remove(session, recording_id)


def finished_at(session: Session, model_id: int | None, names: Sequence[str]) -> list[Recording]:
    """Return what is known under paths or URLs and embedded to its end by a model, or by any."""
    statement = select(Recording).where(Recording.path.in_(names), Recording.sha256.is_not(None))
    rows = session.scalars(statement.order_by(Recording.id))
    return [row for row in rows if _is_finished(session, row, model_id)]


def _is_finished(session: Session, recording: Recording, model_id: int | None) -> bool:
    """Tell whether this model (any, if None) has embedded a recording to its end."""
    if recording.status != "embedded" or model_id is None:
        return recording.status == "embedded"
    statement = (
        select(func.max(Window.end_s))
        .join(Embedding, Embedding.window_id == Window.id)
        .where(Window.recording_id == recording.id, Embedding.model_id == model_id)
    )
    until_s: float | None = session.scalar(statement)
    return until_s is not None and until_s > (recording.duration_s or 0.0) - SHORTEST_S
