"""Every error Soundpost raises: one root, one class a cause, the docstring is the message.

The code of a class is part of the interface: it is kept on rows, printed by the command line and
returned by the service, and never changes its meaning.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar


class SoundpostError(Exception):
    """Something in Soundpost went wrong."""

    code: ClassVar[str] = "soundpost"
    # An error that comes back from the service carries the remedy that it was given there.
    remedy: str = "See the detail, and report it if it makes no sense."

    def __init__(self, value: object = None, detail: str = "") -> None:
        self.value = value
        self.detail = detail
        super().__init__(self._text())

    def __reduce__(self) -> tuple[type[SoundpostError], tuple[object, str]]:
        """Travel between processes as what it was made of."""
        return type(self), (self.value, self.detail)

    def _text(self) -> str:
        summary = (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")
        offender = "" if self.value is None else f": {self.value}"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{summary}{offender}{detail}"


# --- what a user pointed at -------------------------------------------------------------------


class InputError(SoundpostError):
    """The input cannot be used."""

    code = "input"


class PathNotFoundError(InputError):
    """No such file or folder."""

    code = "path-not-found"
    remedy = "Check the spelling; a relative path starts at the current folder."


class NoAudioFoundError(InputError):
    """No audio files were found."""

    code = "no-audio-found"
    remedy = "Point at a folder with recordings, add --recursive, or widen --glob."


class InvalidValueError(InputError):
    """The value is not allowed."""

    code = "invalid-value"
    remedy = "See --help for what is accepted."


class UnknownRecordingError(InputError):
    """No recording has this id."""

    code = "unknown-recording"
    remedy = "List the ids with: soundpost recordings"


class UnknownSourceError(InputError):
    """No source has this name."""

    code = "unknown-source"
    remedy = "List the names with: soundpost sources"


class UnknownWindowError(InputError):
    """No window of this model has this vector."""

    code = "unknown-window"
    remedy = "List the windows of a recording; those of a deleted one are gone."


class OutputExistsError(InputError):
    """The output file is already there."""

    code = "output-exists"
    remedy = "Choose another name, or overwrite it with --force."


class EmptyArchiveError(InputError):
    """There is nothing to search yet."""

    code = "empty-archive"
    remedy = "Bring recordings in first: soundpost ingest FOLDER"


class ManifestError(InputError):
    """The list of captions cannot be used."""

    code = "manifest"
    remedy = "docs/training-a-reranker.md shows the formats that can be read."


class ManifestLineError(ManifestError):
    """This line of the list of captions cannot be used."""

    code = "manifest-line"
    remedy = "Correct the line, or take it out."


class MissingExtraError(InputError):
    """This needs a part of Soundpost that is not installed."""

    code = "missing-extra"
    remedy = "Install it with: pip install 'soundpost[cpu]' (or 'soundpost[gpu]')"


# --- one recording ----------------------------------------------------------------------------


class AudioError(SoundpostError):
    """The recording cannot be used."""

    code = "audio"


class UnreadableFileError(AudioError):
    """The file cannot be opened."""

    code = "unreadable-file"
    remedy = "Check its permissions and that the disk or share is mounted."


class BrokenLinkError(AudioError):
    """The symbolic link points nowhere."""

    code = "broken-link"
    remedy = "Restore the file it points to, or remove the link."


class NotAFileError(AudioError):
    """This is a folder or a device, not a file."""

    code = "not-a-file"
    remedy = "Rename the folder, or ingest its contents by their own paths."


class EmptyFileError(AudioError):
    """The file holds no bytes."""

    code = "empty-file"
    remedy = "Copy it again from the recorder; the transfer probably failed."


class NotAudioError(AudioError):
    """The file is not in a known audio format."""

    code = "not-audio"
    remedy = "Check that it is a recording: its content does not match any known format."


class NoAudioStreamError(AudioError):
    """The file has no audio track."""

    code = "no-audio-stream"
    remedy = "Export it again with sound."


class NoSamplesError(AudioError):
    """The file has a header but no samples."""

    code = "no-samples"
    remedy = "The recorder probably stopped at once; delete it or record again."


class TruncatedError(AudioError):
    """The recording ends before its time or is damaged on the way."""

    code = "truncated"
    remedy = "What could be decoded is kept; copy the file again to get the rest."


class NonFiniteSamplesError(AudioError):
    """The recording contains samples that are not numbers (NaN or infinite)."""

    code = "non-finite-samples"
    remedy = "The faulty samples were replaced by silence; export the file again."


class TooShortError(AudioError):
    """The recording is too short to analyse."""

    code = "too-short"
    remedy = "Record at least 50 ms."


class UnsupportedRateError(AudioError):
    """The sample rate is outside what can be resampled."""

    code = "unsupported-rate"
    remedy = "Use a rate between 1 kHz and 768 kHz."


class DecodeError(AudioError):
    """The recording cannot be decoded."""

    code = "decode-failed"
    remedy = "Convert it with another program (for example to FLAC) and try again."


class TooLongError(AudioError):
    """The recording is longer than what is accepted."""

    code = "too-long"
    remedy = "Cut it into parts, or raise SOUNDPOST_UPLOAD_S."


class ImplausibleLengthError(AudioError):
    """The recording is far longer than its bytes can hold."""

    code = "implausible-length"
    remedy = "Copy or export it again: its header is damaged, or it was made to do harm."


class FileMissingError(AudioError):
    """The file of this recording is no longer where it was."""

    code = "file-missing"
    remedy = "Put it back, or ingest it from its new place: it is recognised by its content."


class FileChangedError(AudioError):
    """The file of this recording is not the one that was ingested."""

    code = "file-changed"
    remedy = "Ingest it again; the new content becomes a recording of its own."


# --- models -----------------------------------------------------------------------------------


class ModelError(SoundpostError):
    """The model cannot be used."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No such model."""

    code = "model-not-found"
    remedy = "Use 'compact', a folder with a CLAP checkpoint, or a hub name that can be reached."


