"""`soundpost recordings`, `sources`, `models` and `delete`: what is in the archive."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import After, Before, Json, SourceName, Timezone, search_options
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.store.tables import Recording


class Status(StrEnum):
    """What a recording can be."""

    queued = "queued"
    embedding = "embedding"
    embedded = "embedded"
    failed = "failed"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("recordings")(recordings_command)
    group = typer.Typer()
    group.callback(invoke_without_command=True)(sources_command)
    group.command("set")(set_source_command)
    app.add_typer(group, name="sources")
    app.command("models")(models_command)
    app.command("delete")(delete_command)


def recordings_command(
    source: SourceName = None,
    status: Annotated[Status | None, typer.Option(help="Only these.", show_default=False)] = None,
    after: After = None,
    before: Before = None,
    timezone: Timezone = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 lists all.")] = 100,
    as_json: Json = False,
) -> None:
    """List recordings and files that could not become one, with what is wrong and its remedy."""
    from soundpost.store import recordings, sources

    with open_workspace() as workspace:
        options = search_options(workspace, 1, source, after, before, timezone, 0.0)
        options.check()
        filters: dict[str, Any] = {
            "source": source,
            "status": status.value if status else None,
            "after": options.after,
            "before": options.before,
        }
        with workspace.store.reading() as session:
            if source is not None:
                sources.by_name(session, source)
            rows = recordings.find(session, **filters, limit=limit or None)
            total = recordings.count(session, **filters)
    if as_json:
        terminal.print_json({"total": total, "recordings": [_document(row) for row in rows]})
        return
    if not rows:
        terminal.hint("No recordings, or none that meets the filters.")
        return
    _print_recordings(rows)
    if len(rows) < total:
        terminal.hint(f"{len(rows):,} of {total:,}; --limit 0 lists all.")


def sources_command(
    context: typer.Context,
    as_json: Json = False,
) -> None:
    """List the sources and what there is of each; or set what is known of one."""
    from soundpost.store import sources

    if context.invoked_subcommand is not None:
        return
    with open_workspace() as workspace, workspace.store.reading() as session:
        summaries = sources.summaries(session)
        rows = [
            {
                "name": summary.source.name,
                "timezone": summary.source.timezone,
                "recordings": summary.recordings,
                "embedded": summary.embedded,
                "failed": summary.failed,
                "windows": summary.windows,
                "hours": round(summary.duration_s / 3600, 4),
                "cadence_s": summary.source.cadence_s,
                "tags": list(summary.tags) if as_json else ", ".join(summary.tags),
            }
            for summary in summaries
        ]
    _print_documents(rows, as_json, "No sources yet. Bring recordings in: soundpost ingest FOLDER")


def set_source_command(
    name: Annotated[str, typer.Argument(help="A source, see: soundpost sources")],
    tag: Annotated[list[str] | None, typer.Option(help="Give it this tag.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Take this tag away.")] = None,
    cadence: Annotated[
        str | None, typer.Option(help="How often it is heard: 60s, 1h; auto estimates it.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Its zone: Europe/Zurich.")] = None,
) -> None:
    """Tag a source, or say how often it is heard and in which zone it is."""
    from soundpost.store import sources
    from soundpost_ui.durations import read_duration_s

    with open_workspace() as workspace, workspace.store.session() as session:
        source = sources.by_name(session, name)
        tags = (set(sources.tags_of(session, source.id)) | set(tag or ())) - set(untag or ())
        sources.describe(
            session,
            name,
            timezone=timezone,
            cadence_s=read_duration_s(cadence) if cadence not in (None, "auto") else None,
            no_cadence=cadence == "auto",
            tags=tags,
        )
        cadence_s = source.cadence_s
    heard = f"heard every {cadence_s:g} s" if cadence_s else "heard as often as its recordings show"
    tagged = f"tagged {', '.join(sorted(tags))}" if tags else "without tags"
    terminal.say(f"{name}: {source.timezone}, {heard}, {tagged}.")


def models_command(as_json: Json = False) -> None:
    """List the models that made the vectors, and how many each made."""
    from soundpost.store import embeddings, models

    with open_workspace() as workspace, workspace.store.reading() as session:
        rows = [
            {
                "id": model.id,
                "name": model.name,
                "revision": model.revision,
                "dimension": model.dimension,
                "sample_rate_hz": model.sample_rate_hz,
                "window_s": model.window_s,
                "hop_s": model.hop_s,
                "vectors": embeddings.count(session, model.id),
            }
            for model in models.find_all(session)
        ]
    _print_documents(rows, as_json, "No model has embedded anything yet.")


def delete_command(
    ids: Annotated[list[int], typer.Argument(help="Ids of recordings, see: soundpost recordings")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete recordings from the archive and from searches; files that stayed in place remain.

    A copy that --copy made is deleted with its recording.
    """
    from soundpost.store import recordings

    with open_workspace() as workspace:
        with workspace.store.reading() as session:
            chosen = [recordings.get(session, number) for number in dict.fromkeys(ids)]
        for recording in chosen:
            name = terminal.printable(terminal.short_path(recording.path))
            terminal.hint(f"{recording.id}  {name}")
        count = terminal.plural(len(chosen), "recording")
        if not yes and not typer.confirm(f"Delete {count}?", err=True):
            raise typer.Exit(1)
        for recording in chosen:
            _delete(workspace, recording.id)
    terminal.say(f"Deleted {count}.")


def _delete(workspace: Workspace, recording_id: int) -> None:
    from soundpost.store import recordings

    # Tombstones in the database keep every index from showing them, from this commit on.
    with workspace.store.session() as session:
        object_key = recordings.remove(session, recording_id)
    if object_key is not None:
        workspace.objects.delete(object_key)


def _print_recordings(rows: list[Recording]) -> None:
    from soundpost.archive.summary import remedy_for

    columns = ("id", "status", "source", "started", "length", "format", "path", "finding")
    terminal.print_rows(
        columns,
        [
            (
                row.id,
                "truncated" if row.truncated else row.status,
                row.source.name,
                _started(row),
                terminal.clock(row.duration_s) if row.duration_s is not None else "",
                row.format,
                terminal.short_path(row.path),
                ", ".join(_findings(row)),
            )
            for row in rows
        ],
        below=("path", "finding"),
    )
    codes = dict.fromkeys(code for row in rows for code in _findings(row))
    for code in codes:
        if remedy := remedy_for(code):
            terminal.hint(f"remedy for {code}: {remedy}")


def _findings(row: Recording) -> list[str]:
    codes = [row.error_code] if row.error_code else []
    return codes + [remark["code"] for remark in row.remarks or []]


def _started(row: Recording) -> str:
    from zoneinfo import ZoneInfo

    return terminal.wall_clock(row.started_at, ZoneInfo(row.source.timezone))


def _document(row: Recording) -> dict[str, Any]:
    from soundpost.archive.summary import remedy_for

    fields = ("id", "sha256", "path", "object_key", "size_bytes", "duration_s", "sample_rate_hz")
    more = ("channels", "format", "status", "truncated", "error_code", "error_detail", "remarks")
    document = {name: getattr(row, name) for name in (*fields, *more)}
    document["source"] = row.source.name
    document["started_at"] = row.started_at.isoformat() if row.started_at else None
    document["remedy"] = remedy_for(row.error_code) if row.error_code else None
    return document


def _print_documents(rows: list[dict[str, Any]], as_json: bool, nothing: str) -> None:
    if as_json:
        terminal.print_json(rows)
    elif rows:
        terminal.print_rows(list(rows[0]), [list(row.values()) for row in rows], ("revision",))
    else:
        terminal.hint(nothing)
