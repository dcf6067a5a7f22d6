"""`soundpost caption`: what a sound is, in words; for the whole archive too."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.text import Text

from soundpost_ui import terminal
from soundpost_ui.commands.ingest import stopping_on_signals
from soundpost_ui.commands.search import Json, resolve
from soundpost_ui.workspace import Workspace, open_workspace

_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("caption")(caption_command)


@dataclass(frozen=True)
class _Line:
    """A wording of a window; place 1 is the best. Seconds from the start of what was named."""

    start_s: float
    end_s: float
    place: int
    text: str
    similarity: float | None


def caption_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A file, or a recording's id; a part as NAME@START-END.", show_default=False
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Wordings of each window, 1 to 20.")] = 3,
    archive: Annotated[
        bool, typer.Option("--archive", help="Caption what is in the archive and is not yet.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a file or a recording sounds like, window by window.

    With --archive everything that is embedded gets captions that searches find; interrupted, it
    goes on where it was when the command is given again.
    """
    from soundpost.errors import InvalidValueError
    from soundpost.explain.captioning import check_count

    if archive == (name is not None):
        raise InvalidValueError(name or "nothing", "name a file or recording, or say --archive")
    check_count(n)
    with open_workspace() as workspace:
        if name is None:
            _caption_archive(workspace, n, as_json)
            return
        lines = _lines(workspace, name, n)
    if as_json:
        captioner = {"name": workspace.captioner.name, "revision": workspace.captioner.revision}
        captions = [asdict(line) for line in lines]
        terminal.print_json({"query": {"name": name}, "captioner": captioner, "captions": captions})
        return
    _print(lines)


def _lines(workspace: Workspace, name: str, n: int) -> list[_Line]:
    """Caption what lies in the file behind a name, heard as ingest would hear it."""
    from soundpost.archive.waves import WaveEmbedder
    from soundpost.explain.between import Part, read_excerpt
    from soundpost.explain.captioning import caption_windows

    stretch, path = resolve(workspace, name)
    captioner = workspace.captioner
    part = Part(path, stretch.start_s, stretch.end_s, name)
    excerpt = read_excerpt(part, workspace.encoder.spec.sample_rate_hz)
    (rows,) = WaveEmbedder(workspace.encoder)([(excerpt.wave, excerpt.rate_hz)])
    return [
        _Line(
            row.start_s + stretch.start_s,
            row.end_s + stretch.start_s,
            place,
            one.text,
            one.similarity,
        )
        for row, found in zip(rows, caption_windows(rows, captioner, n), strict=True)
        for place, one in enumerate(found, start=1)
    ]


def caption_waiting(workspace: Workspace, stop: threading.Event, quiet: bool = False) -> None:
    """Do the captioning that was asked for and that nobody does yet.

    Where there is no captioner, or none that can be loaded, it is left, and said.
    """
    from soundpost.errors import ModelError
    from soundpost.jobs import CAPTION
    from soundpost.store import jobs
    from soundpost_ui.commands.watch import explain_tools
    from soundpost_workers.explain import caption

    try:
        name = workspace.captioner.name
    except ModelError as error:
        terminal.hint(f"Nothing is captioned: [{error.code}] {error}")
        return
    with workspace.store.reading() as session:
        waiting = jobs.find(session, kind=CAPTION, state="queued", limit=None)
    tools, tried = explain_tools(workspace), []
    for job in waiting:
        if stop.is_set():
            break
        if caption(tools, job.id, stop):
            tried.append(job.id)
    with workspace.store.reading() as session:
        ended = [jobs.get(session, number) for number in tried]
    done = sum(job.state == "done" for job in ended)
    if done and not quiet:
        terminal.say(f"{terminal.plural(done, 'recording')} put into words by {name}.")
    for job in ended:
        if job.state != "done" and job.error_code is not None:
            terminal.hint(f"Job {job.id} (caption) failed: [{job.error_code}]")
            terminal.hint(f"See why: soundpost jobs --traceback {job.id}")


def _caption_archive(workspace: Workspace, n: int, as_json: bool) -> None:
    """Caption what is not in words yet, and say how much that was."""
    from soundpost.explain.captioning import caption_archive

    captioned: list[int] = []

    def tell(recording_id: int, written: int) -> None:
        captioned.append(recording_id)
        if not as_json:
            terminal.hint(f"recording {recording_id}: {terminal.plural(written, 'caption')}")

    with stopping_on_signals() as stop:
        written = caption_archive(workspace.store, workspace.captioner, n, tell, stop.is_set)
        interrupted = stop.is_set()
    if as_json:
        document = {"recordings": len(captioned), "captions": written, "interrupted": interrupted}
        terminal.print_json(document)
    else:
        recordings = terminal.plural(len(captioned), "recording")
        terminal.say(f"{terminal.plural(written, 'caption')} of {recordings} written.")
    if interrupted:
        raise typer.Exit(_INTERRUPTED)


def _print(lines: Sequence[_Line]) -> None:
    for line in lines:
        span = f"{terminal.clock(line.start_s)}-{terminal.clock(line.end_s)}"
        place = f"{span}  " if line.place == 1 else " " * (len(span) + 2)
        similar = "" if line.similarity is None else f"  {line.similarity:.2f}"
        text = terminal.printable(line.text)
        terminal.say(Text.assemble((place, "bold cyan"), text, (similar, "dim")))
