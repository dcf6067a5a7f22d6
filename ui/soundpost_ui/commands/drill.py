"""`soundpost drill`: would a change at this source be noticed?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost.errors import InvalidValueError, OutputExistsError
from soundpost_ui import terminal
from soundpost_ui.commands.baseline import SourceArgument
from soundpost_ui.commands.search import Json
from soundpost_ui.drill_plot import spark, svg_plot, text_plot
from soundpost_ui.durations import duration, read_duration_s
from soundpost_ui.progress import showing_share
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.monitoring.drill import DrillOptions
    from soundpost.monitoring.drill_results import ChangeResult, Curve, Delays, Drilled, Untouched


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drill")(drill_command)


def drill_command(
    source: SourceArgument,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Four times as many copies, twice as long.")
    ] = False,
    copies: Annotated[
        int | None, typer.Option(help="How many copies; default: 12, thorough: 48.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Instead of the source's own budget: 30d, 12h.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number makes other sounds.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write the curves to this SVG file.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the plot.")] = False,
    as_json: Json = False,
) -> None:
    """Change copies of a source's reference recordings, and see what would be noticed.

    Nothing is written but the plot: no score, no incident. Takes about two minutes.
    """
    if plot is not None:
        _check(plot, force)
    with open_workspace() as workspace:
        options = _options(thorough, copies, budget, seed)
        drilled = _drill(workspace, source, options)
    if plot is not None:
        _write(plot, svg_plot(drilled))
    if as_json:
        terminal.print_json(drilled.to_document())
        return
    print_drilled(drilled)
    if plot is not None:
        terminal.say(f"\nThe curves are in {plot}")


def _options(thorough: bool, copies: int | None, budget: str | None, seed: int) -> DrillOptions:
    from soundpost.monitoring.drill import THOROUGH, DrillOptions

    chosen = replace(THOROUGH if thorough else DrillOptions(), seed=seed)
    if copies is not None:
        chosen = replace(chosen, copies=copies)
    return replace(chosen, budget_s=read_duration_s(budget)) if budget is not None else chosen


def _drill(workspace: Workspace, source: str, options: DrillOptions) -> Drilled:
    from soundpost.archive.waves import WaveEmbedder
    from soundpost.monitoring.drill import drill

    encoder = workspace.encoder
    embed = WaveEmbedder(encoder, workspace.settings.batch_size)
    with showing_share("trials") as report:
        return drill(
            workspace.store, workspace.objects, source, embed, encoder.spec, options, report
        )


def _check(path: Path, force: bool) -> None:
    """Raise what writing would raise, before minutes of work."""
    if path.exists() and not force:
        raise OutputExistsError(path)
    if not path.parent.is_dir():
        raise InvalidValueError(path, "there is no such folder")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidValueError(path, f"cannot be written: {error.strerror}") from error


# --- how it is shown --------------------------------------------------------------------------


def print_drilled(drilled: Drilled) -> None:
    """Print what a drill found, for a person."""
    terminal.say(
        f"{drilled.source}, version {drilled.version}: {terminal.plural(drilled.untouched.copies, 'copy', 'copies')}"
        f" of {drilled.copy_s:.0f} s from {drilled.tested} of {drilled.recordings} recordings,"
        f" {len(drilled.trials):,} trials"
    )
    terminal.say(
        f"  one false alarm in {duration(drilled.budget_s)} is allowed; a change was heard for"
        f" {drilled.heard_after_s:.0f} s"
    )
    terminal.say(f"  untouched: {_untouched(drilled.untouched)}")
    for kind, title in _TITLES.items():
        own = [curve for curve in drilled.curves if curve.kind == kind]
        if own:
            terminal.say(f"\n{title}")
            _print_curves(own)
    if drilled.changes:
        terminal.say("\nOther changes, from a moment on")
        _print_changes(drilled.changes)
    together = [curve for curve in drilled.curves if curve.together]
    if together:
        terminal.say("\nCaught, of all sounds together")
        for line in text_plot(together):
            terminal.say(line)
    _print_caveats(drilled)


_TITLES = {
    "short": "New sounds of 1.5 s: caught, by level over the background in dB",
    "lasting": "New sounds that stay: caught, by level over the background in dB",
}


def _untouched(untouched: Untouched) -> str:
    heard = duration(untouched.heard_s)
    alarms = terminal.plural(untouched.alarms, "false alarm")
    return (
        f"{alarms} in {heard}; {untouched.alarmed} of {untouched.copies} copies would have counted"
        " as detected by chance"
    )


def _print_curves(curves: list[Curve]) -> None:
    levels = [f"{level:+.0f}" for level in curves[0].levels_db]
    columns = ("sound", *levels, "curve", "90 % from", "delay")
    rows = [
        (
            curve.change,
            *(f"{share:.0%}" for share in curve.shares),
            spark(curve.fitted),
            level_range(curve),
            _delay(curve.delays),
        )
        for curve in curves
    ]
    terminal.print_rows(columns, rows, below=("delay",))


def _print_changes(changes: tuple[ChangeResult, ...]) -> None:
    columns = ("change", "caught", "", "fast", "slow", "delay")
    rows = [
        (
            row.change,
            f"{row.found} of {row.trials}",
            terminal.bar(row.share),
            row.fast,
            row.slow,
            _delay(row.delays),
        )
        for row in changes
    ]
    terminal.print_rows(columns, rows)


def level_range(curve: Curve) -> str:
    """Say from which level on 90 % are caught, and how sure that is."""
    if curve.level_db == float("inf"):
        return "not reached"
    low, high = _level(curve, curve.low_db), _level(curve, curve.high_db)
    return f"{_level(curve, curve.level_db)} dB [{low}, {high}]"


def _level(curve: Curve, level_db: float) -> str:
    if level_db == float("inf"):
        return f"> {curve.levels_db[-1]:+.0f}"
    return f"{level_db:+.0f}" if level_db > float("-inf") else f"≤ {curve.levels_db[0]:+.0f}"


def _delay(delays: Delays | None) -> str:
    if delays is None:
        return "-"
    unit = "window" if delays.windows == 1 else "windows"
    interval = f"[{delays.low_s:.0f}, {delays.high_s:.0f}]"
    return f"{delays.median_s:.0f} s {interval}, {delays.windows:g} {unit}"


def _print_caveats(drilled: Drilled) -> None:
    terminal.say(
        f"\nJudged by a baseline of {drilled.fitted_share:.0%} of the recordings that never heard"
        " the ones tested;"
    )
    terminal.say(
        "the real one knows more. What a part knows sets its thresholds, and short sounds depend on"
        " them most:"
    )
    for part in drilled.parts:
        terminal.say(
            f"  part {part.part}: {part.loudest_found} of {part.loudest} short sounds at the greatest"
            f" level, fast threshold {part.fast_threshold:,.3g} times the budget"
        )
    terminal.say(f"Brackets: 95 % over recordings, not over the parts; seed {drilled.seed}.")
    terminal.say(
        "Delays are those of what was caught, to the end of the window that raised the alarm."
    )
    for note in drilled.notes:
        terminal.say(f"note: {note}")
    for gone in drilled.gone:
        terminal.say(f"left out: recording {gone.recording_id} [{gone.code}] {gone.detail}")
