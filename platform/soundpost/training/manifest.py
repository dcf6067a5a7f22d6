"""Captions of audio files: AudioCaps and Clotho as published, or a simple csv of path and caption.

AudioCaps (Kim et al. 2019): audiocap_id, youtube_id, start_time, caption; one row a caption, the
audio in files named by whoever fetched them. Clotho (Drossos et al. 2020): file_name, caption_1 to
caption_5. Both are also passed on as file_name, caption. A header says which it is; more columns do
not matter.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from soundpost.audio.decode import AUDIO_SUFFIXES
from soundpost.errors import (
    InvalidValueError,
    ManifestError,
    ManifestLineError,
    PathNotFoundError,
)

FORMATS = (
    "audiocap_id,youtube_id,start_time,caption (AudioCaps), file_name,caption_1,...,caption_5"
    " (Clotho), file_name,caption, or path,caption"
)
# What is cut out of a video for AudioCaps.
_AUDIOCAPS_S = 10
_FEWEST_ORIGINS = 8
_CAPTION_COLUMN = re.compile(r"caption(_\d+)?")
_YOUTUBE_ID = re.compile(r"[\w-]+", re.ASCII)
# What is no UTF-8 comes out of the decoder as these.
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Clip:
    """A file and what people said of it; clips of one origin must not be told apart in a split."""

    path: Path
    captions: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Missing:
    """A file that a line names and that is not there; wanted: the names that were looked for."""

    line: int
    wanted: str


@dataclass(frozen=True)
class Manifest:
    """What a list of captions says, in the order of its lines.

    kind: "AudioCaps", "Clotho", "file name and caption" or "path and caption". missing: files that
    are not there. faults: one error for each line that makes no sense.
    """

    path: Path
    kind: str
    clips: tuple[Clip, ...]
    missing: tuple[Missing, ...]
    faults: tuple[ManifestLineError, ...]

    @property
    def captions(self) -> int:
        """How many captions there are."""
        return sum(len(clip.captions) for clip in self.clips)


@dataclass(frozen=True)
class Split:
    """Clips to train with, to choose by, and to measure on; no origin is in two of them."""

    train: tuple[Clip, ...]
    develop: tuple[Clip, ...]
    held_out: tuple[Clip, ...]


def read_manifest(path: Path, audio: Path | None = None) -> Manifest:
    """Read a list of captions and find its files below `audio`, or beside the list.

    Raises PathNotFoundError for what is not there, and ManifestError for a file of no known format.
    """
    folder = path.parent if audio is None else audio
    for needed, there in ((path, path.is_file()), (folder, folder.is_dir())):
        if not there:
            raise PathNotFoundError(needed)
    rows = _Rows(path)
    kind, read_row = _format_of(rows)
    found = _Found(path, Shelf(folder))
    for line, row in rows:
        try:
            found.add(line, read_row(row))
        except _BadLineError as error:
            found.fault(line, str(error))
    return found.manifest(kind, rows.faults)


def split_clips(
    clips: Sequence[Clip], seed: int = 0, held_out: float = 0.1, develop: float = 0.1
) -> Split:
    """Split by origin; the shares are of origins. An origin's place depends on it and the seed only.

    Raises InvalidValueError for shares that leave nothing to train with, and for fewer than eight
    origins.
    """
    if not (0 < held_out < 1 and 0 < develop < 1 and held_out + develop <= 0.8):
        detail = "each is above 0, and together at most 0.8"
        raise InvalidValueError(f"shares {held_out:g} and {develop:g}", detail)
    origins = sorted({clip.origin for clip in clips}, key=lambda name: _lot(name, seed))
    if len(origins) < _FEWEST_ORIGINS:
        detail = f"at least {_FEWEST_ORIGINS} are needed to train, choose and measure"
        raise InvalidValueError(f"{len(origins)} different recordings", detail)
    first = max(1, round(held_out * len(origins)))
    second = first + max(1, round(develop * len(origins)))
    parts = [set(origins[:first]), set(origins[first:second]), set(origins[second:])]
    measure, choose, train = (tuple(c for c in clips if c.origin in part) for part in parts)
    return Split(train, choose, measure)


def _lot(origin: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {origin}".encode()).digest()


# --- files ------------------------------------------------------------------------------------


class Shelf:
    """The audio files below a folder, found by path, by name or by name without suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] | None = None

    def at(self, relative: str) -> Path | None:
        """Return the file at a path, absolute or below the folder."""
        path = self.folder / relative
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise _BadLineError(f"{relative[:100]}: {error.strerror}") from error

    def named(self, name: str) -> Path | None:
        """Return the one file of this name or stem; None without one."""
        found = self._names().get(name, [])
        if len(found) > 1:
            raise _BadLineError(f"{name} is there twice: {found[0]} and {found[1]}")
        return found[0] if found else None

    def _names(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self.folder.rglob("*")):
                if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                    for name in (path.name, path.stem):
                        self._by_name.setdefault(name, []).append(path)
        return self._by_name


# What finds the file of a row; and the names it looks for.
Find = Callable[[Shelf], Path | None]


@dataclass(frozen=True)
class _Row:
    """What a row says: `key` is the same for rows about one file. origin: empty for the file itself."""

    key: str
    origin: str
    captions: tuple[str, ...]
    find: Find
    wanted: str
    only_once: bool = False


class _BadLineError(Exception):
    """Why a line cannot be used; becomes a ManifestLineError with its place."""


