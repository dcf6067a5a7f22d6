"""Detection over level, drawn: as text for a terminal, as SVG for a page or a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from soundpost.monitoring.drill_results import Curve, Drilled

_CELLS = "▁▂▃▄▅▆▇█"
_ROWS = 10
_CELLS_A_LEVEL = 7
_MARKS = {"short": "●", "lasting": "○"}
_BOTH = "◉"
# Colours that the colour-blind can tell apart (Okabe and Ito), seen on white and on near black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#7f7f7f")
_STYLE = """
  .ground { fill: #ffffff; } .ink { fill: #1a1a1a; } .rule { stroke: #d9d9d9; }
  .mark { stroke: #1a1a1a; stroke-dasharray: 2 4; }
  text { font: 13px system-ui, sans-serif; } .title { font-weight: 600; font-size: 15px; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #16181d; } .ink { fill: #e8e8e8; } .rule { stroke: #3a3d45; }
    .mark { stroke: #e8e8e8; }
  }
"""
_LEFT, _TOP, _WIDTH, _HEIGHT, _KEY = 64.0, 64.0, 520.0, 300.0, 190.0


def spark(values: Sequence[float]) -> str:
    """Draw shares between 0 and 1, a character each."""
    top = len(_CELLS) - 1
    return "".join(_CELLS[round(max(0.0, min(1.0, value)) * top)] for value in values)


def text_plot(curves: Sequence[Curve]) -> list[str]:
    """Draw one curve of each kind as lines of text: share caught upwards, level to the right."""
    levels = curves[0].levels_db
    lines = []
    for row in range(_ROWS, -1, -1):
        share = row / _ROWS
        cells = "".join(_cell(curves, place, row) for place in range(len(levels)))
        rule = f"{share:4.0%} ┤" if row % 5 == 0 or row == 9 else "     │"
        lines.append((rule + cells).rstrip())
    lines.append("     └" + "─" * (_CELLS_A_LEVEL * len(levels)))
    lines.append(
        "      " + "".join(f"{level:+.0f}".center(_CELLS_A_LEVEL) for level in levels).rstrip()
    )
    key = ", ".join(f"{_MARKS[curve.kind]} {curve.kind} sounds" for curve in curves)
    both = f", {_BOTH} both" if len(curves) > 1 else ""
    return [*lines, f"      dB over the background; {key}{both}"]


def _cell(curves: Sequence[Curve], place: int, row: int) -> str:
    here = [_MARKS[curve.kind] for curve in curves if round(curve.fitted[place] * _ROWS) == row]
    mark = _BOTH if len(here) > 1 else here[0] if here else " "
    return mark.center(_CELLS_A_LEVEL)


def svg_plot(drilled: Drilled) -> str:
    """Draw every curve as a document of its own; it follows a viewer's dark or light scheme."""
    width, height = _LEFT + _WIDTH + _KEY, _TOP + _HEIGHT + 64.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        + f'width="{width:g}" height="{height:g}" role="img">',
        f"<title>Drill of {escape(drilled.source)}: detection over level</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{width:g}" height="{height:g}"/>',
        _text(_LEFT, 28.0, f"New sounds at {drilled.source}: how many are noticed", "ink title"),
        _text(_LEFT, 47.0, _subtitle(drilled)),
        *_axes(drilled.curves[0].levels_db if drilled.curves else (0.0, 1.0)),
        *_lines(drilled.curves),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _subtitle(drilled: Drilled) -> str:
    return (
        f"{drilled.untouched.copies} copies, baseline version {drilled.version}; untouched copies "
        + f"with an alarm: {drilled.untouched.alarmed}"
    )


def _text(x: float, y: float, text: str, kind: str = "ink", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _x(level_db: float, levels_db: Sequence[float]) -> float:
    span = levels_db[-1] - levels_db[0]
    return _LEFT + (_WIDTH * (level_db - levels_db[0]) / span if span else _WIDTH / 2.0)


def _y(share: float) -> float:
    return _TOP + _HEIGHT * (1.0 - share)


def _axes(levels_db: Sequence[float]) -> list[str]:
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    drawn = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn.append(_line(_LEFT, _y(share), right, _y(share), "rule"))
        drawn.append(_text(_LEFT - 8.0, _y(share) + 4.0, f"{share:.0%}", anchor="end"))
    drawn.append(_line(_LEFT, _y(0.9), right, _y(0.9), "mark"))
    drawn.append(_text(right + 6.0, _y(0.9) + 4.0, "90 %"))
    for level_db in levels_db:
        x = _x(level_db, levels_db)
        drawn.append(_line(x, bottom, x, bottom + 5.0, "rule"))
        drawn.append(_text(x, bottom + 20.0, f"{level_db:+g}", anchor="middle"))
    drawn.append(
        _text(_LEFT + _WIDTH / 2.0, bottom + 44.0, "dB over the background", anchor="middle")
    )
    return drawn


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _lines(curves: Sequence[Curve]) -> list[str]:
    """Draw each sound in a colour of its name; what lasts is dashed, all together is thick."""
    names = list(dict.fromkeys(curve.change for curve in curves))
    drawn = []
    for row, curve in enumerate(curves):
        colour = _COLOURS[names.index(curve.change) % len(_COLOURS)]
        dash = ' stroke-dasharray="7 4"' if curve.kind == "lasting" else ""
        look = f'fill="none" stroke="{colour}" stroke-width="{4 if curve.together else 2}"{dash}'
        places = zip(curve.levels_db, curve.fitted, strict=True)
        points = " ".join(f"{_x(db, curve.levels_db):.1f},{_y(p):.1f}" for db, p in places)
        x, y = _LEFT + _WIDTH + 20.0, _TOP + 62.0 + 21.0 * row
        drawn.append(f'<polyline points="{points}" {look}/>')
        drawn.append(f'<polyline points="{x:g},{y - 4:g} {x + 30:g},{y - 4:g}" {look}/>')
        drawn.append(_text(x + 38.0, y, f"{curve.change}, {curve.kind}"))
    return drawn
