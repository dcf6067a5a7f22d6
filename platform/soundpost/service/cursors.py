"""Cursors: where a page ended, as an opaque text.

A cursor names the last row that was shown, not how many, so that rows that are added or deleted
while somebody turns the pages neither double nor hide others.
"""

from __future__ import annotations

import base64
import re

from soundpost.errors import InvalidValueError
from soundpost.service.schemas import LARGEST_ID

_PLAIN = re.compile(r"([a-z]+)([<>])([1-9]\d{0,18})", re.ASCII)


def write_cursor(kind: str, last_id: int, newest_first: bool) -> str:
    """Return the cursor behind a row of a list of this kind."""
    plain = f"{kind}{'<' if newest_first else '>'}{last_id}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, kind: str, newest_first: bool) -> int | None:
    """Return the id to go on behind, None without a cursor.

    Raises InvalidValueError for one of another list or another order, and for anything else.
    """
    if cursor is None:
        return None
    match = _PLAIN.fullmatch(_decode(cursor))
    if match is None or match[1] != kind or (match[2] == "<") != newest_first:
        raise InvalidValueError(cursor, f"not a cursor of these {kind}")
    last_id = int(match[3])
    if last_id > LARGEST_ID:
        raise InvalidValueError(cursor, f"not a cursor of these {kind}")
    return last_id


def _decode(cursor: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        return ""
