"""`soundpost watch-folder`: take every recording that appears in a folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost_ui import terminal
from soundpost_ui.commands.ingest import ingest_options, print_summary, stopping_on_signals
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.archive.plan import IngestOptions
    from soundpost.archive.summary import Summary
    from soundpost.archive.watch_folder import Admit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch-folder")(watch_folder_command)


def watch_folder_command(
    folder: Annotated[Path, typer.Argument(help="The folder; what is below it counts too.")],
    source: Annotated[
        str, typer.Option(help="The microphone, machine, place or archive they are from.")
    ],
    settle_s: Annotated[
        float,
        typer.Option(min=0.0, max=3600.0, help="How long a file must not change to be taken."),
    ] = 2.0,
    time_from_name: Annotated[
        bool, typer.Option("--time-from-name", help="Read when it began from the file's name.")
    ] = False,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="Zone of the recorder's clock, as Europe/Berlin. Default: the source's, or UTC.",
            show_default=False,
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Keep a copy of the audio; else it stays in place.")
    ] = False,
    poll: Annotated[
        bool | None,
        typer.Option(
            "--poll/--no-poll",
            help="Look again and again, for shares that announce no changes. Default: as needed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Watch a folder and take each recording when it has stopped growing.

    What is there already is taken first; what the archive knows costs nothing. Recordings are
    queued for workers. It goes on until it is stopped.
    """
    from soundpost.archive.watch_folder import FolderWatcher
    from soundpost.errors import PathNotFoundError

    if not folder.is_dir():
        raise PathNotFoundError(folder, "there is no such folder")
    with open_workspace() as workspace, terminal.showing_logs():
        options = ingest_options(workspace, source, timezone, None, time_from_name, copy)
        with stopping_on_signals("Stopping; what was taken is in the archive.") as stop:
            admit = _admit_into(workspace, options, stop)
            watcher = FolderWatcher(folder, admit, settle_s=settle_s, force_polling=poll)
            terminal.hint(f"Watching {terminal.printable(str(folder))}; Ctrl-C ends it.")
            watcher.run(stop)


def _admit_into(workspace: Workspace, options: IngestOptions, stop: threading.Event) -> Admit:
    from soundpost.archive.discover import Discovery
    from soundpost.archive.register import register

    store, queue, objects = workspace.store, workspace.queue, workspace.objects

    def admit(paths: list[Path]) -> Summary:
        summary = register(Discovery(files=paths), options, store, queue, objects, stop=stop)
        if summary.reached > summary.duplicate:
            print_summary(summary)
        return summary

    return admit
