"""What captioners are trained on: recordings whose captions follow from a record, and texts alone.

Recordings are labelled clips and scenes composed of them. Texts are what people wrote of sounds that
are not here; the vector of a text stands in for the sound (text-only training, arXiv 2309.07372),
moved to where frames lie by the gap between the two that single sounds show. A text that tells an
order ("A, followed by B") stands for frames in that order.

Run as: python -m soundpost.training.caption_data --encoder compact --out runs/explain/captions/compact
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from soundpost.config import load_settings
from soundpost.errors import DataMissingError, InvalidValueError, PathNotFoundError
from soundpost.models.caption_condition import TOKEN_S, Style, condition_tokens
from soundpost.models.compact import CompactEncoder
from soundpost.models.encoder import AudioTextEncoder, FloatArray
from soundpost.training.composed import Layout, Pool, Scene, draw_plan, play, render
from soundpost.training.composed_texts import Gap, fit_gap
from soundpost.training.data import captions, validation_captions
from soundpost.training.pair_captions import caption
from soundpost.training.pair_records import Heard
from soundpost.training.pair_scenes import load_pair_pool

# Of each recording so many captions are kept, of the many that are true of it.
CAPTIONS_EACH = 4
# Share of the recordings that hold one sound.
_SINGLE_SHARE = 0.25
_LONGEST_TEXT_S = 10.0
# Some texts stand in for a sound bare, as their own vector: what "caption this text" comes to.
_BARE_SHARE = 0.1
_BATCH = 16
_TEXT_BATCH = 256
_THEN = re.compile(r",?\s+(?:followed by|and then|then|before)\s+", re.IGNORECASE)

WriteCaption = Callable[[Sequence[Heard], np.random.Generator], str]


@dataclass(frozen=True, eq=False)
class Recording:
    """A wave [N] at 16 kHz and what is heard in it."""

    heard: tuple[Heard, ...]
    wave: FloatArray


class CaptionSource(Protocol):
    """Sounds, or what stands in for them, with captions of one style."""

    @property
    def style(self) -> Style:
        """Whose captions they are."""
        ...

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """The captions of each sound."""
        ...

    def tokens(self, row: int, rng: np.random.Generator) -> FloatArray:
        """Return the tokens [M, D] of a sound; what stands in for one is drawn anew each time."""
        ...


@dataclass(frozen=True, eq=False)
class HeardCaptions:
    """Recordings as an encoder hears them: tokens float16 [sum of M, D], counts [N] of each."""

    joined: NDArray[np.float16]
    counts: NDArray[np.int64]
    captions: tuple[tuple[str, ...], ...]
    style: Style = Style.RECORDS
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.cumsum(self.counts) - self.counts)

    def tokens(self, row: int, rng: np.random.Generator) -> FloatArray:
        """Return the tokens of a recording; nothing is drawn."""
        start = int(self.starts[row])
        return self.joined[start : start + int(self.counts[row])].astype(np.float32)


@dataclass(frozen=True, eq=False)
class TextCaptions:
    """Texts that stand in for sounds: vectors float16 [sum of S, D] of what each tells in turn."""

    joined: NDArray[np.float16]
    counts: NDArray[np.int64]
    captions: tuple[tuple[str, ...], ...]
    gap: Gap
    style: Style = Style.PEOPLE
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.cumsum(self.counts) - self.counts)

    def tokens(self, row: int, rng: np.random.Generator) -> FloatArray:
        """Draw frames [M, D]: what is said in turn, and what real frames have that no text says."""
        start, parts = int(self.starts[row]), int(self.counts[row])
        vectors = self.joined[start : start + parts].astype(np.float32)
        if rng.random() < _BARE_SHARE:
            return vectors
        said = vectors - self.gap.text_mean
        count = int(rng.integers(max(parts, 4), round(_LONGEST_TEXT_S / TOKEN_S) + 1))
        cuts = np.sort(rng.choice(np.arange(1, count), parts - 1, replace=False))
        of = np.searchsorted(cuts, np.arange(count), side="right")
        rests = self.gap.rests
        # A sound keeps its manner for as long as it lasts.
        manner = rests[rng.integers(len(rests), size=parts)][of]
        own = rests[rng.integers(len(rests), size=count)]
        made = self.gap.frame_mean + np.float32(self.gap.gain) * said[of]
        made = made + np.float32(0.8) * manner + np.float32(0.3) * own
        norms = np.linalg.norm(made, axis=1, keepdims=True)
        return np.asarray(made / np.maximum(norms, 1e-9), np.float32)


def told_in_turn(caption: str) -> list[str]:
    """Return the parts of a caption that are heard one after the other."""
    parts = [part.strip(" ,.") for part in _THEN.split(caption)]
    return [part for part in parts if part] or [caption]


def draw_recordings(pool: Pool, count: int, seed: int) -> Iterator[Recording]:
    """Compose so many recordings: a quarter are single sounds, the others scenes."""
    for scene in draw_scenes(pool, count, seed):
        yield Recording(heard_in(scene), render(scene, pool))


def draw_scenes(pool: Pool, count: int, seed: int) -> Iterator[Scene]:
    """Compose the scenes of so many recordings, without their waves."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        layout = Layout.SINGLE if rng.random() < _SINGLE_SHARE else None
        yield play(draw_plan(pool, rng, layout), pool, rng)


