"""`soundpost notifications`: what was said to whom, what is on its way, and what was given up."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import open_workspace

if TYPE_CHECKING:
    from soundpost.store.notification_tables import Notification
    from soundpost.store.notifications import State as StateName

notifications_app = typer.Typer(help="What was said to whom.", invoke_without_command=True)


class State(StrEnum):
    """What a notification can be."""

    queued = "queued"
    sent = "sent"
    failed = "failed"
    cancelled = "cancelled"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(notifications_app, name="notifications")


@notifications_app.callback()
def notifications_command(context: typer.Context) -> None:
    """List notifications, the newest first, or send again what was given up."""
    if context.invoked_subcommand is None:
        list_command()


@notifications_app.command("list")
def list_command(
    state: Annotated[State | None, typer.Option(help="Only these.", show_default=False)] = None,
    channel: Annotated[
        str | None, typer.Option(help="Only of this channel.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 lists all.")] = 50,
    as_json: Json = False,
) -> None:
    """List notifications, the newest first."""
    from soundpost.store import notifications

    wanted: StateName | None = state.value if state else None
    with open_workspace() as workspace, workspace.store.reading() as session:
        rows = notifications.find(
            session, state=wanted, channel=channel, limit=limit or None, newest_first=True
        )
    if as_json:
        terminal.print_json([_document(row) for row in rows])
        return
    if not rows:
        terminal.hint("No notifications, or none that meets the filters.")
        return
    columns = ("id", "channel", "state", "tries", "composed", "subject", "error")
    terminal.print_rows(columns, [_row(row) for row in rows], below=("subject", "error"))
    if any(row.state == "failed" for row in rows):
        terminal.hint("Send again what failed: soundpost notifications retry ID")


@notifications_app.command("retry")
def retry_command(
    ids: Annotated[list[int], typer.Argument(help="Ids, see: soundpost notifications list")],
) -> None:
    """Send again what failed or was cancelled, with the same key."""
    from soundpost.monitoring import delivery
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace, workspace.store.session() as session:
        for number in ids:
            delivery.retry(session, workspace.queue, number, utc_now())
    terminal.say(f"Queued {terminal.plural(len(ids), 'notification')} again.")


def _row(row: Notification) -> tuple[object, ...]:
    composed = row.created_at.strftime("%Y-%m-%d %H:%M:%S")
    subject, error = row.payload.get("subject", ""), row.error_detail or ""
    return row.id, row.channel_name, row.state, row.attempts, composed, subject, error


def _document(row: Notification) -> dict[str, Any]:
    fields = ("id", "key", "kind", "state", "attempts", "incident_ids", "error_code")
    moments = ("due_at", "created_at", "sent_at")
    document: dict[str, Any] = {field: getattr(row, field) for field in fields}
    for field in moments:
        moment = getattr(row, field)
        document[field] = moment.isoformat() if moment else None
    return {
        **document,
        "channel": row.channel_name,
        "group": row.group_key,
        "error_detail": row.error_detail,
        "document": row.payload,
    }
