"""`soundpost incidents`: what was noticed, who looks after it, and what became of it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.explain import print_explanation
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.monitoring.incidents import OnChange
    from soundpost.store.watch_tables import AuditEntry, Finding, Incident, IncidentRule, Rule
    from soundpost.store.windows import Stretch

Id = Annotated[int, typer.Argument(metavar="ID", help="An incident's id, see: soundpost incidents")]
Reason = Annotated[str | None, typer.Option("--reason", "-r", help="Why, for the history.")]
Actor = Annotated[
    str | None, typer.Option("--as", help="Who does it; the default is who you are logged in as.")
]


class State(StrEnum):
    """What an incident can be."""

    pending = "pending"
    open = "open"
    acknowledged = "acknowledged"
    resolved = "resolved"
    dismissed = "dismissed"


class Severity(StrEnum):
    """How grave an incident can be."""

    info = "info"
    warning = "warning"
    critical = "critical"


States = Annotated[list[State] | None, typer.Option("--state", help="Only these.")]
Severities = Annotated[list[Severity] | None, typer.Option("--severity", help="Only these.")]
OfSource = Annotated[str | None, typer.Option("--source", help="Only this source.")]
Since = Annotated[
    str | None, typer.Option(help="Only what fired from then on: 2026-11-21T04:30, in UTC.")
]
Limit = Annotated[int, typer.Option(min=0, help="How many at most; 0 lists all.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="See what was noticed, and say what became of it.")
    group.callback(invoke_without_command=True)(incidents_command)
    group.command("list")(list_command)
    group.command("show")(show_command)
    group.command("acknowledge")(acknowledge_command)
    group.command("accept")(accept_command)
    group.command("resolve")(resolve_command)
    group.command("dismiss")(dismiss_command)
    group.command("reopen")(reopen_command)
    group.command("note")(note_command)
    app.add_typer(group, name="incidents")


def who(actor: str | None) -> str:
    """Return who does something: as they say, or as they are logged in."""
    return actor or getpass.getuser()


def on_change(workspace: Workspace) -> OnChange:
    """Return what follows from the changes that a command makes to incidents."""
    from soundpost.monitoring.feedback import tell_and_learn

    return tell_and_learn(workspace.queue)


def incidents_command(context: typer.Context) -> None:
    """See what was noticed, and say what became of it; without a command: list it."""
    if context.invoked_subcommand is None:
        list_command()


def list_command(
    state: States = None,
    source: OfSource = None,
    severity: Severities = None,
    since: Since = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List incidents, the newest first."""
    from soundpost.archive.recorder_names import moment_from_text, zone_named
    from soundpost.store import incidents, sources

    moment = moment_from_text(since, zone_named("UTC")).at if since else None
    with open_workspace() as workspace, workspace.store.reading() as session:
        rows = incidents.find(
            session,
            states=[s.value for s in state] if state else None,
            source_id=sources.by_name(session, source).id if source else None,
            severities=[s.value for s in severity] if severity else None,
            since=moment,
            limit=limit or None,
        )
    if as_json:
        terminal.print_json([_document(row) for row in rows])
    elif rows:
        columns = ("id", "state", "severity", "source", "last heard", "told", "reason")
        terminal.print_rows(columns, [_row(row) for row in rows], below=("reason",))
    else:
        terminal.hint("No incidents, or none that meets the filters.")


def show_command(incident_id: Id, as_json: Json = False) -> None:
    """Show an incident with its rules, the windows that carry it, and its history.

    Windows are written as `soundpost clip` and `similar` take them: RECORDING@START-END. What differs
    is explained in full for the strangest of them, and in a sentence for the others.
    """
    with open_workspace() as workspace:
        show_incident(workspace, incident_id, as_json)


