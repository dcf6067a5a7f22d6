"""Times as people type and read them: 45s, 10m, 12h, 7d, 2w."""

from __future__ import annotations

import re

from soundpost.errors import InvalidValueError

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_TYPED = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")


def read_duration_s(text: str) -> float:
    """Read "90", "10m" or "7d" as seconds. Raises InvalidValueError."""
    typed = _TYPED.fullmatch(text.strip())
    seconds = float(typed[1]) * _UNITS_S[typed[2]] if typed else 0.0
    if not 0.0 < seconds < 1e11:
        raise InvalidValueError(text, "a time is written as 45s, 10m, 12h, 7d or 2w")
    return seconds


def duration(seconds: float) -> str:
    """Write seconds in the unit that fits: 45 s, 10 min, 12.5 h, 7 days."""
    for limit, unit_s, name in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.3g} {name}"
    return (
        f"{seconds / 86_400.0:,.3g} days" if seconds < 8.64e7 else f"{seconds / 86_400.0:,.0f} days"
    )
