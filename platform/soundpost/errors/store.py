"""The database, the copied audio and the vector index."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


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
