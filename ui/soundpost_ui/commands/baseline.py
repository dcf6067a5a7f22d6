"""`soundpost baseline`: what is normal for a source, in versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.incidents import Actor, Reason, who
from soundpost_ui.commands.search import Json, Timezone
from soundpost_ui.durations import duration, read_duration_s
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.monitoring.baselines import Choice
    from soundpost.store.watch_tables import Baseline

app = typer.Typer(help="Say what is normal for a source.", no_args_is_help=True)

SourceArgument = Annotated[str, typer.Argument(help="The source.", show_default=False)]
Version = Annotated[int, typer.Argument(help="Which version.", show_default=False)]


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="baseline")


@app.command("create")
def create_command(
    source: SourceArgument,
    after: Annotated[str | None, typer.Option("--from", help="Recordings from then on.")] = None,
    before: Annotated[str | None, typer.Option("--to", help="Recordings before then.")] = None,
    recordings: Annotated[
        list[int] | None, typer.Option("--recordings", help="These; give it once for each.")
    ] = None,
    learn: Annotated[
        str | None, typer.Option(help="What arrives for so long from now: 7d, 12h.")
    ] = None,
    timezone: Timezone = None,
    method: Annotated[
        str | None, typer.Option(help="fusion, windows, frames or acoustics; default: the best.")
    ] = None,
    contexts: Annotated[
        str, typer.Option(help="Compare by hours of day or by operating states: hours, states.")
    ] = "none",
    budget: Annotated[str, typer.Option(help="How long without a false alarm: 30d, 12h.")] = "30d",
    activate: Annotated[bool, typer.Option(help="Watch the source by it at once.")] = True,
    by: Actor = None,
    as_json: Json = False,
) -> None:
    """Make a baseline of recordings of a source, and watch the source by it.

    Without --from, --to, --recordings and --learn it is made of everything there is.
    """
    with open_workspace() as workspace:
        choice = _choice(
            workspace, source, after, before, recordings, learn, timezone, method, contexts, budget
        )
        made = make_baseline(workspace, source, choice, by, activate=activate)
    print_baseline(made, source, as_json)


def make_baseline(
    workspace: Workspace,
    source: str,
    choice: Choice | None = None,
    by: str | None = None,
    *,
    activate: bool = True,
) -> Baseline:
    """Make a baseline, of everything there is by default, and use it unless told not to."""
    from soundpost.monitoring import baselines as watching

    made = _create(workspace, source, choice or watching.Choice(), who(by))
    if made.state == "learning":
        return made
    made = watching.prepare(workspace.store, made.id)
    return _activate(workspace, made.id, who(by), None) if activate else made


def _choice(
    workspace: Workspace,
    source: str,
    after: str | None,
    before: str | None,
    recordings: list[int] | None,
    learn: str | None,
    timezone: str | None,
    method: str | None,
    contexts: str,
    budget: str,
) -> Choice:
    from soundpost.archive.recorder_names import moment_from_text, zone_named
    from soundpost.monitoring.baselines import Choice
    from soundpost.monitoring.novelty import DEFAULT_METHOD
    from soundpost.store import sources

    with workspace.store.reading() as session:
        zone = zone_named(timezone or sources.by_name(session, source).timezone)
    moments = [moment_from_text(text, zone).at if text else None for text in (after, before)]
    return Choice(
        after=moments[0],
        before=moments[1],
        recordings=tuple(recordings or ()),
        learn_s=read_duration_s(learn) if learn else None,
        method=method or DEFAULT_METHOD,
        contexts=contexts,
        budget_s=read_duration_s(budget),
    )


def _create(workspace: Workspace, source: str, choice: Choice, actor: str) -> Baseline:
    from soundpost.monitoring import baselines as watching
    from soundpost.store import sources

    with workspace.store.session() as session:
        return watching.create(session, sources.by_name(session, source), choice, actor)


def _activate(workspace: Workspace, baseline_id: int, actor: str, reason: str | None) -> Baseline:
    from soundpost.monitoring.watch import begin_watching

    with workspace.store.session() as session:
        return begin_watching(session, baseline_id, actor, reason)


@app.command("list")
def list_command(
    source: Annotated[str | None, typer.Argument(help="Only of this source.")] = None,
    as_json: Json = False,
) -> None:
    """List the versions, by source, the newest first."""
    from soundpost.store import baselines, sources

    with open_workspace() as workspace, workspace.store.reading() as session:
        names = {row.id: row.name for row in sources.find_all(session)}
        wanted = sources.by_name(session, source).id if source is not None else None
        rows = baselines.find(session, source_id=wanted)
    if as_json:
        terminal.print_json([document(row, names[row.source_id]) for row in rows])
        return
    if not rows:
        terminal.say("No baselines. Make one: soundpost baseline create SOURCE")
        return
    columns = ("source", "version", "state", "windows", "audio", "made", "by", "lacks")
    terminal.print_rows(columns, [_row(row, names[row.source_id]) for row in rows])


@app.command("show")
def show_command(
    source: SourceArgument,
    version: Annotated[
        int | None, typer.Argument(help="Which version; default: the one in use.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a version: what it holds, what it promises, and what it lacks."""
    with open_workspace() as workspace:
        print_baseline(_find(workspace, source, version), source, as_json)


