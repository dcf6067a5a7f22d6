"""`soundpost rules` and `silence`: what is to be noticed, and when nobody is to be told."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.incidents import Actor, Reason, Severity, iso, who
from soundpost_ui.commands.search import Json
from soundpost_ui.durations import read_duration_s
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from soundpost.store.watch_tables import Rule, Silence

RuleName = Annotated[str, typer.Argument(metavar="RULE", help="A rule's name or id.")]
Source = Annotated[str | None, typer.Option("--source", help="For this source.")]
Tag = Annotated[str | None, typer.Option("--tag", help="For every source with this tag.")]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Kind(StrEnum):
    """What a rule can listen for."""

    novelty = "novelty"
    text = "text"
    exemplar = "exemplar"
    level = "level"
    tag = "tag"
    silence = "silence"
    microphone = "microphone"
    stalled = "stalled"
    format_ = "format"
    clock = "clock"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Say what is to be noticed.")
    group.callback(invoke_without_command=True)(rules_command)
    group.command("list")(list_command)
    group.command("add")(add_command)
    group.command("remove")(remove_command)
    group.command("enable")(enable_command)
    group.command("disable")(disable_command)
    app.add_typer(group, name="rules")
    quiet = typer.Typer(help="Say when nobody is to be told.", no_args_is_help=True)
    quiet.command("add")(silence_command)
    quiet.command("list")(silences_command)
    quiet.command("end")(end_command)
    app.add_typer(quiet, name="silence")


def rules_command(context: typer.Context) -> None:
    """Say what is to be noticed; without a command: list the rules."""
    if context.invoked_subcommand is None:
        list_command()


def list_command(
    source: Annotated[str | None, typer.Option(help="Only those that hold for it.")] = None,
    as_json: Json = False,
) -> None:
    """List the rules, for what they are and what they still wait for."""
    from soundpost.service.watch_views import source_names, waiting_of
    from soundpost.store import rules, sources

    with open_workspace() as workspace, workspace.store.reading() as session:
        source_id = sources.by_name(session, source).id if source else None
        rows = rules.find(session, source_id=source_id, limit=None)
        names = source_names(session)
        waiting = {row.id: waiting_of(session, row) for row in rows}
    if as_json:
        terminal.print_json([_document(row, names, waiting[row.id]) for row in rows])
    elif rows:
        columns = ("id", "name", "kind", "for", "severity", "on", "settings")
        cells = [_row(row, names) for row in rows]
        terminal.print_rows(columns, cells, below=("settings",))
    else:
        terminal.hint("No rules. Add one: soundpost rules add novelty --source NAME")
    for row in rows if not as_json else ():
        for lack in waiting[row.id]:
            terminal.hint(f"{row.name} waits for {lack['waiting']} ({lack['source']})")


def add_command(
    kind: Annotated[Kind, typer.Argument(help="What it listens for.")],
    source: Source = None,
    tag: Tag = None,
    name: Annotated[str | None, typer.Option(help="How it is called.")] = None,
    text: Annotated[str | None, typer.Option(help="text: what to listen for, in words.")] = None,
    clip: Annotated[
        str | None, typer.Option(help="exemplar: a file or a recording; a part as NAME@START-END.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="novelty, text, exemplar: one false alarm in so long: 30d.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of its kind: --set above_dbfs=-40 --set measure=a."),
    ] = None,
    severity: Annotated[Severity, typer.Option(help="How grave it is.")] = Severity.warning,
    hold: Annotated[str, typer.Option(help="How long it must hold first: 30s, 5m.")] = "0s",
    keep: Annotated[str, typer.Option(help="How long after it held an incident goes on.")] = "5m",
    cooldown: Annotated[str, typer.Option(help="How long until the next incident.")] = "0s",
    escalate: Annotated[
        str | None, typer.Option(help="Escalate what nobody acknowledged for so long: 15m.")
    ] = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Add a rule: for one source, for every source with a tag, or for all.

    Settings of the kinds. level: above_dbfs or below_dbfs, duration_s, measure (a, z, band),
    centre_hz. tag: label, above, windows. silence: below_dbfs, duration_s. microphone:
    clipped_share, dead_dbfs, collapse_db, duration_s. stalled: cadences, shortest_s. clock:
    tolerance_s. format has none.
    """
    from soundpost.monitoring.rule_kinds.registry import check_rule
    from soundpost.service.watch_views import source_names
    from soundpost.store import rules, sources
    from soundpost.store.tables import utc_now

    settings = _settings(setting or [], text, budget)
    with open_workspace() as workspace:
        settings |= _vector(workspace, kind, settings, clip)
        check_rule(kind.value, settings, _seconds(hold))
        with workspace.store.session() as session:
            new = rules.NewRule(
                name=name or " ".join(filter(None, (kind.value, text, source or tag))),
                kind=kind.value,
                created_by=who(actor),
                settings=settings,
                source_id=sources.by_name(session, source).id if source else None,
                tag=tag,
                severity=severity.value,
                for_s=_seconds(hold),
                keep_firing_s=_seconds(keep),
                cooldown_s=_seconds(cooldown),
                escalate_after_s=_seconds(escalate) if escalate else None,
            )
            row = rules.add(session, new, now=utc_now())
            names = source_names(session)
    if as_json:
        terminal.print_json(_document(row, names, []))
    else:
        terminal.say(f"Rule {row.id}, {row.name}, watches {_scope(row, names)}.")