class BrokenCheckpointError(ModelError):
    """The checkpoint fails its self-check."""

    code = "broken-checkpoint"
    remedy = "Use another checkpoint: this one gives wrong or useless vectors."


class EncoderUnavailableError(ModelError):
    """The encoder does not answer."""

    code = "encoder-unavailable"
    remedy = "Try again in a moment: it is started anew. If it goes on, see the service's log."


class RerankerError(ModelError):
    """The second stage of the search cannot be used."""

    code = "reranker"
    remedy = "Search without it (rerank off), and see what soundpost doctor says."


class NoRerankerError(RerankerError):
    """There are no weights for reranking what this encoder finds."""

    code = "no-reranker"
    remedy = "Name a folder in SOUNDPOST_RERANKER, or train one: soundpost train diffatr"


class RerankerNotFoundError(RerankerError):
    """No reranker is there."""

    code = "reranker-not-found"
    remedy = "Set SOUNDPOST_RERANKER to 'auto', 'off', or a folder with a trained reranker."


class RerankerMismatchError(RerankerError):
    """The reranker was made for another encoder."""

    code = "reranker-mismatch"
    remedy = "Set SOUNDPOST_RERANKER to 'auto', or train one for this encoder."


class RerankTimeoutError(RerankerError):
    """Reranking did not end in time."""

    code = "rerank-timeout"
    remedy = "Ask for fewer candidates, or raise SOUNDPOST_RERANK_BUDGET_S."


class ExplainerNotFoundError(ModelError):
    """This explainer was not found."""

    code = "explainer-not-found"
    remedy = "Set SOUNDPOST_EXPLAINER to 'auto', 'off', or a folder that its training wrote."


class ExplainerMismatchError(ModelError):
    """The explainer does not fit this encoder."""

    code = "explainer-mismatch"
    remedy = "Use the encoder that it was trained over, or train one over this encoder."


class CaptionerError(ModelError):
    """Captions cannot be written."""

    code = "captioner"
    remedy = "Go on without captions (SOUNDPOST_CAPTIONS=off), or set SOUNDPOST_CAPTIONER."


