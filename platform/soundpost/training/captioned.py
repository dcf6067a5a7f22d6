"""Captioned clips as vectors: each file is embedded once and kept, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from soundpost.archive.prepare import SHORTEST_S
from soundpost.audio.decode import probe, read_audio
from soundpost.errors import SoundpostError, TooShortError, UnreadableFileError
from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.models.retrieval_set import RetrievalSet, read_texts
from soundpost.training.composed_sets import Embedded, embed_waves
from soundpost.training.manifest import Clip

# What a reranker is shown of a recording in a search is shorter; Clotho's clips are as long.
LONGEST_S = 30.0
_PIECE = 32

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class LeftOut:
    """A file that cannot be used, and why."""

    path: Path
    error: SoundpostError


@dataclass(frozen=True)
class HeardClips:
    """Clips in the order in which they were given, without those left out, and their sounds.

    shortened: how many were longer than 30 s, of which only the beginning was heard.
    """

    clips: tuple[Clip, ...]
    sounds: Embedded
    left_out: tuple[LeftOut, ...]
    shortened: int


@dataclass(frozen=True)
class _Sound:
    """One file: windows [W, D], frames int8 [S, D], and whether it was shortened."""

    windows: FloatArray
    frames: NDArray[np.int8]
    shortened: bool


def embed_clips(
    encoder: AudioTextEncoder, clips: Sequence[Clip], folder: Path, report: Report
) -> HeardClips:
    """Embed the files of clips as the archive does; what `folder` keeps of a file is not redone.

    report: is told how many of how many files are done.
    """
    shelf = _Pieces(folder / encoder.spec.revision)
    keys, left_out = _keys(clips)
    waiting = [path for path, key in keys.items() if key not in shelf.sounds]
    report(len(keys) - len(waiting), len(keys))
    for start in range(0, len(waiting), _PIECE):
        piece = waiting[start : start + _PIECE]
        made, bad = _embed(encoder, piece)
        left_out |= {fault.path: fault for fault in bad}
        shelf.add({keys[path]: sound for path, sound in made.items()})
        report(len(keys) - len(waiting) + start + len(piece), len(keys))
    heard = tuple(clip for clip in clips if clip.path not in left_out)
    sounds = [shelf.sounds[keys[clip.path]] for clip in heard]
    return HeardClips(
        heard,
        Embedded(tuple(s.windows for s in sounds), tuple(s.frames for s in sounds)),
        tuple(left_out.values()),
        sum(sound.shortened for sound in sounds),
    )


def captioned_set(
    clips: Sequence[Clip], sounds: Embedded, encoder: AudioTextEncoder
) -> RetrievalSet:
    """Return the captions as texts; a caption that several clips have is true of all of them."""
    rows: dict[str, list[int]] = {}
    for row, clip in enumerate(clips):
        for caption in clip.captions:
            rows.setdefault(caption, []).append(row)
    relevant = tuple(np.array(wanted, np.int64) for wanted in rows.values())
    return RetrievalSet(read_texts(list(rows), encoder), sounds.candidates(), relevant)


def select(heard: HeardClips, wanted: Iterable[Clip]) -> tuple[tuple[Clip, ...], Embedded]:
    """Return those of the clips that could be heard, with their sounds."""
    chosen = set(wanted)
    rows = [row for row, clip in enumerate(heard.clips) if clip in chosen]
    windows, frames = heard.sounds.windows, heard.sounds.frames
    sounds = Embedded(tuple(windows[row] for row in rows), tuple(frames[row] for row in rows))
    return tuple(heard.clips[row] for row in rows), sounds


def _keys(clips: Sequence[Clip]) -> tuple[dict[Path, bytes], dict[Path, LeftOut]]:
    """Return the keys of the files; those that are gone by now are left out."""
    keys, left_out = {}, {}
    for path in dict.fromkeys(clip.path for clip in clips):
        try:
            keys[path] = _key(path)
        except OSError as error:
            left_out[path] = LeftOut(path, UnreadableFileError(path, error.strerror or ""))
    return keys, left_out


def _key(path: Path) -> bytes:
    """A name for the content of a file, as far as it can be told without reading it."""
    status = path.stat()
    text = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {LONGEST_S}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _embed(
    encoder: AudioTextEncoder, paths: Sequence[Path]
) -> tuple[dict[Path, _Sound], list[LeftOut]]:
    waves: dict[Path, tuple[FloatArray, bool]] = {}
    bad = []
    for path in paths:
        try:
            waves[path] = _read(path, encoder.spec.sample_rate_hz)
        except SoundpostError as error:
            bad.append(LeftOut(path, error))
    if not waves:
        return {}, bad
    made = embed_waves(encoder, [wave for wave, _ in waves.values()])
    rows = zip(waves.items(), made.windows, made.frames, strict=True)
    sounds = {
        path: _Sound(windows, frames, shortened) for (path, (_, shortened)), windows, frames in rows
    }
    return sounds, bad


def _read(path: Path, rate_hz: int) -> tuple[FloatArray, bool]:
    """Return the first 30 s, and whether there is more."""
    wave, _ = read_audio(path, end_s=LONGEST_S, sample_rate_hz=rate_hz)
    length_s = len(wave) / rate_hz
    if length_s < SHORTEST_S:
        raise TooShortError(path, f"{length_s * 1000:.0f} ms")
    if length_s < LONGEST_S - 0.5:
        return wave, False
    return wave, (probe(path).duration_s or 0.0) > LONGEST_S + 0.5


@dataclass
class _Pieces:
    """What is known of files, in .npz files of up to 32, written whole or not at all."""

    folder: Path
    sounds: dict[bytes, _Sound] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("piece-*.npz")):
            try:
                self.sounds |= _read_piece(path)
            except (BadZipFile, EOFError, KeyError, ValueError):
                # A disk that was full or failed: it is made again.
                path.unlink()

    def add(self, sounds: dict[bytes, _Sound]) -> None:
        """Keep more of them."""
        if not sounds:
            return
        name = hashlib.sha256(b"".join(sounds)).hexdigest()[:24]
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            _write_piece(file, sounds)
        partial.replace(self.folder / f"piece-{name}.npz")
        self.sounds |= sounds


def _write_piece(file: BinaryIO, sounds: dict[bytes, _Sound]) -> None:
    values = list(sounds.values())
    np.savez(
        file,
        keys=np.frombuffer(b"".join(sounds), np.uint8).reshape(-1, 32),
        windows=np.concatenate([sound.windows for sound in values]).astype(np.float32),
        window_counts=np.array([len(sound.windows) for sound in values]),
        frames=np.concatenate([sound.frames for sound in values]),
        frame_counts=np.array([len(sound.frames) for sound in values]),
        shortened=np.array([sound.shortened for sound in values]),
    )


def _read_piece(path: Path) -> dict[bytes, _Sound]:
    with np.load(path, allow_pickle=False) as kept:
        windows = np.split(kept["windows"], np.cumsum(kept["window_counts"])[:-1])
        frames = np.split(kept["frames"], np.cumsum(kept["frame_counts"])[:-1])
        keys, shortened = kept["keys"], kept["shortened"]
    rows = zip(keys, windows, frames, shortened, strict=True)
    return {key.tobytes(): _Sound(w, f, bool(cut)) for key, w, f, cut in rows}