def remove_command(rule: RuleName, actor: Actor = None) -> None:
    """Remove a rule; its incidents stay, and end by themselves."""
    from soundpost.store import rules
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        row = _find(session, rule)
        rules.remove(session, row.id, who(actor), now=utc_now())
    terminal.say(f"Removed rule {row.id}, {row.name}.")


def enable_command(rule: RuleName, actor: Actor = None) -> None:
    """Switch a rule on."""
    _switch(rule, actor, True)


def disable_command(rule: RuleName, actor: Actor = None) -> None:
    """Switch a rule off; its incidents end by themselves."""
    _switch(rule, actor, False)


def silence_command(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")],
    source: Source = None,
    tag: Tag = None,
    rule: Annotated[str | None, typer.Option(help="Only of this rule, by name or id.")] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long, from now on: 30m, 2h, 3d.")
    ] = None,
    weekly: Annotated[
        str | None, typer.Option(help="Each week in the source's zone: sat,sun 22:00-04:00.")
    ] = None,
    maintenance: Annotated[
        bool, typer.Option("--maintenance", help="What is heard does not count at all.")
    ] = False,
    actor: Actor = None,
) -> None:
    """Tell nobody for a while: of a source, of a tag, of a rule, or of anything."""
    from soundpost.store import silences, sources
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        now = utc_now()
        new = silences.NewSilence(
            kind="maintenance" if maintenance else "silence",
            starts_at=now,
            ends_at=_later(now, lasting) if lasting else None,
            reason=reason,
            created_by=who(actor),
            source_id=sources.by_name(session, source).id if source else None,
            tag=tag,
            rule_id=_find(session, rule).id if rule else None,
            weekly=_weekly(weekly) if weekly else None,
        )
        row = silences.add(session, new, now=now)
    until = f" until {row.ends_at:%Y-%m-%d %H:%M} UTC" if row.ends_at else ""
    terminal.say(f"Silence {row.id} holds{until}. End it: soundpost silence end {row.id}")


def silences_command(
    ended: Annotated[bool, typer.Option("--ended", help="Those that are over, too.")] = False,
    as_json: Json = False,
) -> None:
    """List silences and maintenance windows."""
    from soundpost.service.watch_views import source_names
    from soundpost.store import silences
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.reading() as session:
        unfinished_at = None if ended else utc_now()
        rows = silences.find(session, unfinished_at=unfinished_at, limit=None)
        names = source_names(session)
    if as_json:
        terminal.print_json([_silence_document(row, names) for row in rows])
    elif rows:
        columns = ("id", "kind", "for", "from", "until", "each week", "reason")
        terminal.print_rows(columns, [_silence_row(row, names) for row in rows], below=("reason",))
    else:
        terminal.hint("No silences.")


def end_command(
    silence_id: Annotated[int, typer.Argument(metavar="ID", help="See: soundpost silence list")],
    reason: Reason = None,
    actor: Actor = None,
) -> None:
    """End a silence now; what still fires is told of."""
    from soundpost.store import silences
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        silences.end(session, silence_id, who(actor), now=utc_now(), reason=reason)
    terminal.say(f"Silence {silence_id} is over.")


def _seconds(text: str) -> float:
    """Read a time that may be none. Raises InvalidValueError."""
    return 0.0 if text.strip() in ("0", "0s") else read_duration_s(text)


def _later(now: datetime, lasting: str) -> datetime:
    from soundpost.errors import InvalidValueError

    try:
        return now + timedelta(seconds=read_duration_s(lasting))
    except (OverflowError, ValueError) as error:
        raise InvalidValueError(lasting, "that is too long") from error


