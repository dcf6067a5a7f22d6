"""The vector that the difference network reads: its layout, its scale, and bad recordings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.explain.audio_vector import SLOTS, audio_vector, text_vector, width
from soundpost.explain.listening import Listening, listen
from soundpost.models.compact import CompactEncoder
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.placeholder import DIMENSION, TAGS, ToneEncoder

FloatArray = NDArray[np.float32]
RATE_HZ = 16_000


def tone(seconds: float, peak: float = 0.1) -> FloatArray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (peak * np.sin(2 * np.pi * 440.0 * time_s)).astype(np.float32)


def hear(wave: FloatArray, encoder: AudioTextEncoder | None = None) -> Listening:
    return listen(encoder or ToneEncoder(), [wave], RATE_HZ)[0]


def test_it_is_as_wide_as_it_says_over_any_encoder() -> None:
    assert audio_vector(hear(tone(4.0))).shape == (width(DIMENSION, len(TAGS)),)
    compact = CompactEncoder.load(threads=1)
    spec = compact.spec
    vector = audio_vector(hear(tone(4.0), compact))
    assert vector.shape == (width(spec.dimension, len(spec.tag_labels)),)
    assert vector.dtype == np.float32


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(80_000, np.float32),
        np.zeros(1, np.float32),
        tone(0.3),
        np.sign(tone(10.0, 1.0) + 1e-9).astype(np.float32),
        (1e-6 * np.random.default_rng(0).standard_normal(30_000)).astype(np.float32),
    ],
    ids=["silence", "one sample", "0.3 s", "full scale", "hardly anything"],
)
def test_every_value_is_finite_and_of_order_one(wave: FloatArray) -> None:
    vector = audio_vector(hear(wave))
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 10.0


def test_the_embedding_comes_first_and_frames_stand_in_their_seconds() -> None:
    one = hear(np.concatenate([tone(3.0), np.zeros(2 * RATE_HZ, np.float32)]))
    vector = audio_vector(one)
    scale = np.sqrt(DIMENSION)
    np.testing.assert_allclose(vector[:DIMENSION], one.embedding * scale, atol=1e-5)
    start = DIMENSION + len(TAGS)
    slots = vector[start : start + SLOTS * DIMENSION].reshape(SLOTS, DIMENSION) / scale
    heard = ToneEncoder().embed_text(["440 hz tone"])[0]
    assert (slots[:3] @ heard > 0.9).all()
    assert (slots[3:5] @ heard < 0.5).all()
    assert not slots[5:].any()


def test_twenty_decibels_show_wherever_levels_are_and_nowhere_else() -> None:
    noise = np.random.default_rng(3).standard_normal(5 * RATE_HZ).astype(np.float32)
    soft, loud = (audio_vector(hear(noise * np.float32(gain))) for gain in (0.01, 0.1))
    change = loud - soft
    moved = np.abs(change) > 1e-2
    np.testing.assert_allclose(change[moved], 1.0, atol=0.01)
    assert not moved[: DIMENSION + len(TAGS) + SLOTS * DIMENSION].any()
    # Third octaves, three levels, the floor, 20 quarters and 10 x 3 halves of a second.
    assert moved.sum() == 26 + 3 + 1 + 20 + 30


def test_when_it_becomes_loud_shows_in_the_order_of_time() -> None:
    early = np.concatenate([tone(1.0), tone(4.0, 1e-3)])
    vectors = [audio_vector(hear(wave)) for wave in (early, early[::-1].copy())]
    tail = slice(DIMENSION + len(TAGS) + SLOTS * DIMENSION, None)
    assert np.abs(vectors[0][tail] - vectors[1][tail]).max() > 0.5


def test_a_text_stands_in_the_embeddings_place_under_a_flag() -> None:
    embedding = ToneEncoder().embed_text(["440 hz tone"])[0]
    vector = text_vector(embedding, len(TAGS))
    assert vector.shape == (width(DIMENSION, len(TAGS)),)
    np.testing.assert_allclose(vector[:DIMENSION], embedding * np.sqrt(DIMENSION), atol=1e-6)
    assert vector[-1] == 1.0
    assert not vector[DIMENSION:-1].any()
    assert audio_vector(hear(tone(1.0)))[-1] == 0.0
