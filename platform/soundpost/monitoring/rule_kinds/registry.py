"""The kinds of rules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from soundpost.errors import RuleSettingsError
from soundpost.monitoring.rule_kinds.health import Clock, Format, Microphone, Stalled
from soundpost.monitoring.rule_kinds.levels import Level, Silence, Tag
from soundpost.monitoring.rule_kinds.listening import Exemplar, Novelty, Text
from soundpost.monitoring.rules import (
    INHIBITED_KINDS,
    Alarm,
    Kind,
    SequentialTest,
    Tools,
)

_Read = Callable[[Mapping[str, Any], Tools], Kind]
KINDS: Final[Mapping[str, _Read]] = {
    "novelty": Novelty.read,
    "text": Text.read,
    "exemplar": Exemplar.read,
    "level": Level.read,
    "tag": Tag.read,
    "silence": Silence.read,
    "microphone": Microphone.read,
    "stalled": Stalled.read,
    "format": Format.read,
    "clock": Clock.read,
}
# They look at time itself, or keep their own account of its order.
TICKING: Final = frozenset({"stalled"})
IN_ANY_ORDER: Final = frozenset({"clock", "stalled"})


def make_kind(name: str, settings: Mapping[str, Any], tools: Tools) -> Kind:
    """Make a kind of rule with its settings. Raises RuleSettingsError."""
    if name not in KINDS:
        raise RuleSettingsError(name, f"the kinds are {', '.join(KINDS)}")
    return KINDS[name](settings, tools)


def check_rule(name: str, settings: Mapping[str, Any], for_s: float = 0.0) -> None:
    """Raise RuleSettingsError for a kind, settings or a time to hold that make no sense."""
    make_kind(name, settings, Tools(_no_test))
    if for_s > 0.0 and name in INHIBITED_KINDS:
        detail = "a rule with a budget weighs by itself how long it goes on; leave for_s at 0"
        raise RuleSettingsError(f"for_s={for_s:g}", detail)


class _NoTest:
    """A test that is never asked: settings are only read."""

    def step(self, p_value: float, duration_s: float, window_id: int = 0) -> Alarm | None:
        return None

    def to_document(self) -> dict[str, Any]:
        return {}


def _no_test(budget_s: float, document: Mapping[str, Any] | None) -> SequentialTest:
    return _NoTest()