@app.command("activate")
def activate_command(
    source: SourceArgument, version: Version, reason: Reason = None, by: Actor = None
) -> None:
    """Watch a source by this version from now on; an older one takes back a later."""
    with open_workspace() as workspace:
        found = _find(workspace, source, version)
        _activate(workspace, found.id, who(by), reason)
        terminal.say(f"{source} is watched by version {version} from now on.")


@app.command("accept")
def accept_command(
    source: SourceArgument,
    recordings: Annotated[list[int], typer.Argument(help="Recordings, by id.")],
    reason: Reason = None,
    by: Actor = None,
) -> None:
    """Take recordings as a new normal: a version of the one in use and these."""
    from soundpost.monitoring import baselines as watching
    from soundpost.store import sources

    with open_workspace() as workspace:
        with workspace.store.session() as session:
            place = sources.by_name(session, source)
            made = watching.accept(session, place, recordings, who(by), reason)
        watching.prepare(workspace.store, made.id)
        print_baseline(_activate(workspace, made.id, who(by), reason), source, False)


@app.command("retire")
def retire_command(source: SourceArgument, reason: Reason = None, by: Actor = None) -> None:
    """Stop comparing what a source records with its baseline."""
    from soundpost.errors import BaselineStateError
    from soundpost.monitoring import baselines as watching
    from soundpost.store import baselines, sources

    with open_workspace() as workspace, workspace.store.session() as session:
        place = sources.by_name(session, source)
        used = baselines.active(session, place.id)
        if used is None:
            raise BaselineStateError(source, "no baseline is active")
        retired = watching.retire(session, used.id, who(by), reason)
        terminal.say(f"{source} is not compared with version {retired.version} any more.")


def _find(workspace: Workspace, source: str, version: int | None) -> Baseline:
    from soundpost.errors import UnknownBaselineError
    from soundpost.store import baselines, sources

    with workspace.store.reading() as session:
        place = sources.by_name(session, source)
        if version is not None:
            return baselines.by_version(session, place, version)
        found = baselines.active(session, place.id)
        newest = found or next(iter(baselines.find(session, source_id=place.id)), None)
    if newest is None:
        raise UnknownBaselineError(source, "it has none")
    return newest


# --- how it is shown --------------------------------------------------------------------------


def _row(row: Baseline, source: str) -> tuple[object, ...]:
    summary = row.summary
    return (
        source,
        row.version,
        row.state,
        summary.get("windows", ""),
        duration(summary["audio_s"]) if summary else "",
        row.created_at.strftime("%Y-%m-%d %H:%M"),
        row.created_by,
        row.error_code or ", ".join(finding["code"] for finding in row.quality),
    )


def print_baseline(baseline: Baseline, source: str, as_json: bool = False) -> None:
    """Print a baseline: what it holds, what it promises, and what it lacks."""
    if as_json:
        terminal.print_json(document(baseline, source))
        return
    terminal.say(f"{source}, version {baseline.version}: {baseline.state}")
    if baseline.state == "learning" and baseline.learn_until is not None:
        until = baseline.learn_until.strftime("%Y-%m-%d %H:%M UTC")
        terminal.say(f"  learns until {until}; then it is prepared and used by itself")
    if baseline.error_code:
        terminal.say(f"  [{baseline.error_code}] {baseline.error_detail}")
    if baseline.summary:
        _print_summary(baseline.summary)
    for finding in baseline.quality:
        terminal.say(f"  lacks [{finding['code']}] {finding['summary']}")
        terminal.say(f"    {finding['remedy']}")
    if baseline.summary and not baseline.quality:
        terminal.say("  good enough: nothing is missing")


def _print_summary(summary: dict[str, Any]) -> None:
    held = terminal.plural(summary["recordings"], "recording")
    windows = terminal.plural(summary["windows"], "window")
    terminal.say(f"  {held}, {windows}, {duration(summary['audio_s'])}; by {summary['method']}")
    budget = summary["budget"]
    stated, measured = duration(budget["stated_s"]), duration(budget["measured_s"])
    how = "extrapolated from" if budget["extrapolated"] else "counted in"
    terminal.say(f"  one false alarm in {stated} is allowed; {how} its own recordings: {measured}")
    for note in summary["notes"]:
        terminal.say(f"  note: {note}")


def document(baseline: Baseline, source: str) -> dict[str, Any]:
    """Return a baseline JSON-ready."""
    plain = ("version", "state", "chosen", "quality", "summary", "created_by")
    times = ("learn_until", "created_at", "activated_at", "retired_at")
    moments = {name: getattr(baseline, name) for name in times}
    return {
        "source": source,
        **{name: getattr(baseline, name) for name in plain},
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
        "error_code": baseline.error_code,
        "error_detail": baseline.error_detail,
    }
