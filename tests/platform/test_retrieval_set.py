"""Sets of texts and sounds come back from their file as they were, and refuse what cannot fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soundpost.errors import InvalidValueError, PathNotFoundError
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.reranker import Candidates
from soundpost.models.retrieval_set import (
    RetrievalSet,
    load_retrieval_set,
    read_texts,
    save_retrieval_set,
)

TEXTS = ("440 hz then noise", "silence", "", "狗 🐕 barks")


def tone_set() -> RetrievalSet:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((3, 4, 32)).astype(np.float32)
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    lengths = np.array([4, 2, 1])
    frames[np.arange(4)[None] >= lengths[:, None]] = 0.0
    sounds = Candidates(np.array([7, -1, 2**62]), frames[:, 0], frames, lengths)
    relevant = (np.array([0, 2]), np.array([1]), np.zeros(0, np.int64), np.array([2]))
    return RetrievalSet(read_texts(TEXTS, ToneEncoder()), sounds, relevant)


def test_a_set_comes_back_from_its_file(tmp_path: Path) -> None:
    data, path = tone_set(), tmp_path / "deep" / "set.npz"
    save_retrieval_set(path, data)
    back = load_retrieval_set(path)
    assert back.texts.texts == TEXTS
    np.testing.assert_array_equal(back.texts.vectors, data.texts.vectors)
    np.testing.assert_array_equal(back.texts.tokens, data.texts.tokens)
    np.testing.assert_array_equal(back.sounds.keys, data.sounds.keys)
    np.testing.assert_array_equal(back.sounds.vectors, data.sounds.vectors)
    np.testing.assert_allclose(back.sounds.frames, data.sounds.frames, atol=1e-3)
    assert back.sounds.frames.dtype == np.float32
    assert [rows.tolist() for rows in back.relevant] == [[0, 2], [1], [], [2]]
    assert [path.name for path in path.parent.iterdir()] == ["set.npz"]


def test_an_empty_set_comes_back_too(tmp_path: Path) -> None:
    data = tone_set().of_texts(np.zeros(0, np.int64))
    save_retrieval_set(tmp_path / "set.npz", data)
    back = load_retrieval_set(tmp_path / "set.npz")
    assert (len(back.texts), len(back.relevant), len(back.sounds)) == (0, 0, 3)


def test_texts_are_read_in_batches_as_they_are_alone() -> None:
    texts = [f"{100 + number} hz" + " and noise" * (number % 3) for number in range(300)]
    together = read_texts(texts, ToneEncoder())
    alone = read_texts(texts[-1:], ToneEncoder())
    np.testing.assert_array_equal(together.vectors[-1:], alone.vectors)
    length = int(alone.lengths[0])
    np.testing.assert_array_equal(together.tokens[-1:, :length], alone.tokens)
    assert not together.tokens[-1, length:].any()


def test_texts_can_be_chosen() -> None:
    chosen = tone_set().of_texts(np.array([3, 0]))
    assert chosen.texts.texts == (TEXTS[3], TEXTS[0])
    assert [rows.tolist() for rows in chosen.relevant] == [[2], [0, 2]]


def test_families_are_kept(tmp_path: Path) -> None:
    data = replace(tone_set(), families=np.array([5, 5, 2, 2]))
    save_retrieval_set(tmp_path / "set.npz", data)
    back = load_retrieval_set(tmp_path / "set.npz").of_texts(np.array([3, 0]))
    assert back.families is not None
    assert back.families.tolist() == [2, 5]
    with pytest.raises(InvalidValueError, match="4 texts"):
        replace(data, families=np.array([1]))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = tone_set()
    with pytest.raises(InvalidValueError, match="3 lists"):
        replace(data, relevant=data.relevant[:3])
    with pytest.raises(InvalidValueError, match=r"\[3\]"):
        replace(data, relevant=(np.array([3]), *data.relevant[1:]))
    with pytest.raises(InvalidValueError, match="4 texts"):
        replace(data.texts, vectors=data.texts.vectors[:2])
    with pytest.raises(InvalidValueError, match="3 sounds"):
        replace(data, sounds=replace(data.sounds, frames=data.sounds.frames[:1]))
    with pytest.raises(PathNotFoundError, match="none"):
        load_retrieval_set(tmp_path / "none.npz")
    (tmp_path / "wrong.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidValueError, match="wrong"):
        load_retrieval_set(tmp_path / "wrong.npz")
