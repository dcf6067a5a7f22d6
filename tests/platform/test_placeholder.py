"""The stand-in encoder: a tone is found by its frequency, and placed within its window."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.errors import InvalidValueError
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.placeholder import FRAME_HOP_S, SAMPLE_RATE_HZ, TAGS, ToneEncoder

ENCODER = ToneEncoder()


def tone(
    frequency_hz: float, duration_s: float = 4.0, amplitude: float = 0.3
) -> NDArray[np.float32]:
    t = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def noise(duration_s: float = 4.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return (0.1 * rng.standard_normal(round(duration_s * SAMPLE_RATE_HZ))).astype(np.float32)


def test_it_is_an_encoder() -> None:
    assert isinstance(ENCODER, AudioTextEncoder)


@pytest.mark.parametrize("text", ["440 hz tone", "tone of 440 Hz", "0.44 kHz", "A tone, 440Hz."])
def test_a_text_finds_its_tone_before_all_others(text: str) -> None:
    sounds = [tone(f) for f in (110, 220, 392, 440, 494, 880, 4000)]
    sounds += [noise(), np.zeros_like(noise())]
    scores = ENCODER.embed_audio(np.stack(sounds)) @ ENCODER.embed_text([text])[0]
    assert int(np.argmax(scores)) == 3
    assert scores[3] > 0.98
    assert scores[3] - np.sort(scores)[-2] > 0.03


@settings(max_examples=25)
@given(st.floats(min_value=100, max_value=3900), st.floats(min_value=0.001, max_value=0.9))
def test_every_audible_tone_matches_its_own_text(frequency_hz: float, amplitude: float) -> None:
    vector = ENCODER.embed_audio(tone(frequency_hz, 1.0, amplitude)[None])[0]
    texts = [f"{frequency_hz:.1f} hz tone", f"{frequency_hz * 2:.1f} hz tone", "noise", "silence"]
    scores = ENCODER.embed_text(texts) @ vector
    assert scores[0] > 0.95
    assert scores[0] > 2 * scores[1:].max()


def test_noise_and_silence_are_told_apart() -> None:
    vectors = ENCODER.embed_audio(np.stack([noise(), np.zeros_like(noise()), tone(440)]))
    scores = ENCODER.embed_text(["noise", "silence", "440 hz tone"]) @ vectors.T
    assert np.argmax(scores, axis=1).tolist() == [0, 1, 2]
    assert np.diag(scores).min() > 0.9


def test_texts_it_does_not_understand_match_no_sound() -> None:
    texts = ENCODER.embed_text(["a dog barks", "rain", "", "glass breaking in a hall"])
    sounds = ENCODER.embed_audio(np.stack([tone(440), noise(), np.zeros_like(noise())]))
    cosines = texts @ sounds.T
    assert np.abs(cosines).max() < 1e-6
    assert ENCODER.relevance(texts, cosines).max() < 0.01
    assert np.linalg.matrix_rank(texts) == 4
    np.testing.assert_array_equal(texts[1], ENCODER.embed_text(["RAIN "])[0])


def test_relevance_is_high_for_the_right_tone_and_grows_with_the_cosine() -> None:
    relevance = ENCODER.relevance(np.zeros((1, 32), np.float32), np.array([[0.0, 0.5, 0.99]], "f4"))
    assert relevance.shape == (1, 3)
    assert relevance[0, 0] < 0.01
    assert relevance[0, 2] > 0.99
    assert np.all(np.diff(relevance[0]) > 0)


def test_frames_place_a_tone_inside_its_window() -> None:
    wave = np.zeros(4 * SAMPLE_RATE_HZ, dtype=np.float32)
    wave[2 * SAMPLE_RATE_HZ : 3 * SAMPLE_RATE_HZ] = tone(1000, 1.0)
    encoding = ENCODER.encode_audio(wave[None])
    assert encoding.frames.shape == (1, 16, 32)
    scores = encoding.frames[0] @ ENCODER.embed_text(["1 khz tone"])[0]
    loud = np.flatnonzero(scores > 0.9) * FRAME_HOP_S
    np.testing.assert_allclose(loud, [2.0, 2.25, 2.5, 2.75])
    assert encoding.embedding[0] @ ENCODER.embed_text(["1 khz tone"])[0] > 0.9


def test_tags_name_what_is_heard() -> None:
    encoding = ENCODER.encode_audio(np.stack([tone(440), noise(), np.zeros_like(noise())]))
    assert encoding.tags is not None
    assert [TAGS[i] for i in np.argmax(encoding.tags, axis=1)] == ["tone", "noise", "silence"]
    assert ENCODER.spec.tag_labels == TAGS
    np.testing.assert_allclose(encoding.tags.sum(axis=1), 1.0, rtol=1e-5)


def test_what_lies_past_a_rows_length_is_ignored() -> None:
    short = tone(440, 1.0)
    waves = np.stack([np.concatenate([short, tone(3000, 3.0)]), noise()])
    batch = ENCODER.encode_audio(waves, np.array([short.size, waves.shape[1]]))
    np.testing.assert_array_equal(batch.embedding[0], ENCODER.embed_audio(short[None])[0])
    silence = ENCODER.embed_text(["silence"])[0]
    np.testing.assert_array_equal(batch.frames[0, 4:], np.tile(silence, (12, 1)))


def test_vectors_are_unit_norm_single_precision_and_repeatable() -> None:
    waves = np.stack([tone(440) + noise(), noise(), np.zeros_like(noise())])
    first, second = ENCODER.encode_audio(waves), ENCODER.encode_audio(waves)
    for vectors in (first.embedding, first.frames, ENCODER.embed_text(["440 hz", "x"])):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(first.frames, second.frames)


def test_empty_batches_keep_their_shape() -> None:
    assert ENCODER.embed_text([]).shape == (0, 32)
    encoding = ENCODER.encode_audio(np.zeros((0, 16_000), np.float32))
    assert encoding.embedding.shape == (0, 32)
    assert encoding.frames.shape == (0, 4, 32)


def test_audio_without_a_batch_axis_is_refused_by_its_shape() -> None:
    with pytest.raises(InvalidValueError, match=r"\(64000,\)"):
        ENCODER.embed_audio(tone(440))


def test_it_needs_no_torch() -> None:
    code = "import soundpost.models.placeholder, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_word_and_frequency_is_a_token_in_its_place() -> None:
    encoding = ENCODER.encode_text(["440 hz before noise", "", "noise before 440hz"])
    assert encoding.lengths.tolist() == [3, 1, 3]
    assert encoding.tokens.shape == (3, 3, ENCODER.spec.token_width)
    np.testing.assert_array_equal(encoding.tokens[0], encoding.tokens[2, ::-1])
    np.testing.assert_array_equal(encoding.tokens[0, 2], ENCODER.embed_text(["noise"])[0])
    np.testing.assert_array_equal(encoding.embedding[0], encoding.embedding[2])
    assert not encoding.tokens[1, 1:].any()
    assert ENCODER.encode_text([]).tokens.shape == (0, 0, 32)
