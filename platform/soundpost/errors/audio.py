"""One recording, or its file, cannot be used."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


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