class CaptionerUnavailableError(CaptionerError):
    """There is no captioner for what this encoder hears."""

    code = "captioner-unavailable"
    remedy = "Name a folder in SOUNDPOST_CAPTIONER, or take the encoder 'compact'."


class CaptionerMismatchError(CaptionerError):
    """The captioner was made for another encoder."""

    code = "captioner-mismatch"
    remedy = "Set SOUNDPOST_CAPTIONER to 'auto', or train one for this encoder."


class DataMissingError(SoundpostError):
    """The training and evaluation data is not there."""

    code = "data-missing"
    remedy = "Set SOUNDPOST_DATA to the folder that holds audio.csv."


class PairsMissingError(SoundpostError):
    """There is no finished set of pairs."""

    code = "pairs-missing"
    remedy = "Make it, or let it finish, with python -m soundpost.training.pair_store."


# --- ways in ----------------------------------------------------------------------------------


class FolderLostError(SoundpostError):
    """The watched folder is gone."""

    code = "folder-lost"
    remedy = "Mount it or make it again; it is looked through as soon as it is there."


class RemoteStoreError(SoundpostError):
    """The object store cannot be read."""

    code = "remote-store"
    remedy = "Check the address, the credentials and the network, then give the command again."


class StreamError(SoundpostError):
    """The stream cannot be heard."""

    code = "stream"
    remedy = "Check the address, the network and that the other side sends sound."


class StreamStalledError(StreamError):
    """The stream has stopped without ending."""

    code = "stream-stalled"
    remedy = "Check the device and the network on the way; it is connected again by itself."


class SpoolError(SoundpostError):
    """The folder for what is being recorded cannot be used."""

    code = "spool"
    remedy = "Check that there is room and that it may be written to, below SOUNDPOST_HOME."


class SpoolBusyError(SpoolError):
    """Another process is recording under this name."""

    code = "spool-busy"
    remedy = "Stop the other one, or give another --source."


# --- rules and incidents ----------------------------------------------------------------------


class RuleError(SoundpostError):
    """The rule cannot be used."""

    code = "rule"


class UnknownRuleError(RuleError):
    """There is no such rule."""

    code = "unknown-rule"
    remedy = "List them: soundpost rules"


class RuleNameTakenError(RuleError):
    """There is a rule of this name already."""

    code = "rule-name-taken"
    remedy = "Choose another name, or remove that rule first."


class RuleSettingsError(RuleError):
    """The rule's settings make no sense."""

    code = "rule-settings"
    remedy = "See what this kind of rule takes: soundpost rules add --help"


class RawSimilarityError(RuleSettingsError):
    """A similarity is no threshold: what it means differs from source to source."""

    code = "raw-similarity"
    remedy = "Leave it out, and say with budget_s how rarely a false alarm may come."


class IncidentError(SoundpostError):
    """The incident cannot be handled."""

    code = "incident"


class UnknownIncidentError(IncidentError):
    """There is no such incident."""

    code = "unknown-incident"
    remedy = "List them: soundpost incidents"


class IncidentStateError(IncidentError):
    """The incident is in another state."""

    code = "incident-state"
    remedy = "Only open incidents are acknowledged, only closed ones are reopened."


class UnknownFindingError(IncidentError):
    """No finding has this id."""

    code = "unknown-finding"
    remedy = "See the findings of an incident with: soundpost incidents show N"


class UnknownSilenceError(IncidentError):
    """There is no such silence."""

    code = "unknown-silence"
    remedy = "List them: soundpost silence list"


class SilenceEndedError(IncidentError):
    """The silence is over already."""

    code = "silence-ended"
    remedy = "Add another one if it should go on: soundpost silence add"


# --- jobs -------------------------------------------------------------------------------------


class JobError(SoundpostError):
    """A job cannot be handled."""

    code = "job"


class UnknownJobError(JobError):
    """There is no such job."""

    code = "unknown-job"
    remedy = "List them: soundpost jobs."


