"""Files that live as long as a request: uploads on their way in, clips on their way out.

Each is locked while its request lasts. A lock ends with its process, however that ends, so what
can be locked was left behind and is removed at the next start.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from soundpost.errors import AudioStoreError

# A file is not locked in the moment it is made, and a clip not while it is written.
_YOUNG_S = 300.0


class Spool:
    """A folder of temporary files, made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a new file, whose name nobody outside chose; it is removed at the end.

        Raises AudioStoreError where it cannot be made or written.
        """
        with self._explaining(), self.folder() as folder:
            handle = tempfile.NamedTemporaryFile(dir=folder, prefix="in-")  # noqa: SIM115  # closed below
        with handle as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self._explaining():
                yield Path(file.name), cast(BinaryIO, file.file)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give the folder, for a moment. Raises AudioStoreError where it cannot be made."""
        with self._explaining():
            self._folder.mkdir(parents=True, exist_ok=True)
            yield self._folder

    def clear(self, now: float | None = None) -> int:
        """Remove what was left behind by processes that ended; return how many files."""
        moment = now or time.time()
        names = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return sum(_remove_if_left(path, moment) for path in names)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AudioStoreError(self._folder, error.strerror or str(error)) from error


def _remove_if_left(path: Path, now: float) -> bool:
    with suppress(OSError):
        if path.stat().st_mtime > now - _YOUNG_S:
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
        finally:
            os.close(descriptor)
    return False
