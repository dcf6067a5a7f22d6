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

from soundpost.config import Settings
from soundpost.errors import EncoderUnavailableError, ModelNotFoundError, SoundpostError
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.encoder_process import EncoderProcess
from soundpost.models.placeholder import ToneEncoder


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
