"""Which files to ingest: files, folders and lists become one sorted, explained set of paths.

Nothing is left out in silence: what is not audio by its suffix, what a pattern left out and which
folders could not be read is returned beside what was found. A file that is named itself is always
tried, whatever its suffix.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from soundpost.audio.decode import AUDIO_SUFFIXES
from soundpost.errors import InvalidValueError, NoAudioFoundError, PathNotFoundError

# Recordings in there were thrown away by someone.
_TRASH = frozenset({".trashes", ".trash", "$recycle.bin", "system volume information"})
# macOS leaves one beside every file on a memory card; its suffix is the recording's.
_SIDECAR_PREFIX = "._"
_NAMED_SUFFIXES = 3


@dataclass(frozen=True)
class Origin:
    """What a file was fetched from: its URL, and when it was changed there; its hash is known."""

    url: str
    modified_ns: int
    sha256: str


@dataclass
class Discovery:
    """What was found below some paths.

    files: absolute, unique, in the order of the arguments and sorted within a folder.
    not_audio: files without an audio suffix, and trash folders. left_out: files that the pattern
    does not match. unreadable: folders that could not be listed. origins: where
    files were fetched from that are not kept, but copied.
    """

    files: list[Path] = field(default_factory=list)
    not_audio: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    origins: dict[Path, Origin] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """Which files of a folder are wanted: in its subfolders too, and matching a pattern.

    A pattern without a slash is matched with the file's name, one with a slash with its path
    below the folder; `**` stands for any folders; upper and lower case are the same. A pattern
    that ends in a suffix (`*.dat`) asks for these files even if the suffix is not one of audio.
    """

    recursive: bool = True
    pattern: str | None = None

    def matches(self, below: PurePath) -> bool:
        """Tell whether a path below the folder fits the pattern."""
        if not self.pattern:
            return True
        wanted = tuple(PurePath(self.pattern.lower()).parts)
        parts = tuple(part.lower() for part in below.parts)
        return _parts_match(parts if "/" in self.pattern else parts[-1:], wanted)

    def is_audio(self, name: str) -> bool:
        """Tell whether a file of this name should be tried."""
        if name.startswith(_SIDECAR_PREFIX):
            return False
        asked = PurePath(self.pattern).suffix if self.pattern else ""
        return PurePath(name).suffix.lower() in AUDIO_SUFFIXES or (asked not in {"", ".*"})


def find_files(paths: Sequence[str | os.PathLike[str]], selection: Selection) -> Discovery:
    """Find the files to ingest below paths: files, folders, or lists given as `@list.txt`.

    Raises PathNotFoundError for a path that is not there, NoAudioFoundError when nothing is left
    to try, InvalidValueError for an empty path.
    """
    if not paths:
        raise InvalidValueError("no path", "name files, folders or @list.txt")
    found = Discovery()
    for path in paths:
        _take(os.fspath(path), selection, found)
    found.files = list(dict.fromkeys(found.files))
    if not found.files and not found.unreadable:
        raise NoAudioFoundError(", ".join(map(str, paths)), _what_was_there(found))
    return found


def read_list(path: Path) -> list[Path]:
    """Read a list of paths, one a line; blank lines and lines that begin with # do not count.

    Relative paths start at the current folder. Raises PathNotFoundError if the list is not there.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise PathNotFoundError(path, error.strerror or "cannot be read") from error
    lines = (line.strip("\r\n") for line in text.splitlines())
    return [Path(line) for line in lines if line.strip() and not line.startswith("#")]


def in_trash(below: PurePath) -> bool:
    """Tell whether a path below a watched or listed folder lies in a trash folder."""
    return any(part.lower() in _TRASH for part in below.parts)


def _take(path: str, selection: Selection, found: Discovery) -> None:
    if not path.strip():
        raise InvalidValueError("an empty path", "name a file or a folder")
    if path.startswith("@") and not os.path.lexists(path):
        for line in read_list(Path(path[1:])):
            # A line of a list that is not there must not stop the others: it is tried, and fails.
            _take_existing(line, selection, found)
    elif not os.path.lexists(path):
        raise PathNotFoundError(path)
    else:
        _take_existing(Path(path), selection, found)


def _take_existing(path: Path, selection: Selection, found: Discovery) -> None:
    if path.is_dir():
        _take_folder(_absolute(path), selection, found)
    else:
        found.files.append(_absolute(path))


def _absolute(path: Path) -> Path:
    # Not resolve(): a link keeps its own name, and so the time in it.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _take_folder(root: Path, selection: Selection, found: Discovery) -> None:
    for entry in _walk(root, selection.recursive, found, set()):
        below = entry.relative_to(root)
        if not selection.is_audio(entry.name):
            found.not_audio.append(entry)
        elif not selection.matches(below):
            found.left_out.append(entry)
        else:
            found.files.append(entry)


def _walk(
    folder: Path, recursive: bool, found: Discovery, seen: set[tuple[int, int]]
) -> Iterator[Path]:
    """Yield the files of a folder in sorted order; links to folders are followed once."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        state = folder.stat()
    except OSError:
        found.unreadable.append(folder)
        return
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    for entry in entries:
        path = folder / entry.name
        if not _is_folder_to_enter(path):
            yield path
        elif entry.name.lower() in _TRASH:
            found.not_audio.append(path)
        elif recursive:
            yield from _walk(path, recursive, found, seen)


def _is_folder_to_enter(path: Path) -> bool:
    """Tell folders from files; a folder called x.wav is tried as a file, and so gets its error."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
    return is_folder and path.suffix.lower() not in AUDIO_SUFFIXES


def _parts_match(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_parts_match(parts[skip:], wanted[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _parts_match(parts[1:], wanted[1:])


def _what_was_there(found: Discovery) -> str:
    if found.left_out:
        return f"the pattern matches none of {len(found.left_out)} files"
    if found.not_audio:
        return f"{len(found.not_audio)} files are not audio by suffix: {suffixes(found.not_audio)}"
    return "there are no files"


def suffixes(paths: Iterable[Path]) -> str:
    """Name the most frequent suffixes of paths, as `.txt (12), .jpg (3)`."""
    counts = Counter(path.suffix.lower() or "none" for path in paths)
    named = [f"{suffix} ({count})" for suffix, count in counts.most_common(_NAMED_SUFFIXES)]
    return ", ".join(named + ["..."] * (len(counts) > _NAMED_SUFFIXES))
