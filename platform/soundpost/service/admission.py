"""Uploads into the archive: checked before anything is kept, then registered like any file."""

from __future__ import annotations

from datetime import UTC, tzinfo
from pathlib import Path

from sqlalchemy.orm import Session

from soundpost.archive.discover import Discovery, Origin
from soundpost.archive.plan import IngestOptions, Timing
from soundpost.archive.recorder_names import Moment, moment_from_text, zone_named
from soundpost.archive.register import register
from soundpost.archive.summary import Finding
from soundpost.audio.decode import claimed_bytes, open_audio
from soundpost.errors import (
    AudioError,
    ImplausibleLengthError,
    SoundpostError,
    TooLongError,
    UnexpectedError,
    UnknownSourceError,
    error_class,
)
from soundpost.jobs import embed_key
from soundpost.service.forms import Received
from soundpost.service.parts import Parts
from soundpost.service.schemas import UploadFields
from soundpost.store import jobs, recordings, sources
from soundpost.store.tables import Job, Recording

# Kept as the path of an upload: with it no name can pass for a file of this machine.
UPLOAD_PREFIX = "upload:"
# A header may promise a little more than there is, or a recorder may have lost power; but not so.
_MOST_CLAIMED = 8
_SLACK_BYTES = 1 << 20
# The leanest recordings, silence in Opus or FLAC, take some hundred bits a second.
_LEAST_BITS_A_SECOND = 100.0
_SHORT_S = 60.0


class Admission:
    """One upload on its way in; `known` says whether its content was there already."""

    def __init__(self, parts: Parts, received: Received, fields: UploadFields) -> None:
        self._parts = parts
        self._received = received
        self._fields = fields
        self._noted_as = f"{UPLOAD_PREFIX}{received.name}"
        self.known = False

    def admit(self) -> tuple[Recording, Job | None]:
        """Return the recording, and the job that will embed it unless it is done.

        Raises a subclass of AudioError for what is no recording or too long, InvalidValueError for
        a time or zone that makes no sense, DiskFullError, QueueFullError, StoreError and
        AudioStoreError.
        """
        moment = self._moment()
        if (kept := self._find_kept()) is not None:
            self.known = True
            return self._go_on_with(kept)
        check_length(self._received, self._parts.settings.upload_s)
        self._check_room()
        return self._register(moment)

    def _moment(self) -> Moment | None:
        text = self._fields.started_at
        zone = self._zone()
        return moment_from_text(text, zone) if text is not None else None

    def _zone(self) -> tzinfo:
        if self._fields.timezone is not None:
            return zone_named(self._fields.timezone)
        try:
            with self._parts.store.reading() as session:
                return zone_named(sources.by_name(session, self._fields.source).timezone)
        except UnknownSourceError:
            return UTC

    def _find_kept(self) -> Recording | None:
        """Return the recording of this content, if a copy is kept: a second one never is."""
        with self._parts.store.reading() as session:
            found = recordings.by_sha256(session, self._received.sha256)
        return found if found is not None and found.object_key is not None else None

    def _go_on_with(self, kept: Recording) -> tuple[Recording, Job | None]:
        with self._parts.store.session() as session:
            known = recordings.get(session, kept.id)
            if known.status == "embedded":
                return known, None
            return known, self._parts.queue.embed(session, known.id, known.source_id)

    def _check_room(self) -> None:
        """Refuse before the audio is copied; the queue itself looks again."""
        self._parts.queue.check_disk()
        with self._parts.store.reading() as session:
            try:
                source = sources.by_name(session, self._fields.source)
            except UnknownSourceError:
                return
            self._parts.queue.check_room(session, source.id)

    def _register(self, moment: Moment | None) -> tuple[Recording, Job | None]:
        options = IngestOptions(
            source=self._fields.source,
            timezone=self._fields.timezone,
            timing=Timing(started_at=moment),
            copy=True,
        )
        parts = self._parts
        path = self._received.path
        origin = Origin(self._noted_as, path.stat().st_mtime_ns, self._received.sha256)
        found = Discovery([path], origins={path: origin})
        summary = register(found, options, parts.store, parts.queue, parts.objects, patient=False)
        if summary.failed:
            raise _as_error(summary.failed[0], self._received.name)
        self.known = summary.queued == 0
        with parts.store.reading() as session:
            return self._result(session)

    def _result(self, session: Session) -> tuple[Recording, Job | None]:
        recording = recordings.by_sha256(session, self._received.sha256)
        if recording is None:
            raise UnexpectedError(None, "it was deleted just now")
        job = jobs.latest(session, embed_key(recording.id))
        unfinished = job is not None and job.state in jobs.UNFINISHED
        return recording, job if unfinished else None


def check_length(received: Received, longest_s: float) -> None:
    """Look into an upload: what it is, and whether it is as long as its bytes can make it.

    Raises a subclass of AudioError: as in decode for what is no recording, TooLongError,
    ImplausibleLengthError for a header that promises far more than there is and for recordings
    that take hardly any bytes.
    """
    try:
        _check_claim(received)
        duration_s = _duration_s(received, longest_s)
    except AudioError as error:
        raise renamed(error, received.name) from error
    if duration_s > longest_s:
        raise TooLongError(received.name, f"{duration_s:.0f} s, the limit is {longest_s:g} s")
    if duration_s > _longest_plausible_s(received.size_bytes):
        detail = f"{duration_s:.0f} s in {received.size_bytes} bytes"
        raise ImplausibleLengthError(received.name, detail)


def renamed(error: AudioError, name: str) -> AudioError:
    """Return an error with the name that its sender knows, not the path it has here."""
    return type(error)(name, error.detail)


def _check_claim(received: Received) -> None:
    claimed = claimed_bytes(received.path)
    if claimed is not None and claimed > _MOST_CLAIMED * received.size_bytes + _SLACK_BYTES:
        detail = f"{received.size_bytes} bytes that promise to be {claimed}"
        raise ImplausibleLengthError(received.name, detail)


def _duration_s(received: Received, longest_s: float) -> float:
    """Return what the container says, or else count, up to where it is too much anyway."""
    enough_s = min(longest_s, _longest_plausible_s(received.size_bytes))
    with open_audio(received.path) as stream:
        if stream.info.duration_s is not None:
            return stream.info.duration_s
        for _ in stream:
            if stream.samples_read > enough_s * stream.info.sample_rate_hz:
                break
        return stream.samples_read / stream.info.sample_rate_hz


def _longest_plausible_s(size_bytes: int) -> float:
    return _SHORT_S + 8.0 * size_bytes / _LEAST_BITS_A_SECOND


def _as_error(finding: Finding, name: str) -> SoundpostError:
    kind = error_class(finding.code) or UnexpectedError
    return kind(name, finding.message)


def check_example(received: Received) -> Path:
    """Return the file of an example, having looked at its header. Raises like check_length."""
    try:
        _check_claim(received)
    except AudioError as error:
        raise renamed(error, received.name) from error
    return received.path
