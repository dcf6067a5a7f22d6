"""What is shipped to explain and to caption: complete, small, of the shipped encoder, and at work."""

from __future__ import annotations

import numpy as np
import pytest

from soundpost.config import load_settings
from soundpost.explain.caption import load_captioner
from soundpost.explain.difference import Excerpt, load_explainer
from soundpost.explain.listening import listen
from soundpost.explain.verdict import Verdict
from soundpost.models.compact import CompactEncoder
from soundpost.models.shipped import SHIPPED_ADIFF, SHIPPED_CAPTIONER

RATE_HZ = 16_000
FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return CompactEncoder.load(threads=1)


def tone(frequency_hz: float, noise: float) -> Excerpt:
    """Return five seconds of a tone in noise."""
    time_s = np.arange(5 * RATE_HZ) / RATE_HZ
    rng = np.random.default_rng(3)
    wave = 0.1 * np.sin(2 * np.pi * frequency_hz * time_s) + noise * rng.standard_normal(
        len(time_s)
    )
    return Excerpt(wave.astype(np.float32), RATE_HZ)


def test_each_is_complete_and_all_are_small() -> None:
    files = [path for folder in (SHIPPED_ADIFF, SHIPPED_CAPTIONER) for path in folder.iterdir()]
    for folder in (SHIPPED_ADIFF, SHIPPED_CAPTIONER):
        assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in files) < 50_000_000


def test_each_card_says_what_it_was_made_of() -> None:
    adiff, captioner = (
        (folder / "README.md").read_text(encoding="utf-8")
        for folder in (SHIPPED_ADIFF, SHIPPED_CAPTIONER)
    )
    assert f"compact {CompactEncoder.load(threads=1).spec.revision}" in adiff
    for card in (adiff, captioner):
        assert "non-commercial" in card
        assert "docs/benchmarks.md" in card


def test_the_shipped_network_explains_and_is_checked(encoder: CompactEncoder) -> None:
    explainer = load_explainer(load_settings(), encoder)
    assert explainer.name == "adiff"
    made = explainer.explain(tone(440.0, 0.001), tone(440.0, 0.05))
    assert set(made.tiers) == {1, 2, 3}
    for text in made.tiers.values():
        assert text.text
        assert text.claims
        assert not text.contradicted
        assert any(one.verdict is Verdict.SUPPORTED for one in text.claims)


def test_the_shipped_network_is_never_asked_of_the_same_recording(encoder: CompactEncoder) -> None:
    explainer = load_explainer(load_settings(), encoder)
    made = explainer.explain(tone(440.0, 0.01), tone(440.0, 0.01))
    assert {text.attempts for text in made.tiers.values()} == {0}


def test_the_shipped_captioner_captions(encoder: CompactEncoder) -> None:
    captioner = load_captioner(load_settings(), encoder)
    assert captioner.name == "dac"
    heard = listen(encoder, [tone(440.0, 0.05).wave], RATE_HZ)[0]
    captions = captioner.caption(heard.frames, heard.frame_hop_s, n=3)
    assert 1 <= len(captions) <= 3
    assert all(len(one.text.split()) >= 2 for one in captions)