class JobStateError(JobError):
    """The job is in another state."""

    code = "job-state"
    remedy = "Only failed and cancelled jobs are retried, only unfinished ones are cancelled."


class QueueFullError(JobError):
    """Too many jobs of this source are waiting."""

    code = "queue-full"
    remedy = "Try again when some are done, start more workers, or raise SOUNDPOST_QUEUE_LIMIT."


class DiskFullError(SoundpostError):
    """There is too little free space to take anything in."""

    code = "disk-full"
    remedy = "Free some space, or lower SOUNDPOST_DISK_RESERVE_BYTES; it goes on by itself then."


class BrokerError(JobError):
    """The message broker cannot be used."""

    code = "broker"
    remedy = "Check SOUNDPOST_BROKER_URL and that the broker runs; jobs wait in the database."


class WorkerLostError(JobError):
    """The worker died or stalled while it had the job."""

    code = "worker-lost"
    remedy = "See the worker's log of that time; a file that kills workers should be taken out."


# --- notifications ----------------------------------------------------------------------------


class NotifyError(SoundpostError):
    """A notification cannot be handled."""

    code = "notify"


class UnknownChannelError(NotifyError):
    """No channel has this name."""

    code = "unknown-channel"
    remedy = "List the names with: soundpost channels list"


class ChannelExistsError(NotifyError):
    """There is a channel of this name already."""

    code = "channel-exists"
    remedy = "Choose another name, or remove that channel first."


class UnknownNotificationError(NotifyError):
    """No notification has this id."""

    code = "unknown-notification"
    remedy = "List the ids with: soundpost notifications"


class NotificationStateError(NotifyError):
    """The notification is in another state."""

    code = "notification-state"
    remedy = "Only failed and cancelled notifications whose channel is there and on are retried."


class ChannelUnreachableError(NotifyError):
    """The channel cannot be reached at the moment.

    retry_after_s: how long the other side asked to be left alone.
    """

    code = "channel-unreachable"
    remedy = "Check the network and that the other side runs; it is tried again by itself."
    retry_after_s: float | None = None


class ChannelRefusedError(NotifyError):
    """The channel refuses the notification."""

    code = "channel-refused"
    remedy = "Check the channel's address and password, then: soundpost notifications retry ID"


# --- store and index --------------------------------------------------------------------------


class StoreError(SoundpostError):
    """The database cannot be used."""

    code = "store"
    remedy = "Check SOUNDPOST_DATABASE_URL and that the server is running."


class SchemaError(StoreError):
    """The database schema does not fit this version of Soundpost."""

    code = "schema"
    remedy = "Back up the database, then use the Soundpost version that fits it, or upgrade."


class AudioStoreError(SoundpostError):
    """The store of copied audio cannot be used."""

    code = "audio-store"
    remedy = "Check SOUNDPOST_OBJECTS_URL, its credentials and that there is room."


class VectorIndexError(SoundpostError):
    """The vector index cannot be used."""

    code = "index"
    remedy = "It is rebuilt from the database by: soundpost doctor --rebuild-index"


class CorruptSnapshotError(VectorIndexError):
    """The index snapshot does not match its checksum."""

    code = "corrupt-snapshot"


class LeaseLostError(VectorIndexError):
    """Another builder has taken over this index."""

    code = "lease-lost"
    remedy = "Nothing is lost: the other one builds it. Let one builder run for an archive."


class DimensionError(VectorIndexError):
    """The vectors do not have the dimension of the index."""

    code = "dimension"
    remedy = "Search with the model that filled the index."


# --- the service ------------------------------------------------------------------------------


class ServiceError(SoundpostError):
    """The service gave an answer that is not understood."""

    code = "service"
    remedy = "Check that the address is a Soundpost service of the same version."


class ServiceUnreachableError(ServiceError):
    """The service cannot be reached."""

    code = "service-unreachable"
    remedy = "Check its address, and that it runs."


class ServiceTimeoutError(ServiceError):
    """The service did not answer in time."""

    code = "service-timeout"
    remedy = "Try again, or allow more time."


