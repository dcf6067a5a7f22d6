"""Explaining how two stretches of audio files differ: read, explained, and kept by what they hold.

The same sound explained by the same models is explained once, however its file is called and
whoever asks: the key is made of the samples, the seconds they were taken from, the models, the
version of what checks and composes, and the tiers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from soundpost import __version__
from soundpost.audio.decode import AudioStream, open_audio
from soundpost.audio.recording import Block
from soundpost.errors import InvalidValueError, NoSamplesError, TooLongError
from soundpost.explain.difference import DifferenceExplainer, Excerpt, Explanation
from soundpost.store import explanations
from soundpost.store.session import Store

FloatArray = NDArray[np.float32]

TIERS = (1, 2, 3)
# Of more the windows to compare are not looked for: nobody waits that long.
LONGEST_S = 3_600.0
# Longer stretches are kept at this rate, which is what they are compared at.
_LONG_S = 60.0
_LONG_RATE_HZ = 16_000


@dataclass(frozen=True)
class Part:
    """A stretch of an audio file: seconds from its start; no end means to its end.

    name: what the file is called where it is spoken of.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    name: str = ""


def check_tiers(tiers: Sequence[int]) -> tuple[int, ...]:
    """Return tiers in order, each once. Raises InvalidValueError for one that there is not."""
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown or not tiers:
        raise InvalidValueError(f"tier {unknown[0] if unknown else 'none'}", "tiers are 1, 2 and 3")
    return tuple(sorted(set(tiers)))


def explain_parts(
    store: Store | None,
    explainer: DifferenceExplainer,
    first: Part,
    second: Part,
    tiers: Sequence[int] = TIERS,
) -> Explanation:
    """Say what of the second stretch differs from the first; without a store nothing is kept.

    Raises an AudioError where one of them cannot be heard, TooLongError for more than an hour,
    InvalidValueError for a tier that there is not.
    """
    wanted = check_tiers(tiers)
    one, other = read_excerpt(first), read_excerpt(second)
    if store is None:
        return explainer.explain(one, other, wanted)
    key = explanations.key_of([content_of(one), content_of(other)], [_made_by(explainer)], wanted)
    with store.reading() as session:
        known = explanations.find(session, key)
    if known is not None:
        return Explanation.from_document(known)
    made = explainer.explain(one, other, wanted)
    with store.session() as session:
        explanations.save(session, key, explainer.name, explainer.revision, made.to_document())
    return made


def _made_by(explainer: DifferenceExplainer) -> str:
    spec = explainer.encoder.spec
    models = f"{explainer.name} {explainer.revision} {spec.name} {spec.revision}"
    return f"{models} soundpost {__version__}"


def content_of(excerpt: Excerpt) -> str:
    """Name what an excerpt holds: its samples, their rate, and where they were taken from."""
    digest = hashlib.sha256(f"{excerpt.rate_hz} {excerpt.start_s:.6f} ".encode())
    digest.update(np.ascontiguousarray(excerpt.wave).tobytes())
    return digest.hexdigest()


def read_excerpt(part: Part) -> Excerpt:
    """Read a stretch of a file, mono. Raises an AudioError, NoSamplesError, TooLongError."""
    with open_audio(part.path, start_s=part.start_s, end_s=part.end_s) as stream:
        pieces, rate_hz = _pieces(stream, part)
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(wave):
        raise NoSamplesError(part.name or part.path, f"nothing lies at {part.start_s:g} s")
    return Excerpt(wave, rate_hz, part.start_s)


def _pieces(stream: AudioStream, part: Part) -> tuple[list[FloatArray], int]:
    rate_hz = stream.info.sample_rate_hz
    duration_s = stream.info.duration_s or LONGEST_S
    length_s = min(duration_s, part.end_s or duration_s) - part.start_s
    if length_s <= _LONG_S or rate_hz <= _LONG_RATE_HZ:
        pieces = [block.samples for block in _bounded(stream, part)]
        return pieces, rate_hz
    resampler = soxr.ResampleStream(rate_hz, _LONG_RATE_HZ, 1, dtype="float32")
    pieces = [resampler.resample_chunk(block.samples) for block in _bounded(stream, part)]
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return pieces, _LONG_RATE_HZ


def _bounded(stream: AudioStream, part: Part) -> Iterator[Block]:
    """Yield blocks of at most an hour. Raises TooLongError at the first beyond it."""
    longest = round(LONGEST_S * stream.info.sample_rate_hz)
    for block in stream:
        if stream.samples_read > longest:
            detail = "name a part of it as NAME@START-END, of an hour at most"
            raise TooLongError(part.name or part.path, detail)
        yield block
