"""Explaining how two stretches of audio files differ: read, explained, and kept by what they hold.

The same sound explained by the same models is explained once, however its file is called and
whoever asks: the key is made of the samples, the seconds they were taken from, the models, the
version of what checks and composes, and the tiers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from soundpost import __version__
from soundpost.audio.decode import AudioStream, open_audio
from soundpost.audio.recording import Block
from soundpost.errors import InvalidValueError, NoSamplesError, TooLongError
from soundpost.explain.difference import DifferenceExplainer, Excerpt, Explanation
from soundpost.explain.excerpts import check_excerpt, check_length, choose
from soundpost.store import explanations
from soundpost.store.session import Store

FloatArray = NDArray[np.float32]

TIERS = (1, 2, 3)
# Of more the windows to compare are not looked for: nobody waits that long.
LONGEST_S = 3_600.0
# Longer stretches are kept at this rate, which is what the seconds to compare are looked for at.
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
    read = read_excerpt(first), read_excerpt(second)
    one, other = _for_encoder(explainer, (first, second), read)
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


def _for_encoder(
    explainer: DifferenceExplainer, parts: tuple[Part, Part], read: tuple[Excerpt, Excerpt]
) -> tuple[Excerpt, Excerpt]:
    """Return what is compared, with all that the encoder can hear.

    Of a stretch that was kept at a lower rate than the encoder's the chosen seconds are read again.
    """
    wanted_hz = explainer.encoder.spec.sample_rate_hz
    kept_low = [one.duration_s > _LONG_S and one.rate_hz < wanted_hz for one in read]
    if not any(kept_low):
        return read
    for one in read:
        check_excerpt(one)
    chosen = [
        read_excerpt(replace(part, start_s=one.span_s[0], end_s=one.span_s[1])) if low else one
        for part, one, low in zip(parts, choose(*read), kept_low, strict=True)
    ]
    return chosen[0], chosen[1]


def _made_by(explainer: DifferenceExplainer) -> str:
    spec = explainer.encoder.spec
    models = f"{explainer.name} {explainer.revision} {spec.name} {spec.revision}"
    return f"{models} soundpost {__version__}"


def content_of(excerpt: Excerpt) -> str:
    """Name what an excerpt holds: its samples, their rate, and where they were taken from."""
    digest = hashlib.sha256(f"{excerpt.rate_hz} {excerpt.start_s:.6f} ".encode())
    digest.update(np.ascontiguousarray(excerpt.wave).tobytes())
    return digest.hexdigest()


def read_excerpt(part: Part, long_rate_hz: int = _LONG_RATE_HZ) -> Excerpt:
    """Read a stretch of a file, mono; one of more than a minute at `long_rate_hz`, if that is lower.

    Raises an AudioError: NoSamplesError, TooShortError, TooLongError among them.
    """
    with open_audio(part.path, start_s=part.start_s, end_s=part.end_s) as stream:
        pieces, rate_hz = _pieces(stream, part, long_rate_hz)
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(wave):
        raise NoSamplesError(part.name or part.path, f"nothing lies at {part.start_s:g} s")
    excerpt = Excerpt(wave, rate_hz, part.start_s)
    check_length(excerpt, part.name or part.path)
    return excerpt


def _pieces(stream: AudioStream, part: Part, long_rate_hz: int) -> tuple[list[FloatArray], int]:
    rate_hz = stream.info.sample_rate_hz
    # Of an unknown length: long, for all that is known.
    ends_s = [end_s for end_s in (stream.info.duration_s, part.end_s) if end_s is not None]
    length_s = min(ends_s, default=math.inf) - part.start_s
    if length_s <= _LONG_S or rate_hz <= long_rate_hz:
        pieces = [block.samples for block in _bounded(stream, part)]
        return pieces, rate_hz
    resampler = soxr.ResampleStream(rate_hz, long_rate_hz, 1, dtype="float32")
    pieces = [resampler.resample_chunk(block.samples) for block in _bounded(stream, part)]
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return pieces, long_rate_hz


def _bounded(stream: AudioStream, part: Part) -> Iterator[Block]:
    """Yield blocks of at most an hour. Raises TooLongError at the first beyond it."""
    longest = round(LONGEST_S * stream.info.sample_rate_hz)
    for block in stream:
        if stream.samples_read > longest:
            detail = "name a part of it as NAME@START-END, of an hour at most"
            raise TooLongError(part.name or part.path, detail)
        yield block
