"""The first command of a newcomer: the whole story, with the encoder that comes with the package."""

from __future__ import annotations

import re
from typing import Any

import pytest

from soundpost.models.registry import SHIPPED_RERANKERS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def hits_of(told: str, query: str) -> str:
    """The part of the demo's output that answers a query."""
    start = told.index(f'soundpost search "{query}"')
    return told[start : told.index("\n\n", start)]


def test_the_demo_finds_what_it_hid(soundpost: Any) -> None:
    soundpost.more["SOUNDPOST_ENCODER"] = "compact"
    told = soundpost("demo").out
    assert "2 failed" in told
    assert "[empty-file]" in told
    for query, name, tag in (
        ("a dog barking", "dog", "Dog"),
        ("glass breaking", "glass", "Glass"),
        ("a siren in the distance", "siren", "Siren"),
        ("someone walking", "footsteps", "Walk, footsteps"),
    ):
        answer = hits_of(told, query)
        assert re.search(rf"{name}( again)?\.wav", answer), answer
        assert tag in answer
    assert "Rain" in hits_of(told, "rain falling")
    assert "Nothing found" in hits_of(told, "a church choir singing")
    assert re.search(r"incident 1 opened: sounds unlike its baseline", told)
    assert re.search(r"incident 1 resolved", told)
    shipped = any((folder / "config.json").is_file() for folder in SHIPPED_RERANKERS)
    assert ("--rerank off" in told) == shipped
    if shipped:
        reranked = told[told.index("Reranking looks") :].splitlines()
        assert "dog, then siren.wav" in reranked[3], reranked[:12]
    quiet, _, later = told.partition("Then the bearing begins to knock.")
    assert "incident 1" not in quiet
    assert "brighter" in later
    # What differs stands there in words, with what was measured.
    assert re.search(r"\d findings explained", later)
    explained = later[later.index("told apart from") :]
    assert re.search(r"In a sentence.*:\n +\S", explained), explained[:800]
    assert re.search(r'yes +"', explained), explained[:800]
    assert "Measured" in explained
    assert re.search(r"Written (from measurements alone|by .*, then checked)", explained)