def show_incident(
    workspace: Workspace, incident_id: int, as_json: bool = False, explained: int | None = None
) -> None:
    """Print an incident; explained: how many findings at most. Raises UnknownIncidentError."""
    from soundpost.store import audit, incidents, windows

    with workspace.store.reading() as session:
        row = incidents.get(session, incident_id)
        parts = incidents.rules_of(session, [row.id])[row.id]
        findings = incidents.findings_of(session, row.id)
        history = audit.history(session, "incident", row.id)
        both = [(finding.window_id, finding.reference_window_id) for finding in findings]
        places = windows.stretches(session, [key for pair in both for key in pair])
    if as_json:
        document = {
            **_document(row),
            "rules": [_part_document(part, rule) for part, rule in parts],
            "findings": [_finding_document(finding, places) for finding in findings],
            "history": [_entry_document(entry) for entry in history],
        }
        terminal.print_json(document)
        return
    _print_incident(row)
    terminal.say()
    terminal.print_rows(
        ("rule", "kind", "times", "since", "last heard", "figure"),
        [_part_row(row, part, rule) for part, rule in parts],
        below=("figure",),
    )
    if findings:
        terminal.say()
        terminal.print_rows(
            ("heard", "beside", "at", "novelty", "difference"),
            [_finding_row(row, finding, places) for finding in findings],
            below=("difference",),
        )
        _print_explanations(findings, places, explained)
    terminal.say()
    terminal.print_rows(
        ("when", "who", "what", "why"),
        [(_clock(row, e.at), e.actor, e.action, e.reason or "") for e in history],
        below=("why",),
    )


def accept_command(incident_id: Id, reason: Reason = None, actor: Actor = None) -> None:
    """Take what an incident was about as normal: a new version of the baseline, used at once."""
    from soundpost.monitoring import baselines as making
    from soundpost.monitoring import feedback, watch
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace:
        with workspace.store.session() as session:
            made = feedback.accept_incident(
                session,
                workspace.queue,
                incident_id,
                who(actor),
                reason,
                now=utc_now(),
                on_change=on_change(workspace),
            )
        making.prepare(workspace.store, made.id)
        with workspace.store.session() as session:
            watch.begin_watching(session, made.id, who(actor), reason)
    terminal.say(f"Incident {incident_id} is normal from now on: version {made.version}.")


def acknowledge_command(incident_id: Id, reason: Reason = None, actor: Actor = None) -> None:
    """Say that you look after an open incident: it no longer escalates."""
    from soundpost.monitoring import review

    _act(review.acknowledge, incident_id, actor, reason)
    terminal.say(f"Incident {incident_id} is acknowledged.")


def resolve_command(incident_id: Id, reason: Reason = None, actor: Actor = None) -> None:
    """Say that an incident is over; if it fires again, another one opens."""
    from soundpost.monitoring import review

    _act(review.resolve, incident_id, actor, reason)
    terminal.say(f"Incident {incident_id} is resolved.")


def dismiss_command(
    incident_id: Id,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why it was a false alarm.")],
    actor: Actor = None,
) -> None:
    """Say that an incident was a false alarm; the source's calibration learns from it."""
    from soundpost.monitoring import review

    _act(review.dismiss, incident_id, actor, reason)
    terminal.say(f"Incident {incident_id} is dismissed; what goes on as it was is not told again.")


def reopen_command(incident_id: Id, reason: Reason = None, actor: Actor = None) -> None:
    """Take back that an incident was resolved or dismissed."""
    from soundpost.monitoring import review

    _act(review.reopen, incident_id, actor, reason)
    terminal.say(f"Incident {incident_id} is open again.")


def note_command(
    incident_id: Id,
    text: Annotated[str, typer.Argument(help="What is worth knowing.")],
    actor: Actor = None,
) -> None:
    """Add a remark to the history of an incident."""
    from soundpost.monitoring import review
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        review.note(session, incident_id, who(actor), text, now=utc_now())
    terminal.say(f"Noted with incident {incident_id}.")


def _act(
    action: Callable[..., Any], incident_id: int, actor: str | None, reason: str | None
) -> None:
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        action(
            session, incident_id, who(actor), reason, now=utc_now(), on_change=on_change(workspace)
        )


def _print_incident(row: Incident) -> None:
    told = f", nobody is told ({_suppressed(row)})" if row.suppressed_by else ""
    late = ", from a recording that came late" if row.late else ""
    terminal.say(f"Incident {row.id}: {row.state}, {row.severity}{told}{late}")
    terminal.say(terminal.printable(f"{row.source.name}: {row.reason}"))
    times = (
        ("began", row.pending_since),
        ("last heard", row.last_fired_at),
        ("acknowledged", row.acknowledged_at),
        ("escalated", row.escalated_at),
        ("closed", row.closed_at),
    )
    known = [f"{name} {_clock(row, moment)}" for name, moment in times if moment is not None]
    terminal.say(", ".join(known))


