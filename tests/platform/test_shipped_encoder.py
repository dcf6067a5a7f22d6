"""The weights that come with the package: they hear, they read, they know when nothing fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soundpost.audio.scenes import KINDS, Event, Scene
from soundpost.models.compact import SHIPPED_WEIGHTS, CompactEncoder

SEEDS = (11, 12)


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return CompactEncoder.load()


@pytest.fixture(scope="module")
def heard(encoder: CompactEncoder) -> tuple[list[str], np.ndarray]:
    """Every kind of scene, twice, in other variants: names and embeddings."""
    names = [kind for kind in KINDS for _ in SEEDS]
    waves = [
        Scene(
            (Event(kind, 0.3, 4.4, -26.0),), 5.0, sample_rate_hz=16_000, noise_dbfs=-60.0, seed=seed
        )
        .render()
        .wave
        for kind in KINDS
        for seed in SEEDS
    ]
    return names, encoder.embed_audio(np.stack(waves))


def test_weights_are_small_safe_and_complete() -> None:
    files = {path.name for path in SHIPPED_WEIGHTS.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    assert sum(path.stat().st_size for path in SHIPPED_WEIGHTS.iterdir()) < 30_000_000
    assert not [
        path for path in SHIPPED_WEIGHTS.iterdir() if path.suffix in {".bin", ".pt", ".pkl"}
    ]


def test_finds_most_kinds_of_scene_by_text(
    encoder: CompactEncoder, heard: tuple[list[str], np.ndarray]
) -> None:
    names, embeddings = heard
    queries = encoder.embed_text([kind.texts[0] for kind in KINDS.values()])
    best = (queries @ embeddings.T).argmax(axis=1)
    found = [kind for kind, index in zip(KINDS, best, strict=True) if names[int(index)] == kind]
    assert len(found) >= 15, f"not found: {sorted(set(KINDS) - set(found))}"


@pytest.mark.parametrize(
    ("asked", "close", "far"),
    [
        ("a puppy", "dog barking", "church bell"),
        ("somebody speaks", "human voice", "rainfall"),
        ("a motorbike passes", "engine noise", "bird song"),
        ("downpour", "heavy rain", "sawing wood"),
    ],
)
def test_reads_words_that_are_no_label(
    encoder: CompactEncoder, asked: str, close: str, far: str
) -> None:
    vectors = encoder.embed_text([asked, close, far])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_relevance_separates_what_is_there_from_what_is_not(
    encoder: CompactEncoder, heard: tuple[list[str], np.ndarray]
) -> None:
    names, embeddings = heard
    queries = encoder.embed_text(["rain", "a dog barks", "a string quartet plays"])
    stated = encoder.relevance(queries, queries @ embeddings.T)
    for row, kind in enumerate(("rain", "dog")):
        mine = np.array([name == kind for name in names])
        assert stated[row, mine].max() > 0.5
        assert np.median(stated[row, ~mine]) < 0.1
    assert np.median(stated[2]) < 0.1


def test_the_first_and_the_last_half_are_told_apart_by_frames(encoder: CompactEncoder) -> None:
    scene = Scene(
        (Event("rain", 0.0, 2.5, -26.0), Event("dog", 2.5, 2.5, -26.0)),
        5.0,
        sample_rate_hz=16_000,
        seed=3,
    )
    frames = encoder.encode_audio(scene.render().wave[None]).frames[0]
    rain, dog = encoder.embed_text(["rain", "dog"])
    half = len(frames) // 2
    assert (frames[:half] @ rain).mean() > (frames[half:] @ rain).mean()
    assert (frames[half:] @ dog).mean() > (frames[:half] @ dog).mean()


def test_the_model_card_says_what_it_learnt_from() -> None:
    card = Path(SHIPPED_WEIGHTS / "README.md").read_text(encoding="utf-8")
    for name in ("YAMNet", "MiniLM", "ESC-50", "UrbanSound8K", "Licence"):
        assert name in card
