"""`soundpost index`: what of each model can be found, and building its index anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.store.snapshots import IndexReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("index")(index_command)


def index_command(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build it anew from the database.")
    ] = False,
    model_id: Annotated[
        int | None,
        typer.Option("--model", help="Only this one, see: soundpost models", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the vector index of each model: its vectors, its newest snapshot and how old that is.

    What came or went since the snapshot (behind) is found all the same; the next one takes it in.
    """
    with open_workspace() as workspace:
        chosen = [report.model_id for report in _reports(workspace, model_id)]
        if rebuild:
            from soundpost_indexer import builder

            for number in chosen:
                builder.rebuild(workspace.settings, workspace.store, number)
        reports = _reports(workspace, model_id)
    if as_json:
        terminal.print_json([report.to_document() for report in reports])
    elif reports:
        _print(reports)
    else:
        terminal.hint("No model has embedded anything yet.")


def _reports(workspace: Workspace, model_id: int | None) -> list[IndexReport]:
    """Report on the models that have vectors or serve, or on the one that is asked for."""
    from soundpost.errors import InvalidValueError
    from soundpost.store import models, snapshots

    with workspace.store.reading() as session:
        known = models.find_all(session)
        if model_id is not None and model_id not in [model.id for model in known]:
            raise InvalidValueError(f"--model {model_id}", "list the ids with: soundpost models")
        reports = [snapshots.report(session, model) for model in known]
    if model_id is not None:
        return [report for report in reports if report.model_id == model_id]
    return [report for report in reports if report.vectors or report.serving]


def _print(reports: list[IndexReport]) -> None:
    columns = ("id", "model", "serving", "vectors", "layout", "size", "snapshot", "age", "behind")
    terminal.print_rows(
        columns,
        [
            (
                report.model_id,
                report.model,
                "yes" if report.serving else "no",
                report.vectors,
                f"{report.engine} {report.layout}" if report.snapshot else None,
                terminal.size(report.bytes) if report.bytes is not None else None,
                report.snapshot,
                terminal.clock(report.age_s) if report.age_s is not None else None,
                report.behind,
            )
            for report in reports
        ],
        below=("snapshot",),
    )
