"""What a user pointed at or typed cannot be used."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


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
