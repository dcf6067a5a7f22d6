"""`soundpost watch`: do the watching that waits, here and now, and say what was noticed."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from soundpost_workers.explain import ExplainTools
    from soundpost_workers.notify import Courier
    from soundpost_workers.watch import WatchTools
    from soundpost_workers.watch_here import Noticed, NoticedChange, Outcome, PreparedHere


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch_command)


def watch_command(
    source: Annotated[
        str | None, typer.Argument(help="Only its recordings; default: those of every source.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch the recordings that wait for it, here and now, and say what was noticed.

    It needs no running installation, and does no harm beside one: each recording is watched once.
    Baselines that wait are prepared first, and whoever is to be told is told at the end.
    """
    with open_workspace() as workspace:
        run_watch(workspace, source, as_json)


def run_watch(workspace: Workspace, source: str | None, as_json: bool = False) -> None:
    """Watch what waits, of one source or of all, and print what was noticed."""
    from soundpost_workers.watch_here import watch_here

    noticed: list[Noticed] = []

    def notice(found: Noticed) -> None:
        noticed.append(found)
        if not as_json:
            _print(found)

    explaining = explain_tools(workspace)
    outcome = watch_here(_tools(workspace), _courier(workspace), source, notice, explaining)
    if as_json:
        terminal.print_json(_document(noticed, outcome))
    else:
        _print_outcome(noticed, outcome)


def _tools(workspace: Workspace) -> WatchTools:
    from soundpost.jobs import JobQueue, NoSender
    from soundpost.monitoring.feedback import explain_findings, tell_and_learn
    from soundpost.monitoring.watch import Watcher
    from soundpost_workers.watch import WatchTools

    def embed_text(text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = workspace.encoder.embed_text([text])[0]
        return vector

    settings, store = workspace.settings, workspace.store
    # What is not done here is left to workers, which find it by themselves.
    queue = JobQueue.of(settings, NoSender())
    watcher = Watcher(store, tell_and_learn(queue), embed_text, explain_findings(queue))
    return WatchTools(settings, store, queue, watcher, _name())


def _courier(workspace: Workspace) -> Courier:
    from soundpost_workers.notify import Courier

    return Courier(workspace.settings, workspace.store, workspace.objects, _name())


def explain_tools(workspace: Workspace) -> ExplainTools:
    """What findings are explained with and recordings are captioned with, here and now."""
    from soundpost_workers.explain import ExplainTools

    return ExplainTools(
        settings=workspace.settings,
        store=workspace.store,
        files=workspace.objects,
        explainer=lambda: workspace.explainer,
        captioner=lambda: workspace.captioner,
        worker=_name(),
    )


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


# --- how it is shown --------------------------------------------------------------------------


def _print(found: Noticed) -> None:
    if found.source is None or found.began_at is None:
        terminal.say(f"recording {found.recording_id}: deleted, nothing to watch")
        return
    windows = terminal.plural(found.windows, "window")
    how = f"{windows} scored" if found.scored else f"{windows}, no baseline to score by"
    began = terminal.wall_clock(found.began_at, UTC)
    terminal.say(f"{_safe(found.source)}: recording {found.recording_id}, {began}, {how}")
    for change in found.changes:
        terminal.say(f"  {_sentence(change)}")


def _sentence(change: NoticedChange) -> str:
    reason = f": {_safe(change.reason)}" if change.reason else ""
    return f"incident {change.incident_id} {change.kind}{reason}"


def _print_outcome(noticed: list[Noticed], outcome: Outcome) -> None:
    for made in outcome.prepared:
        terminal.say(_prepared(made))
    for change in outcome.passed:
        terminal.say(f"{_safe(change.source)}: {_sentence(change)}")
    changes = [change for found in noticed for change in found.changes] + list(outcome.passed)
    opened = sum(change.kind == "opened" for change in changes)
    resolved = sum(change.kind == "resolved" for change in changes)
    recordings = terminal.plural(outcome.watched, "recording")
    terminal.say(
        f"{recordings} watched, {terminal.plural(opened, 'incident')} opened, {resolved} resolved,"
        f" {terminal.plural(outcome.delivered, 'notification')} delivered"
    )
    if outcome.explained:
        terminal.say(f"{terminal.plural(outcome.explained, 'finding')} explained")
    for job in outcome.waiting:
        why = f"[{job.error_code}] {_safe(job.error or '')}" if job.error_code else _WAITS[job.kind]
        how = "failed" if job.failed else "still waits"
        terminal.hint(f"Job {job.job_id} ({job.kind}) {how}: {why}")
        if job.failed:
            terminal.hint(f"Once that is mended: soundpost jobs --retry {job.job_id}")


_WAITS = {
    "watch": "an earlier recording is on its way, or a worker has it",
    "baseline": "a worker has it",
    "explain": "a worker has it",
}


def _prepared(made: PreparedHere) -> str:
    error = f" [{made.error_code}] {_safe(made.error_detail or '')}" if made.error_code else ""
    return f"{_safe(made.source)}: version {made.version} of its baseline is {made.state}{error}"


def _safe(text: str) -> str:
    return terminal.printable(text)


def _document(noticed: list[Noticed], outcome: Outcome) -> dict[str, Any]:
    return {"noticed": [_plain(asdict(found)) for found in noticed], **_plain(asdict(outcome))}


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in document.items()
    }
