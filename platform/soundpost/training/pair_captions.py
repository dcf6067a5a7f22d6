"""What is heard in one recording, in words: captions, lists of sounds, and its course in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soundpost.explain.phrasing import drawn, listed, sentence, sound
from soundpost.training.pair_records import Heard

_TOGETHER_S = 0.5
_LATE_S = 1.5
_THROUGHOUT = 0.8


def things_of(keys: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return words for some sounds: all as things ("a dog") or all as doings ("a dog barking")."""
    as_doing = rng.random() < 0.55
    return [sound(key).doing if as_doing else sound(key).a_thing for key in keys]


def caption(heard: Sequence[Heard], rng: np.random.Generator, *, doing: bool = False) -> str:
    """Describe one recording in a phrase: "a dog barks repeatedly while rain falls".

    doing: as a noun ("a dog barking with rain falling"), to stand after "audio 1 is".
    """
    if not heard:
        return "hardly anything"
    front, back = _front_and_back(heard)
    if doing or rng.random() < 0.4:
        return _as_doing(front, back, rng)
    return _as_clause(front, back, rng)


def _front_and_back(heard: Sequence[Heard]) -> tuple[list[Heard], list[Heard]]:
    ordered = sorted(heard, key=lambda one: one.start_s)
    back = [one for one in ordered if one.background]
    front = [one for one in ordered if not one.background]
    return (front, back) if front else (back, [])


def _as_doing(front: list[Heard], back: list[Heard], rng: np.random.Generator) -> str:
    things = rng.random() < 0.3
    words = [sound(one.what).a_thing if things else _doing(one) for one in front]
    text = _in_order(front, words, ("followed by", "and then"), rng)
    if not back:
        return text
    behind = listed([sound(one.what).doing for one in back])
    links = ("{} with {} in the background", "{} with {} behind it", "{} over {}", "{} and {}")
    return drawn(links, rng).format(text, behind)


def _as_clause(front: list[Heard], back: list[Heard], rng: np.random.Generator) -> str:
    words = [_clause(one) for one in front]
    text = _in_order(front, words, ("then", "and then"), rng)
    if not back:
        return text
    behind = " and ".join(sound(one.what).clause for one in back)
    links = ("{} while {}", "{} as {}", "{} while {} in the background")
    return drawn(links, rng).format(text, behind)


def _in_order(
    heard: list[Heard], words: list[str], links: tuple[str, ...], rng: np.random.Generator
) -> str:
    text = words[0]
    for before, after, word in zip(heard, heard[1:], words[1:], strict=False):
        together = after.start_s - before.start_s < _TOGETHER_S
        text += " and " + word if together else f", {drawn(links, rng)} {word}"
    return text


def _doing(one: Heard) -> str:
    return sound(one.what).doing + (" repeatedly" if one.count > 1 else "")


def _clause(one: Heard) -> str:
    return sound(one.what).clause + (" repeatedly" if one.count > 1 else "")


def narrated(heard: Sequence[Heard], name: str, duration_s: float, rng: np.random.Generator) -> str:
    """Tell the course of one recording in a sentence: what comes first, next, and throughout."""
    if not heard:
        return sentence(f"{name} holds hardly anything")
    front, back = _front_and_back(heard)
    lasting = [one for one in front if one.end_s - one.start_s >= _THROUGHOUT * duration_s]
    if len(lasting) < len(front):
        front, back = [one for one in front if one not in lasting], [*lasting, *back]
    elif not back and front:
        front, back = [], front
    behind = listed([sound(one.what).doing for one in back])
    if not front:
        frames = ("{x} holds {b} from beginning to end", "in {x} one hears {b} all along",
                  "{x} consists of {b}, steadily present", "{x} features {b} throughout")  # fmt: skip
        return sentence(drawn(frames, rng).format(x=name, b=behind))
    course = _in_order(front, [_doing(one) for one in front], ("followed by", "and then"), rng)
    frames = ("{x} opens with {c}", "{x} begins with {c}", "in {x} one hears {c}",
              "{x} starts with {c}")  # fmt: skip
    if front[0].start_s > _LATE_S:
        frames = ("in {x} one hears {c}", "{x} holds {c}", "in {x} there is {c}",
                  "after a pause {x} brings {c}")  # fmt: skip
    text = drawn(frames, rng).format(x=name, c=course)
    if behind:
        text += drawn(
            (", with {} throughout", ", with {} in the background", " over {}"), rng
        ).format(behind)
    return sentence(text)