class UnexpectedError(ServiceError):
    """Something went wrong inside the service."""

    code = "unexpected"
    remedy = "Look the request id up in the service's log, and report what it says."


class BusyError(ServiceError):
    """The service has too much to do."""

    code = "busy"
    remedy = "Try again in a moment."


class SearchTimeoutError(ServiceError):
    """The search took too long."""

    code = "search-timeout"
    remedy = "Narrow it by source or time, try again, or raise SOUNDPOST_SEARCH_TIMEOUT_S."


class StretchTimeoutError(ServiceError):
    """Cutting or drawing the stretch took too long."""

    code = "stretch-timeout"
    remedy = "Ask for a shorter stretch, or one nearer to the recording's start."


class ExplainTimeoutError(ServiceError):
    """The explanation took too long."""

    code = "explain-timeout"
    remedy = "Name shorter stretches or one tier, or raise SOUNDPOST_EXPLAIN_TIMEOUT_S."


class MalformedRequestError(ServiceError):
    """The request cannot be read."""

    code = "malformed-request"
    remedy = "Send it as the interface's description at /docs says."


class NoSuchRouteError(ServiceError):
    """The service has nothing under this address."""

    code = "no-such-route"
    remedy = "See /docs for what there is."


class MethodNotAllowedError(ServiceError):
    """This address does not answer to this method."""

    code = "method-not-allowed"
    remedy = "See /docs for what it answers to."


class UploadTooLargeError(ServiceError):
    """More bytes were sent than are accepted."""

    code = "upload-too-large"
    remedy = "Send a smaller file (FLAC is half of WAV), or raise SOUNDPOST_UPLOAD_BYTES."


class RangeNotSatisfiableError(ServiceError):
    """The file does not reach as far as the range that was asked for."""

    code = "range-not-satisfiable"
    remedy = "Ask for bytes within the size in the Content-Range header."


# --- watching ---------------------------------------------------------------------------------


class MonitoringError(SoundpostError):
    """Watching cannot go on."""

    code = "monitoring"


class UnknownBaselineError(MonitoringError):
    """No baseline has this version."""

    code = "unknown-baseline"
    remedy = "List the versions with: soundpost baseline list"


class BaselineStateError(MonitoringError):
    """The baseline is not in a state for this."""

    code = "baseline-state"
    remedy = "See how it stands with: soundpost baseline show"


class NothingToLearnError(MonitoringError):
    """There are no recordings to make a baseline of."""

    code = "nothing-to-learn"
    remedy = "Ingest recordings of this source first, or widen --from and --to."


class BaselineTooSmallError(MonitoringError):
    """The baseline holds too little to compare with."""

    code = "baseline-too-small"
    remedy = "Record more of the normal sound, best in several recordings, and make it again."


class BrokenCalibrationError(MonitoringError):
    """What a baseline stored about itself cannot be read."""

    code = "broken-calibration"
    remedy = "Make the baseline again from its recordings."


class BaselineModelError(MonitoringError):
    """The baseline was made by another model than the one in use."""

    code = "baseline-model"
    remedy = "Set SOUNDPOST_ENCODER as it was, or make the baseline again with this one."


class ReferenceAudioGoneError(MonitoringError):
    """None of the reference recordings can be read."""

    code = "reference-audio-gone"
    remedy = "Bring the files back to where they were, or make a baseline of others."


def error_class(code: str) -> type[SoundpostError] | None:
    """Return the class of errors with this code, or None if there is none."""
    kinds = [SoundpostError]
    while kinds:
        kind = kinds.pop()
        if kind.code == code:
            return kind
        kinds.extend(kind.__subclasses__())
    return None


AnyError = TypeVar("AnyError", bound=SoundpostError)


def about(error: AnyError, value: object) -> AnyError:
    """Return the same error about another name of the thing that it is about."""
    other = type(error)(value, error.detail)
    other.__cause__ = error
    return other


def describe(error: SoundpostError) -> str:
    """Return code, message and remedy in one line, for logs and rows."""
    return f"[{error.code}] {error}. {error.remedy}"
