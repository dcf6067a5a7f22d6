"""What the command line prints, and where: tables for people, tab-separated lines for pipes, JSON.

Results go to stdout; errors, progress and hints go to stderr, so that a pipe gets only results.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from soundpost.errors import SoundpostError

BAR_CELLS = 10
_GAP = "  "


def out() -> Console:
    """Return the console of results; nothing is wrapped or cut when it is not a terminal."""
    return Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)


def err() -> Console:
    """Return the console of errors, hints and progress."""
    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


def say(text: str | Text = "") -> None:
    """Print one line of a result."""
    out().print(text)


def hint(text: str | Text) -> None:
    """Print one line for a person, beside the result."""
    err().print(text)


@contextmanager
def showing_logs() -> Iterator[None]:
    """Print what Soundpost logs beside the result, a line each, for the length of a command."""
    handler, logger = _LogLines(), logging.getLogger("soundpost")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _LogLines(logging.Handler):
    """Writes time, level, message and what is known beside it."""

    def emit(self, record: logging.LogRecord) -> None:
        known = {key: value for key, value in vars(record).items() if key not in _OF_EVERY_RECORD}
        facts = "".join(f" {key}={_fact(value)}" for key, value in known.items())
        moment = datetime.fromtimestamp(record.created).astimezone()
        line = f"{moment:%H:%M:%S} {record.levelname.lower()}: {record.getMessage()}{facts}"
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        hint(printable(line))


_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _fact(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text


def print_json(document: Any) -> None:
    """Print a JSON document; characters that no encoding has are escaped."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_error(error: SoundpostError) -> None:
    """Print an error as two lines: code and message, then the remedy."""
    console = err()
    console.print(Text.assemble(("error ", "bold red"), f"[{error.code}] {printable(str(error))}"))
    console.print(Text.assemble(("remedy: ", "bold"), error.remedy))


def print_rows(
    columns: Sequence[str], rows: Sequence[Sequence[object]], below: Sequence[str] = ()
) -> None:
    """Print rows: a table at a terminal, tab-separated values with a header in a pipe.

    Where a terminal is too narrow, the columns named by `below` get lines of their own.
    """
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    if not sys.stdout.isatty():
        lines = ["\t".join(cell.replace("\t", " ") for cell in row) for row in [columns, *cells]]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    fits = sum(widths) + len(_GAP) * (len(widths) - 1) <= out().width
    beside = [place for place, name in enumerate(columns) if fits or name not in below]
    under = [place for place, name in enumerate(columns) if not fits and name in below]
    say(Text(_GAP.join(_padded(columns[place], widths[place]) for place in beside), style="bold"))
    for row in cells:
        say(_GAP.join(_padded(row[place], widths[place]) for place in beside).rstrip())
        for place in under:
            if row[place]:
                say(f"    {row[place]}")


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))


def printable(text: str) -> str:
    """Replace what a terminal must not see: control characters and undecodable bytes."""
    decoded = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in decoded)


def short_path(path: str) -> str:
    """Write a path relative to the current folder if it lies below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


def clock(seconds: float, digits: int = 0) -> str:
    """Write seconds as m:ss or h:mm:ss, with decimals if asked for."""
    unit = 10**digits
    ticks = round(seconds * unit)
    whole, fraction = divmod(ticks, unit)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
    return f"{text}.{fraction:0{digits}d}" if digits else text


def wall_clock(moment: datetime | None, zone: tzinfo) -> str:
    """Write a moment as date, time and zone; empty if unknown."""
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" if moment else ""


def bar(share: float) -> str:
    """Draw a share between 0 and 1."""
    filled = round(max(0.0, min(1.0, share)) * BAR_CELLS)
    return "█" * filled + "·" * (BAR_CELLS - filled)


def size(count: float) -> str:
    """Write a number of bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
