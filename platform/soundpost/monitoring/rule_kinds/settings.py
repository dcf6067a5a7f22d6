"""Reading the settings of a rule: a JSON document, checked member by member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from soundpost.errors import RawSimilarityError, RuleSettingsError

# Names under which people look for a threshold on a cosine.
_RAW_SIMILARITY = frozenset({"similarity", "min_similarity", "threshold", "cosine", "min_score"})
DAY_S = 86_400.0
LONGEST_S = 3.2e9


class SettingsReader:
    """Reads members of one settings document; `close` refuses what nobody asked for.

    Every method raises RuleSettingsError with the member, its value and what it should be.
    """

    def __init__(self, kind: str, document: Mapping[str, Any]) -> None:
        self._kind = kind
        self._document = document
        self._read: set[str] = set()

    def number(self, name: str, default: float | None, low: float, high: float) -> float:
        """A number from low to high; default None: it must be given."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, value, "a number")
        if not low <= value <= high:
            raise self.wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def optional_number(self, name: str, low: float, high: float) -> float | None:
        """A number, or None where it is not given."""
        if self._document.get(name) is None:
            self._read.add(name)
            return None
        return self.number(name, None, low, high)

    def whole(self, name: str, default: int | None, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self.number(name, default, low, high)
        if value != int(value):
            raise self.wrong(name, value, "a whole number")
        return int(value)

    def word(self, name: str, default: str | None, longest: int = 1000) -> str:
        """A text that is not empty."""
        value = self._value(name, default)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self.wrong(name, value, "a text that can be read")
        if len(value) > longest:
            raise self.wrong(name, f"{len(value)} characters", f"at most {longest} long")
        return value

    def choice(self, name: str, default: str | None, choices: Iterable[str]) -> str:
        """One of some words."""
        value = self._value(name, default)
        if value not in tuple(choices):
            raise self.wrong(name, value, f"one of {', '.join(choices)}")
        return str(value)

    def refuse_raw_similarity(self) -> None:
        """Refuse a threshold on a cosine, and say what takes its place.

        Raises RawSimilarityError.
        """
        for name in _RAW_SIMILARITY & self._document.keys():
            raise RawSimilarityError(f"{name}={self._document[name]}")

    def close(self) -> None:
        """Refuse members that nobody read."""
        for name in sorted(map(str, self._document.keys() - self._read)):
            known = ", ".join(sorted(self._read)) or "none"
            raise RuleSettingsError(name, f"a rule of the kind {self._kind} knows: {known}")

    def wrong(self, name: str, value: object, wanted: str) -> RuleSettingsError:
        """Return the error about a member."""
        shown = "nothing" if value is None else repr(value)[:100]
        return RuleSettingsError(f"{name}={shown}", f"{name} is {wanted}")

    def _value(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self._document.get(name)
        return default if value is None else value