def _settings(given: list[str], text: str | None, budget: str | None) -> dict[str, Any]:
    from soundpost.errors import InvalidValueError

    settings: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise InvalidValueError(item, "write it as NAME=VALUE")
        settings[name.strip()] = _value(value.strip())
    if text is not None:
        settings["text"] = text
    if budget is not None:
        settings["budget_s"] = read_duration_s(budget)
    return settings


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _vector(
    workspace: Workspace, kind: Kind, settings: dict[str, Any], clip: str | None
) -> dict[str, Any]:
    """The vector of the words or of the example, and which model made it."""
    from soundpost.errors import RuleSettingsError
    from soundpost.monitoring.rule_kinds.listening import write_vector
    from soundpost.monitoring.rule_kinds.registry import check_rule
    from soundpost.monitoring.rules import model_key
    from soundpost_ui.commands.search import example_named

    if clip is not None and kind is not Kind.exemplar:
        raise RuleSettingsError("--clip", "only a rule of the kind exemplar takes a clip")
    if kind is Kind.text:
        check_rule(kind.value, settings)
        vector = workspace.encoder.embed_text([str(settings["text"])])[0]
    elif kind is Kind.exemplar and clip is not None:
        vector = example_named(workspace, clip).vector
    elif kind is Kind.exemplar:
        raise RuleSettingsError("--clip", "an exemplar needs a clip to sound like")
    else:
        return {}
    spec = workspace.encoder.spec
    found = {"vector": write_vector(vector), "model": model_key(spec.name, spec.revision)}
    return {**found, "name": clip} if clip is not None and "name" not in settings else found


def _weekly(text: str) -> dict[str, Any]:
    from soundpost.errors import InvalidValueError

    days, _, hours = text.strip().lower().partition(" ")
    begin, dash, end = hours.strip().partition("-")
    unknown = [day for day in days.split(",") if day not in _DAYS]
    if unknown or not dash:
        raise InvalidValueError(text, "write days and hours, such as: sat,sun 22:00-04:00")
    chosen = [_DAYS.index(day) for day in days.split(",")]
    return {"days": chosen, "from": begin.strip(), "to": end.strip()}


def _switch(name: str, actor: str | None, enabled: bool) -> None:
    from soundpost.store import rules
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        row = _find(session, name)
        rules.change(session, row.id, who(actor), now=utc_now(), enabled=enabled)
    terminal.say(f"Rule {row.id}, {row.name}, is {'on' if enabled else 'off'}.")


def _find(session: Session, name: str) -> Rule:
    from soundpost.store import rules

    # An id too long for the database is no id, but may be a name.
    if name.isascii() and name.isdigit() and len(name) < 19:
        return rules.get(session, int(name))
    return rules.by_name(session, name)


def _scope(row: Rule | Silence, names: dict[int, str]) -> str:
    if row.source_id is not None:
        return names[row.source_id]
    return f"every source tagged {row.tag}" if row.tag is not None else "every source"


def _shown_settings(row: Rule) -> dict[str, Any]:
    return {name: value for name, value in row.settings.items() if name not in ("vector", "model")}


def _row(row: Rule, names: dict[int, str]) -> tuple[object, ...]:
    settings = ", ".join(f"{name} {value}" for name, value in _shown_settings(row).items())
    enabled = "yes" if row.enabled else "no"
    return row.id, row.name, row.kind, _scope(row, names), row.severity, enabled, settings


def _document(row: Rule, names: dict[int, str], waiting: list[dict[str, str]]) -> dict[str, Any]:
    plain = ("id", "name", "kind", "tag", "severity", "for_s", "keep_firing_s", "cooldown_s")
    document = {name: getattr(row, name) for name in (*plain, "escalate_after_s", "enabled")}
    return {
        **document,
        "source": names.get(row.source_id or 0),
        "settings": _shown_settings(row),
        "created_by": row.created_by,
        "created_at": iso(row.created_at),
        "waiting": waiting,
    }


def _silence_row(row: Silence, names: dict[int, str]) -> tuple[object, ...]:
    until = f"{row.ends_at:%Y-%m-%d %H:%M} UTC" if row.ends_at else ""
    scope = _scope(row, names) + (f", rule {row.rule_id}" if row.rule_id is not None else "")
    begins = f"{row.starts_at:%Y-%m-%d %H:%M} UTC"
    return row.id, row.kind, scope, begins, until, _weekly_text(row), row.reason


def _weekly_text(row: Silence) -> str:
    if row.weekly is None:
        return ""
    days = ",".join(_DAYS[day] for day in row.weekly["days"])
    return f"{days} {row.weekly['from']}-{row.weekly['to']}"


def _silence_document(row: Silence, names: dict[int, str]) -> dict[str, Any]:
    plain = ("id", "kind", "tag", "rule_id", "weekly", "reason", "created_by")
    document = {name: getattr(row, name) for name in plain}
    times = {name: iso(getattr(row, name)) for name in ("starts_at", "ends_at", "created_at")}
    return {**document, "source": names.get(row.source_id or 0), **times}
