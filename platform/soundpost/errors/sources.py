"""A way in for recordings does not go on: a folder, an object store, a stream."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


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
