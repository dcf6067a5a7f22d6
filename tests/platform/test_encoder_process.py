"""An encoder in another process answers as the same encoder does here, and survives its death."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.config import Settings
from soundpost.errors import (
    EncoderUnavailableError,
    InvalidValueError,
    ModelNotFoundError,
    NoRerankerError,
    RerankerNotFoundError,
    SoundpostError,
)
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.encoder_process import EncoderProcess
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.registry import load_reranker
from soundpost.models.reranker import Candidates, Reranker


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[EncoderProcess]:
    process = EncoderProcess(Settings(home=tmp_path, encoder="placeholder:tone"))
    yield process
    process.close()


def test_it_is_an_encoder(remote: EncoderProcess) -> None:
    assert isinstance(remote, AudioTextEncoder)


def test_it_answers_as_the_encoder_does(remote: EncoderProcess) -> None:
    here = ToneEncoder()
    assert remote.spec == here.spec
    wave = np.sin(np.arange(2 * here.spec.sample_rate_hz) / 9).astype(np.float32)[None]
    there, ours = remote.encode_audio(wave), here.encode_audio(wave)
    np.testing.assert_array_equal(there.embedding, ours.embedding)
    np.testing.assert_array_equal(there.frames, ours.frames)
    np.testing.assert_array_equal(remote.embed_audio(wave), here.embed_audio(wave))
    texts = ["440 Hz", "a low hum"]
    np.testing.assert_array_equal(remote.embed_text(texts), here.embed_text(texts))
    far, near = remote.encode_text(texts), here.encode_text(texts)
    np.testing.assert_array_equal(far.tokens, near.tokens)
    np.testing.assert_array_equal(far.lengths, near.lengths)
    queries, similarity = here.embed_text(texts), np.array([[0.1, 0.9], [0.5, 0.2]], np.float32)
    np.testing.assert_array_equal(
        remote.relevance(queries, similarity), here.relevance(queries, similarity)
    )


def test_many_threads_get_their_own_answers(remote: EncoderProcess) -> None:
    here = ToneEncoder()
    texts = [f"{100 + 7 * number} Hz" for number in range(200)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: remote.embed_text([text]), texts))
    np.testing.assert_allclose(np.concatenate(answers), here.embed_text(texts), atol=1e-6)


def test_an_error_is_raised_here_and_concerns_only_its_caller(remote: EncoderProcess) -> None:
    with pytest.raises(SoundpostError):
        remote.relevance(np.zeros((2, 5), np.float32), np.zeros((3, 1), np.int64).astype(str))  # type: ignore[arg-type]  # wrong on purpose
    assert remote.embed_text(["440 Hz"]).shape == (1, remote.spec.dimension)


def test_a_killed_process_is_started_again(remote: EncoderProcess) -> None:
    before = remote.embed_text(["440 Hz"])
    first = remote.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    after = None
    for _ in range(100):
        try:
            after = remote.embed_text(["440 Hz"])
            break
        except EncoderUnavailableError:
            continue
    assert after is not None
    np.testing.assert_array_equal(before, after)
    assert remote.process_id != first


def test_who_waits_for_a_killed_process_is_told(tmp_path: Path) -> None:
    remote = EncoderProcess(Settings(home=tmp_path, encoder="placeholder:tone"))
    remote.embed_text(["440 Hz"])
    process_id = remote.process_id
    assert process_id is not None
    os.kill(process_id, signal.SIGSTOP)
    errors: list[SoundpostError] = []

    def ask() -> None:
        try:
            remote.embed_text(["440 Hz"])
        except SoundpostError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    remote.close()
    asking.join(30.0)
    assert not asking.is_alive()
    assert [error.code for error in errors] in ([], ["encoder-unavailable"])


def test_a_process_that_hangs_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    remote = EncoderProcess(Settings(home=tmp_path, encoder="placeholder:tone"), answer_s=0.3)
    remote.embed_text(["440 Hz"])
    process_id = remote.process_id
    assert process_id is not None
    os.kill(process_id, signal.SIGSTOP)
    with pytest.raises(EncoderUnavailableError, match="no answer"):
        remote.embed_text(["440 Hz"])
    remote.close()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    remote = EncoderProcess(Settings(home=tmp_path, encoder=str(tmp_path / "nowhere")))
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        remote.embed_text(["rain"])
    assert not remote.ready
    remote.close()


# --- its reranker -----------------------------------------------------------------------------


def sounds(count: int) -> tuple[NDArray[np.float32], Candidates]:
    """Cosines and candidates of four seconds each."""
    rng = np.random.default_rng(count)
    frames = rng.normal(size=(count, 4, ToneEncoder().spec.dimension)).astype(np.float32)
    frames /= np.linalg.norm(frames, axis=2, keepdims=True)
    vectors = frames[:, 0]
    lengths = np.full(count, 4, dtype=np.int64)
    return vectors[:, 0].copy(), Candidates(np.arange(count) + 7, vectors, frames, lengths)


@pytest.fixture
def reranking(tmp_path: Path, untrained_reranker: Path) -> Iterator[EncoderProcess]:
    settings = Settings(home=tmp_path, encoder="placeholder:tone", reranker=str(untrained_reranker))
    process = EncoderProcess(settings)
    yield process
    process.close()


def test_its_reranker_answers_to_the_bit_as_it_does_here(
    reranking: EncoderProcess, untrained_reranker: Path
) -> None:
    here = load_reranker(Settings(reranker=str(untrained_reranker)), ToneEncoder())
    there = reranking.load_reranker()
    assert isinstance(there, Reranker)
    assert (there.spec, there.weight) == (here.spec, here.weight)
    for count in (0, 1, 2, 50, 1000):
        cosines, candidates = sounds(count)
        answer = there.joint_probability("440 hz before noise", cosines, candidates)
        np.testing.assert_array_equal(
            answer, here.joint_probability("440 hz before noise", cosines, candidates)
        )


def test_texts_are_the_same_beside_a_reranker(reranking: EncoderProcess) -> None:
    here, texts = ToneEncoder(), ["440 Hz", "a low hum", "440 Hz", ""]
    for _ in range(2):
        np.testing.assert_array_equal(reranking.embed_text(texts), here.embed_text(texts))
    assert reranking.embed_text([]).shape == (0, here.spec.dimension)
    encoded = reranking.encode_text(["440 Hz before noise"])
    np.testing.assert_array_equal(encoded.tokens, here.encode_text(["440 Hz before noise"]).tokens)


def test_errors_of_its_reranker_are_raised_here(reranking: EncoderProcess) -> None:
    cosines, candidates = sounds(3)
    there = reranking.load_reranker()
    candidates.vectors[1] = np.nan
    with pytest.raises(InvalidValueError):
        there.joint_probability("440 hz", cosines, candidates)
    assert there.joint_probability("440 hz", *sounds(3)).shape == (3,)


def test_its_reranker_is_there_again_after_it_was_killed(reranking: EncoderProcess) -> None:
    there = reranking.load_reranker()
    before = there.joint_probability("440 hz", *sounds(5))
    assert reranking.process_id is not None
    os.kill(reranking.process_id, signal.SIGKILL)
    after = None
    for _ in range(100):
        try:
            after = there.joint_probability("440 hz", *sounds(5))
            break
        except EncoderUnavailableError:
            continue
    assert after is not None
    np.testing.assert_array_equal(before, after)


def test_without_a_reranker_texts_are_embedded_all_the_same(
    remote: EncoderProcess, tmp_path: Path
) -> None:
    with pytest.raises(NoRerankerError, match="placeholder:tone"):
        remote.load_reranker()
    with pytest.raises(NoRerankerError):
        remote.joint_probability("440 hz", *sounds(2))
    assert remote.embed_text(["440 Hz"]).shape == (1, remote.spec.dimension)
    settings = Settings(home=tmp_path, encoder="placeholder:tone", reranker=str(tmp_path / "none"))
    process = EncoderProcess(settings)
    with pytest.raises(RerankerNotFoundError, match="none"):
        process.load_reranker()
    assert process.embed_text(["440 Hz"]).shape == (1, process.spec.dimension)
    process.close()


def test_who_waits_for_the_reranker_of_an_encoder_that_is_not_there_is_told(
    tmp_path: Path,
) -> None:
    remote = EncoderProcess(Settings(home=tmp_path, encoder=str(tmp_path / "nowhere")))
    with pytest.raises(SoundpostError) as caught:
        remote.load_reranker()
    assert caught.value.code in ("model-not-found", "encoder-unavailable")
    remote.close()
