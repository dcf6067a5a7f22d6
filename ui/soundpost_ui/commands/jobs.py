"""`soundpost jobs` and `status`: what is waiting, running or stuck, and how it goes on."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.store.jobs import State as StateName
    from soundpost.store.tables import Job

# A worker that took, held or ended a job within this time is shown.
_RECENT = timedelta(minutes=10)


class State(StrEnum):
    """What a job can be."""

    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("jobs")(jobs_command)
    app.command("status")(status_command)


def jobs_command(
    state: Annotated[State | None, typer.Option(help="Only these.", show_default=False)] = None,
    retry: Annotated[
        list[int] | None, typer.Option(help="Run a failed or cancelled job again.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run all failed jobs again.")
    ] = False,
    cancel: Annotated[list[int] | None, typer.Option(help="End an unfinished job.")] = None,
    traceback: Annotated[
        int | None, typer.Option(help="Show the last failure of a job in full.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 lists all.")] = 50,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first; run them again or cancel them."""
    from soundpost.store import jobs

    with open_workspace() as workspace:
        if traceback is not None:
            _show_failure(workspace, traceback)
            return
        _change(workspace, retry or [], retry_failed, cancel or [])
        wanted: StateName | None = state.value if state else None
        with workspace.store.reading() as session:
            rows = jobs.find(session, state=wanted, limit=limit or None, newest_first=True)
            total = sum(
                count
                for (_, known), count in jobs.counts(session).items()
                if wanted in (None, known)
            )
    if as_json:
        terminal.print_json({"total": total, "jobs": [_document(row) for row in rows]})
        return
    if not rows:
        terminal.say("No jobs.")
        return
    columns = ("id", "kind", "state", "tries", "due", "error")
    more = [f"{total:,} in all; --limit 0 shows them."] if total > len(rows) else []
    terminal.print_rows(columns, [_row(row) for row in rows], more)


def status_command(as_json: Json = False) -> None:
    """Show in a few lines whether everything that came in is done, and what holds it up."""
    from soundpost.store import incidents, jobs, recordings
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.reading() as session:
        counts, noticed = jobs.counts(session), incidents.counts(session)
        document: dict[str, Any] = {
            "jobs": {
                state: sum(count for (_, known), count in counts.items() if known == state)
                for state in State
            },
            "recordings": {
                status: recordings.count(session, status=status)
                for status in ("queued", "embedding", "embedded", "failed")
            },
            "incidents": {
                state: sum(count for (known, _), count in noticed.items() if known == state)
                for state in ("pending", "open", "acknowledged")
            },
            "oldest_waiting_s": jobs.oldest_waiting_s(session),
            "workers": [
                {
                    "worker": sign.worker,
                    "seen_at": sign.seen_at.isoformat(),
                    "running": sign.running,
                }
                for sign in jobs.workers(session, utc_now() - _RECENT)
            ],
        }
    if as_json:
        terminal.print_json(document)
        return
    for name in ("jobs", "recordings", "incidents"):
        listed = ", ".join(f"{count:,} {state}" for state, count in document[name].items())
        terminal.say(f"{name}: {listed}")
    _advise(document)


def _advise(document: dict[str, Any]) -> None:
    waiting_s = document["oldest_waiting_s"]
    signs = [f"{sign['worker']} ({sign['running']} jobs)" for sign in document["workers"]]
    terminal.say(f"workers: {', '.join(signs) or 'none seen for ten minutes'}")
    if waiting_s is not None:
        terminal.say(f"oldest waiting: {waiting_s:.0f} s")
    if waiting_s is not None and waiting_s > 60 and not document["workers"]:
        terminal.say("Nobody works on what waits. Start a worker: soundpost up")
    if document["jobs"]["failed"]:
        terminal.say("See what failed: soundpost jobs --state failed")
    if document["incidents"]["open"]:
        terminal.say("See what was noticed: soundpost incidents")


def _change(workspace: Workspace, retry: list[int], all_failed: bool, cancel: list[int]) -> None:
    from soundpost.store import jobs

    with workspace.store.session() as session:
        if all_failed:
            retry = [job.id for job in jobs.find(session, state="failed", limit=None)]
        for job_id in retry:
            workspace.queue.retry(session, job_id)
        for job_id in cancel:
            jobs.cancel(session, job_id)


def _show_failure(workspace: Workspace, job_id: int) -> None:
    from soundpost.store import jobs

    with workspace.store.reading() as session:
        job = jobs.get(session, job_id)
    terminal.say(job.error_detail or "This job has not failed.")


def _row(job: Job) -> tuple[object, ...]:
    tries = f"{job.attempts}/{job.max_attempts}"
    due = job.due_at.strftime("%Y-%m-%d %H:%M:%S")
    return job.id, job.key, job.state, tries, due, job.error_code or ""


def _document(job: Job) -> dict[str, Any]:
    fields = ("id", "kind", "key", "queue", "state", "attempts", "max_attempts", "worker")
    times = ("due_at", "created_at", "started_at", "finished_at")
    document: dict[str, Any] = {name: getattr(job, name) for name in fields}
    for name in times:
        moment = getattr(job, name)
        document[name] = moment.isoformat() if moment else None
    return {**document, "error_code": job.error_code, "error_detail": job.error_detail}
