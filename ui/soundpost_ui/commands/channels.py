"""`soundpost channels`: who is told of incidents, and whether that works."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from soundpost.store.notification_tables import Channel

channels_app = typer.Typer(help="Who is told of incidents.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the channel.")]


class Kind(StrEnum):
    """What a channel can be."""

    apprise = "apprise"
    mqtt = "mqtt"
    webhook = "webhook"


class Severity(StrEnum):
    """How grave an incident can be."""

    info = "info"
    warning = "warning"
    critical = "critical"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(channels_app, name="channels")


@channels_app.command("add")
def add_command(
    name: Name,
    url: Annotated[
        str,
        typer.Argument(
            help="mailto://..., slack://..., https://... (a webhook), mqtts://...; - reads it "
            "from standard input, so that its password stays out of the shell's history."
        ),
    ],
    kind: Annotated[
        Kind | None, typer.Option(help="Follows from the URL if left out.", show_default=False)
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="SOUNDPOST_CHANNEL_SECRET",
            help="Key that a webhook is signed with: openssl rand -base64 32",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only incidents of this source.", show_default=False)
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Only of sources with this tag.", show_default=False)
    ] = None,
    min_severity: Annotated[Severity, typer.Option(help="Only from here on.")] = Severity.info,
    subject: Annotated[
        str | None,
        typer.Option(help="Template of the subject: '{severity}: {source}'.", show_default=False),
    ] = None,
    body: Annotated[
        str | None, typer.Option(help="Template of the text: '{list}'.", show_default=False)
    ] = None,
    group_wait: Annotated[
        float | None, typer.Option(help="Seconds before a group is told first.", show_default=False)
    ] = None,
    group_interval: Annotated[
        float | None, typer.Option(help="Seconds between news of a group.", show_default=False)
    ] = None,
    repeat: Annotated[
        float | None,
        typer.Option(help="Seconds until what goes on is told again.", show_default=False),
    ] = None,
    attach_clip: Annotated[
        bool | None,
        typer.Option(help="Send the clip along where that is possible.", show_default=False),
    ] = None,
    retain_state: Annotated[
        bool | None,
        typer.Option(help="Keep what is open at retained MQTT topics.", show_default=False),
    ] = None,
) -> None:
    """Add a channel; it is told of what is open already."""
    from soundpost.monitoring import channel_setup
    from soundpost.monitoring.channel_setup import ChannelPlan
    from soundpost.store.tables import utc_now

    given = {"attach_clip": attach_clip, "retain_state": retain_state}
    plan = ChannelPlan(
        name=name,
        url=_read_secretly() if url == "-" else url,
        kind=kind.value if kind else None,
        secret=secret,
        settings={field: value for field, value in given.items() if value is not None},
        min_severity=min_severity.value,
        source=source,
        tag=tag,
        subject_template=subject,
        body_template=body,
        group_wait_s=group_wait,
        group_interval_s=group_interval,
        repeat_s=repeat,
    )
    with open_workspace() as workspace, workspace.store.session() as session:
        row = channel_setup.add(session, plan, utc_now(), workspace.settings)
        shown = _document(session, row)
    terminal.say(f"Added {shown['name']}: {shown['kind']}, {shown['address']}")
    terminal.hint(f"See whether it works: soundpost channels test {name}")


@channels_app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the channels, what each is told of, and whether it works."""
    from soundpost.store import channels

    with open_workspace() as workspace, workspace.store.reading() as session:
        rows = [_document(session, row) for row in channels.find_all(session)]
    if as_json:
        terminal.print_json(rows)
        return
    if not rows:
        terminal.hint("No channels yet. Add one: soundpost channels add NAME URL")
        return
    columns = ("name", "kind", "state", "told of", "from", "address", "error")
    terminal.print_rows(columns, [_row(row) for row in rows], below=("address", "error"))


@channels_app.command("remove")
def remove_command(name: Name) -> None:
    """Remove a channel; what it was sent stays to be seen."""
    from soundpost.monitoring import channel_setup

    with open_workspace() as workspace, workspace.store.session() as session:
        channel_setup.remove(session, name)
    terminal.say(f"Removed {name}.")


@channels_app.command("test")
def test_command(name: Name) -> None:
    """Send a test message now; ends with code 2 if it does not arrive."""
    from soundpost.monitoring import channel_setup
    from soundpost.store.tables import utc_now

    with open_workspace() as workspace:
        began_s = time.monotonic()
        timeout_s = workspace.settings.notify_timeout_s
        channel_setup.try_out(workspace.store, name, timeout_s, utc_now())
    terminal.say(f"Sent to {name} in {time.monotonic() - began_s:.1f} s.")


@channels_app.command("enable")
def enable_command(name: Name) -> None:
    """Turn a channel on; it is told of what is open."""
    with open_workspace() as workspace:
        _turn(workspace, name, True)
    terminal.say(f"{name} is on.")


@channels_app.command("disable")
def disable_command(name: Name) -> None:
    """Turn a channel off; what is on its way to it is cancelled."""
    with open_workspace() as workspace:
        _turn(workspace, name, False)
    terminal.say(f"{name} is off.")


def _turn(workspace: Workspace, name: str, on: bool) -> None:
    from soundpost.monitoring import channel_setup
    from soundpost.store.tables import utc_now

    with workspace.store.session() as session:
        channel_setup.change(session, name, {"enabled": on}, utc_now(), workspace.settings)


def _read_secretly() -> str:
    """Read an address from standard input, without showing it where a person types it."""
    if sys.stdin.isatty():
        return str(typer.prompt("URL", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _document(session: Session, row: Channel) -> dict[str, Any]:
    from soundpost.monitoring.delivery import is_open, shown_address
    from soundpost.store import sources
    from soundpost.store.tables import utc_now

    fields = ("name", "kind", "enabled", "min_severity", "tag", "settings", "failures")
    times = ("group_wait_s", "group_interval_s", "repeat_s")
    moments = ("open_until", "failed_at", "sent_at", "created_at")
    document = {field: getattr(row, field) for field in (*fields, *times)}
    document |= {field: _moment(getattr(row, field)) for field in moments}
    return {
        **document,
        "address": shown_address(row),
        "signed": row.secret is not None,
        "source": sources.get(session, row.source_id).name if row.source_id else None,
        "circuit_open": is_open(row, utc_now()),
        "error_code": row.error_code,
        "error_detail": row.error_detail,
    }


def _moment(moment: Any) -> str | None:
    return moment.isoformat() if moment is not None else None


def _row(document: dict[str, Any]) -> tuple[object, ...]:
    scope = document["source"] or (f"tag {document['tag']}" if document["tag"] else "all")
    state = "left alone" if document["circuit_open"] else "on"
    return (
        document["name"],
        document["kind"],
        state if document["enabled"] else "off",
        scope,
        document["min_severity"],
        document["address"],
        document["error_detail"] or "",
    )