@dataclass
class _Found:
    """Clips, missing files and faults as they come."""

    path: Path
    shelf: Shelf
    clips: dict[str, Clip] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, row: _Row) -> None:
        """Take a row in, which may say more about a file that is known."""
        first = self.lines.setdefault(row.key, line)
        if first != line and row.only_once:
            raise _BadLineError(f"{row.key} was on line {first} already")
        if row.key in self.missing:
            return
        known = self.clips.get(row.key)
        path = known.path if known is not None else row.find(self.shelf)
        if path is None:
            self.missing[row.key] = Missing(line, row.wanted)
            return
        before = known.captions if known is not None else ()
        captions = tuple(dict.fromkeys((*before, *row.captions)))
        # A file may be named in several ways, and must not be in two parts of a split.
        self.clips[row.key] = Clip(path, captions, row.origin or str(path.resolve()))

    def fault(self, line: int, why: str) -> None:
        """Note a line that cannot be used."""
        self.faults.append((line, why))

    def manifest(self, kind: str, more: Sequence[tuple[int, str]]) -> Manifest:
        """Return all of it."""
        faults = sorted([*self.faults, *more])
        return Manifest(
            self.path,
            kind,
            tuple(self.clips.values()),
            tuple(self.missing.values()),
            tuple(ManifestLineError(f"{self.path}:{line}", why) for line, why in faults),
        )


# --- lines ------------------------------------------------------------------------------------


class _Rows:
    """The rows of a csv as dictionaries, with the number of the line each begins on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[tuple[int, str]] = []
        try:
            # Bytes that are no UTF-8 spoil their own line only.
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise ManifestError(path, error.strerror or "") from error
        self._rows = self._read(csv.reader(StringIO(text, newline="")))
        self.header = [name.strip().lower() for name in next(self._rows, (0, [""]))[1]]

    def _read(self, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
        while True:
            line = reader.line_num + 1  # type: ignore[attr-defined]  # csv.reader's own type has no name
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.faults.append((line, str(error)))
                continue
            if any(cell.strip() for cell in fields):
                yield line, fields

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        for line, fields in self._rows:
            why = self._fault_of(fields)
            if why:
                self.faults.append((line, why))
            else:
                cells = (cell.strip() for cell in fields)
                yield line, dict(zip(self.header, cells, strict=True))

    def _fault_of(self, fields: list[str]) -> str:
        if len(fields) != len(self.header):
            return f"{len(fields)} fields, the header has {len(self.header)}"
        for name, cell in zip(self.header, fields, strict=True):
            if _UNDECODED.search(cell):
                return f"{name} is not UTF-8"
            if "\n" in cell or "\0" in cell:
                return f"{name} goes over several lines: is a quotation mark missing?"
        return ""


# Says what a row means; raises _BadLineError.
ReadRow = Callable[[dict[str, str]], _Row]


def _format_of(rows: _Rows) -> tuple[str, ReadRow]:
    names = set(rows.header)
    columns = [name for name in rows.header if _CAPTION_COLUMN.fullmatch(name)]
    if len(names) == len(rows.header):
        if names >= {"audiocap_id", "youtube_id", "start_time", "caption"}:
            return "AudioCaps", _audiocaps
        if "file_name" in names and columns:
            kind = "Clotho" if len(columns) > 1 else "file name and caption"
            return kind, lambda row: _named(row, columns)
        if names >= {"path", "caption"}:
            return "path and caption", _simple
    header = ",".join(rows.header)[:100] or "nothing"
    raise ManifestError(rows.path, f"its first line is {header}; expected {FORMATS}")


def _simple(row: dict[str, str]) -> _Row:
    path = _filled(row, "path")
    captions = (_filled(row, "caption"),)
    return _Row(path, "", captions, lambda shelf: shelf.at(path), path)


def _named(row: dict[str, str], columns: Sequence[str]) -> _Row:
    name = _filled(row, "file_name")
    if Path(name).name != name:
        raise _BadLineError(f"file_name {name} is no plain name")
    captions = tuple(dict.fromkeys(_filled(row, column) for column in columns))

    def find(shelf: Shelf) -> Path | None:
        return shelf.at(name) or shelf.named(name) or shelf.named(Path(name).stem)

    return _Row(name, "", captions, find, name, only_once=len(columns) > 1)


def _audiocaps(row: dict[str, str]) -> _Row:
    video, caption = _filled(row, "youtube_id"), _filled(row, "caption")
    if not _YOUTUBE_ID.fullmatch(video):
        raise _BadLineError(
            f"youtube_id {video} has other characters than letters, digits, _ and -"
        )
    start_s = _seconds(row["start_time"])
    names = _audiocaps_names(_filled(row, "audiocap_id"), video, start_s)

    def find(shelf: Shelf) -> Path | None:
        return next((path for name in names if (path := shelf.named(name))), None)

    return _Row(f"{video} {start_s:g}", video, (caption,), find, f"{video} or {names[0]}")


def _audiocaps_names(number: str, video: str, start_s: float) -> tuple[str, ...]:
    """The names, without suffix, that those who fetched AudioCaps gave to its files."""
    end_s = start_s + _AUDIOCAPS_S
    stems = (
        f"{video}_{start_s:g}_{end_s:g}",
        f"{video}_{start_s:.3f}_{end_s:.3f}",
        f"{video}_{1000 * start_s:.0f}_{1000 * end_s:.0f}",
        f"{video}_{start_s:g}",
        f"{video}_{1000 * start_s:.0f}",
        video,
    )
    return (*stems, *(f"Y{stem}" for stem in stems), number)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _BadLineError(f"start_time {text or 'is empty'} is no number of seconds") from None
    if not 0 <= value < float("inf"):
        raise _BadLineError(f"start_time {text} is no time in a video")
    return value


def _filled(row: dict[str, str], name: str) -> str:
    if not row[name]:
        raise _BadLineError(f"{name} is empty")
    return row[name]