def _row(row: Incident) -> tuple[object, ...]:
    told = _suppressed(row) if row.suppressed_by else "yes" if row.told_at else ""
    heard = _clock(row, row.last_fired_at)
    return row.id, row.state, row.severity, row.source.name, heard, told, row.reason


def _suppressed(row: Incident) -> str:
    cause = row.suppressed_by or {}
    return f"held back by {cause.get('kind')} {cause.get('id')}"


def _clock(row: Incident, moment: Any) -> str:
    return terminal.wall_clock(moment, ZoneInfo(row.source.timezone))


def _part_row(row: Incident, part: IncidentRule, rule: Rule) -> tuple[object, ...]:
    since, last = _clock(row, part.first_fired_at), _clock(row, part.last_fired_at)
    return rule.name, rule.kind, part.times, since, last, part.reason


def _finding_row(
    row: Incident, finding: Finding, places: Mapping[int, Stretch]
) -> tuple[object, ...]:
    at = _clock(row, finding.heard_at)
    difference = (finding.measurements or {}).get("sentence", "")
    here, there = _place(finding.window_id, places), _place(finding.reference_window_id, places)
    return here, there, at, finding.novelty, difference


def _print_explanations(
    findings: Sequence[Finding], places: Mapping[int, Stretch], most: int | None
) -> None:
    """Print what differs in words, with what each claim was checked against; the strangest first."""
    told = [(finding, finding.explanation) for finding in findings]
    known = [(finding, words) for finding, words in told if words is not None]
    known.sort(key=lambda pair: -(pair[0].novelty or 0.0))
    for place, (finding, words) in enumerate(known[:most]):
        here = _place(finding.window_id, places) or "a deleted recording"
        there = _place(finding.reference_window_id, places) or "a deleted recording"
        terminal.say()
        terminal.say(f"{here} (audio 2), told apart from {there} (audio 1):")
        print_explanation(words, indent="  ", tiers=(1, 2, 3) if place == 0 else (1,))


def _place(window_id: int | None, places: Mapping[int, Stretch]) -> str:
    """Write where a window is; empty where it was deleted."""
    place = places.get(window_id) if window_id is not None else None
    return f"{place.recording_id}@{place.start_s:g}-{place.end_s:g}" if place else ""


def _document(row: Incident) -> dict[str, Any]:
    plain = ("id", "family", "state", "severity", "group_key", "reason", "evidence", "late")
    times = ("pending_since", "last_fired_at", "opened_at", "told_at", "acknowledged_at")
    document = {name: getattr(row, name) for name in (*plain, "suppressed_by")}
    document["source"] = row.source.name
    for name in (*times, "escalated_at", "closed_at"):
        document[name] = iso(getattr(row, name))
    return document


def _part_document(part: IncidentRule, rule: Rule) -> dict[str, Any]:
    plain = {name: getattr(part, name) for name in ("firing", "times", "reason", "evidence")}
    times = ("first_fired_at", "last_fired_at", "joined_at")
    about = {"rule_id": rule.id, "name": rule.name, "kind": rule.kind, "severity": rule.severity}
    return {**about, **plain, **{name: iso(getattr(part, name)) for name in times}}


def _finding_document(finding: Finding, places: Mapping[int, Stretch]) -> dict[str, Any]:
    names = ("id", "rule_id", "window_id", "reference_window_id", "novelty", "p_value")
    more = ("measurements", "explanation", "claims", "verdict", "reviewer", "note")
    plain = {name: getattr(finding, name) for name in (*names, *more)}
    here, there = _place(finding.window_id, places), _place(finding.reference_window_id, places)
    return {**plain, "heard": here, "beside": there, "heard_at": iso(finding.heard_at)}


def _entry_document(entry: AuditEntry) -> dict[str, Any]:
    plain = {name: getattr(entry, name) for name in ("id", "actor", "action", "reason", "detail")}
    return {**plain, "at": iso(entry.at)}


def iso(moment: Any) -> str | None:
    """Write a moment for JSON."""
    return moment.isoformat() if moment is not None else None
