"""`soundpost listen`: record a stream or a device into the archive."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.ingest import stopping_on_signals
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.archive.listen import Admit, Heard
    from soundpost.archive.summary import Summary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("listen")(listen_command)


def listen_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="URL|DEVICE", help="rtsp://, http:// (HLS too), a file, or alsa:default."
        ),
    ],
    source: Annotated[str, typer.Option(help="The microphone, machine or place it is.")],
    segment_s: Annotated[
        float, typer.Option(min=1.0, max=86_400.0, help="Length of a recording.")
    ] = 60.0,
    stall_s: Annotated[
        float,
        typer.Option(min=0.1, max=3600.0, help="Connect again when nothing comes for so long."),
    ] = 15.0,
) -> None:
    """Listen to a stream or a device; every segment becomes a recording with its exact time.

    A lost stream is connected again. Recordings are queued for workers, and wait on disk while
    the archive cannot take them. It goes on until it is stopped; a file ends by itself.
    """
    from soundpost.archive.listen import Listener, ListenOptions
    from soundpost.archive.spool import Spool, folder_name
    from soundpost.audio.live import LiveTarget

    wanted = LiveTarget.parse(target)
    options = ListenOptions(segment_s=segment_s, stall_s=stall_s)
    with open_workspace() as workspace, terminal.showing_logs():
        folder = workspace.settings.spool_dir / folder_name(source)
        spool = Spool(folder, workspace.queue.check_disk)
        # Every source waits at its own moments: many that lose one server must not return at once.
        rng = random.Random(source)
        listener = Listener(wanted, spool, _admit_into(workspace, source), rng, options)
        with stopping_on_signals("Stopping; the last part is being kept.") as stop:
            terminal.hint(f"Listening to {terminal.printable(wanted.shown)}; Ctrl-C ends it.")
            heard = listener.run(stop)
    terminal.say(_headline(heard))


def _admit_into(workspace: Workspace, source: str) -> Admit:
    from soundpost.archive.discover import Discovery
    from soundpost.archive.plan import IngestOptions, Timing
    from soundpost.archive.register import register
    from soundpost.store import sources

    with workspace.store.session() as session:
        # A name that cannot be is said now, and not when the first segment is there.
        sources.ensure(session, source)
    options = IngestOptions(source=source, timing=Timing(from_name=True), copy=True)
    store, queue, objects = workspace.store, workspace.queue, workspace.objects

    def admit(paths: list[Path]) -> Summary:
        found = Discovery(files=paths)
        return register(found, options, store, queue, objects, patient=False)

    return admit


def _headline(heard: Heard) -> str:
    length = terminal.clock(heard.audio_s)
    segments = terminal.plural(heard.segments, "recording")
    return f"{segments}, {length} in all, over {terminal.plural(heard.connections, 'connection')}."