def heard_in(scene: Scene) -> tuple[Heard, ...]:
    """Return what is heard in a composed scene, in order of time."""
    events = sorted(scene.events, key=lambda event: (event.start_s, -event.level_db))
    throughout = scene.plan.layout in (Layout.OVER, Layout.SEQUENCE_OVER)
    return tuple(
        Heard(
            event.sound,
            round(event.start_s, 2),
            round(event.end_s, 2),
            round(scene.level_dbfs + event.level_db, 1),
            background=throughout and event is scene.events[-1],
        )
        for event in events
    )


def frames_of(encoder: AudioTextEncoder, waves: Sequence[FloatArray]) -> list[FloatArray]:
    """Return the frames pooled to tokens [M, D] of each wave [N], heard in windows end to end."""
    spec = encoder.spec
    length = round(spec.window_s * spec.sample_rate_hz)
    cuts = [
        (row, wave[start : start + length])
        for row, wave in enumerate(waves)
        for start in range(0, max(len(wave) - length // 10, 1), length)
    ]
    frames: list[list[FloatArray]] = [[] for _ in waves]
    hop_s = 0.0
    for first in range(0, len(cuts), _BATCH):
        group = cuts[first : first + _BATCH]
        batch = np.zeros((len(group), length), np.float32)
        for place, (_, wave) in enumerate(group):
            batch[place, : len(wave)] = wave
        lengths = np.array([len(wave) for _, wave in group], np.int64)
        made = encoder.encode_audio(batch, lengths)
        hop_s = made.frame_hop_s
        for place, (row, wave) in enumerate(group):
            valid = max(1, round(len(wave) / spec.sample_rate_hz / hop_s))
            frames[row].append(made.frames[place, :valid])
    return [condition_tokens(np.concatenate(parts), hop_s) for parts in frames]


def hear(
    encoder: AudioTextEncoder, recordings: Sequence[Recording], write: WriteCaption, seed: int
) -> HeardCaptions:
    """Embed recordings and caption each a few times."""
    tokens: list[FloatArray] = []
    for start in track(range(0, len(recordings), _BATCH), "Hearing recordings"):
        tokens += frames_of(encoder, [r.wave for r in recordings[start : start + _BATCH]])
    rng = np.random.default_rng([seed, 1])
    told = tuple(
        tuple(dict.fromkeys(write(recording.heard, rng) for _ in range(CAPTIONS_EACH)))
        for recording in recordings
    )
    counts = np.array([len(part) for part in tokens], np.int64)
    return HeardCaptions(np.concatenate(tokens).astype(np.float16), counts, told)


def read(encoder: AudioTextEncoder, texts: Sequence[str], gap: Gap) -> TextCaptions:
    """Embed texts, in the parts that they tell in turn."""
    parts = [told_in_turn(text) for text in texts]
    flat = [part for row in parts for part in row]
    vectors = [
        encoder.embed_text(flat[start : start + _TEXT_BATCH]).astype(np.float16)
        for start in track(range(0, len(flat), _TEXT_BATCH), "Reading texts")
    ]
    counts = np.array([len(row) for row in parts], np.int64)
    return TextCaptions(np.concatenate(vectors), counts, tuple((text,) for text in texts), gap)


def gap_of(encoder: AudioTextEncoder, recordings: Sequence[Recording], write: WriteCaption) -> Gap:
    """Fit the gap between texts and sounds to recordings of one sound."""
    alone = [recording for recording in recordings if len(recording.heard) == 1]
    if len(alone) < 2:
        raise InvalidValueError(f"{len(alone)} recordings of one sound", "the gap needs some")
    tokens = frames_of(encoder, [recording.wave for recording in alone])
    rng = np.random.default_rng(0)
    texts = encoder.embed_text([write(recording.heard, rng) for recording in alone])
    return fit_gap(np.repeat(texts, [len(part) for part in tokens], 0), np.concatenate(tokens))


def texts_of(data: Path) -> list[str]:
    """Return what people wrote of sounds: AudioCaps, Clotho and SoundBible, each once.

    Not what they wrote of the validation clips: captioners are measured on these.
    """
    kept = {plain(caption) for caption in validation_captions(data)}
    found = dict.fromkeys(caption.strip().rstrip(".") for caption in captions(data))
    path = data / "text" / "soundbible" / "sb_final.json"
    if not path.is_file():
        raise DataMissingError(path)
    for row in json.loads(path.read_text(encoding="utf-8"))["data"]:
        found[str(row["caption"]).strip().rstrip(".")] = None
    return [caption for caption in found if caption and plain(caption) not in kept]


def plain(caption: str) -> str:
    """Return a caption in the form in which two are compared."""
    return " ".join(caption.lower().strip(" .").split())


def save_captions(path: Path, source: HeardCaptions | TextCaptions) -> None:
    """Write a source to one .npz, whole or not at all."""
    arrays: dict[str, NDArray[np.generic]] = {
        "joined": source.joined,
        "counts": source.counts,
        "captions": np.frombuffer(json.dumps(source.captions).encode(), np.uint8),
        "style": np.array(int(source.style)),
    }
    if isinstance(source, TextCaptions):
        gap = source.gap
        arrays |= {"frame_mean": gap.frame_mean, "text_mean": gap.text_mean}
        arrays |= {"gain": np.array(gap.gain), "rests": gap.rests.astype(np.float16)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # numpy types only its own keyword
    partial.replace(path)


def load_captions(path: Path) -> HeardCaptions | TextCaptions:
    """Read what `save_captions` wrote. Raises PathNotFoundError."""
    if not path.is_file():
        raise PathNotFoundError(path)
    with np.load(path, allow_pickle=False) as file:
        told = tuple(tuple(row) for row in json.loads(file["captions"].tobytes()))
        style = Style(int(file["style"]))
        if "gain" not in file.files:
            return HeardCaptions(file["joined"], file["counts"], told, style)
        rests = file["rests"].astype(np.float32)
        gap = Gap(file["frame_mean"], file["text_mean"], float(file["gain"]), rests)
        return TextCaptions(file["joined"], file["counts"], told, gap, style)


@dataclass(frozen=True)
class Share:
    """Which of the texts an encoder reads: every `of`-th, beginning with `which`.

    So two encoders share the texts: one network learns to caption what either hears.
    """

    which: int = 0
    of: int = 1


def prepare(
    encoder: AudioTextEncoder,
    data: Path,
    cache: Path,
    out: Path,
    write: WriteCaption,
    *,
    recordings: int,
    seed: int,
    share: Share,
) -> None:
    """Write heard.npz, dev.npz and texts.npz; what is there already is not made again."""
    pools = {name: load_pair_pool(data, cache, name).sounds for name in ("train", "dev")}
    for name, split, count in (("heard", "train", recordings), ("dev", "dev", recordings // 8)):
        if not (out / f"{name}.npz").is_file():
            made = list(draw_recordings(pools[split], count, seed))
            save_captions(out / f"{name}.npz", hear(encoder, made, write, seed))
    if not (out / "texts.npz").is_file():
        some = list(draw_recordings(pools["train"], min(recordings, 800), seed + 1))
        texts = texts_of(data)[share.which :: share.of]
        save_captions(out / "texts.npz", read(encoder, texts, gap_of(encoder, some, write)))


def main() -> None:
    """Parse arguments and prepare the captions of one encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="compact", help="'compact' (shipped), or its folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="decoded clips")
    parser.add_argument("--recordings", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--which", type=int, default=0, help="the first text that is read")
    parser.add_argument("--of", type=int, default=1, help="every so manieth text is read")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    threads = load_settings().threads
    if threads:
        torch.set_num_threads(threads)
    folder = None if options.encoder == "compact" else Path(options.encoder)
    prepare(
        CompactEncoder.load(folder),
        load_settings().data,
        options.cache,
        options.out,
        caption,
        recordings=options.recordings,
        seed=options.seed,
        share=Share(options.which, options.of),
    )


if __name__ == "__main__":
    main()
