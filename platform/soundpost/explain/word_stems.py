"""Words of a text with their places, cut to stems: plural and verb forms of a word are one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_ARTICLES = frozenset({"a", "an", "the", "some", "its", "their"})
_SKIPPED = _ARTICLES | frozenset(
    {"is", "are", "was", "were", "be", "being", "been", "someone's", "up"}
)
_IRREGULAR = {
    "children": "child",
    "kids": "child",
    "kid": "child",
    "men": "man",
    "women": "woman",
    "people": "person",
    "persons": "person",
    "someone": "person",
    "somebody": "person",
    "spoke": "speak",
    "spoken": "speak",
    "rang": "ring",
    "rung": "ring",
    "blew": "blow",
    "blown": "blow",
    "sang": "sing",
    "sung": "sing",
    "fell": "fal",
    "flew": "fly",
    "flies": "fly",
    "flown": "fly",
    "broke": "break",
    "broken": "break",
    "mice": "mouse",
    "teeth": "tooth",
    "wolves": "wolf",
    "knives": "knife",
    "leaves": "leav",
    "sawn": "saw",
    "cries": "cry",
    "crowing": "crowing",
    "crowed": "crowing",
    "gas": "gas",
    "bus": "bus",
    "glass": "glas",
    "speech": "speech",
    "fired": "fired",
    "firing": "fired",
    "fires": "fir",
}
_VOWEL = re.compile(r"[aeiouy]")
_DOUBLE = re.compile(r"([a-z])\1$")


@dataclass(frozen=True)
class Word:
    """One word of a text; apart: something other than a space stands before it."""

    stem: str
    start: int
    end: int
    apart: bool
    skipped: bool
    article: bool


def words_of(text: str) -> list[Word]:
    """Return the words of a text in order."""
    words: list[Word] = []
    end = 0
    for match in _WORD.finditer(text):
        lower = match.group().lower()
        gap = text[end : match.start()]
        apart = bool(gap.strip(" \n\t-")) and end > 0
        skipped, article = lower in _SKIPPED, lower in _ARTICLES
        words.append(Word(stem(lower), match.start(), match.end(), apart, skipped, article))
        end = match.end()
    return words


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Cut the ending of a lower-case word: "barks", "barking" and "barked" are all "bark"."""
    word = re.sub(r"['\u2019]s?$", "", word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return _bare(_without_ending(word))


def _without_ending(word: str) -> str:
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:s|x|z|ch|sh)es$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    for ending in ("ing", "ed"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and len(rest) > 2 and _VOWEL.search(rest):
            return rest
    return word


def _bare(word: str) -> str:
    """Cut a final e and halve a double consonant, which endings bring and take away."""
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    return _DOUBLE.sub(r"\1", word) if len(word) > 3 else word
