"""`soundpost ingest`: bring recordings in, watch it happen, read what became of each."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost_ui import terminal
from soundpost_ui.progress import showing_progress
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.archive.discover import Discovery
    from soundpost.archive.plan import IngestOptions
    from soundpost.archive.remote import RemoteListing
    from soundpost.archive.summary import Finding, Progress, Summary

_SHOWN = 20
_SHOWN_REMARKS = 3
_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest")(ingest_command)


def ingest_command(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, lists of them as @list.txt, or s3://bucket/prefix.",
            show_default=False,
        ),
    ] = None,
    from_file: Annotated[
        list[Path] | None, typer.Option(help="A list of paths, one a line.", show_default=False)
    ] = None,
    source: Annotated[
        str, typer.Option(help="The microphone, machine, place or archive they are from.")
    ] = "archive",
    recursive: Annotated[bool, typer.Option(help="Enter the folders within folders.")] = True,
    glob: Annotated[
        str | None,
        typer.Option(help="Only files like this: '*.wav', 'site-3/**/*.flac'.", show_default=False),
    ] = None,
    started_at: Annotated[
        str | None,
        typer.Option(help="When the recording began, as 2026-03-15T04:30.", show_default=False),
    ] = None,
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
    queue: Annotated[
        bool, typer.Option("--queue", help="Let workers embed it (soundpost up); return at once.")
    ] = False,
    commit_every: Annotated[
        int, typer.Option(hidden=True, min=1, help="Windows a transaction holds at most.")
    ] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Bring recordings into the archive: files, folders, lists or object stores.

    Nothing is copied unless you say --copy, the same content twice is one recording, and an
    interrupted run goes on where it was when the command is given again. What is in an object
    store is always copied.
    """
    named = [*(paths or []), *(f"@{path}" for path in from_file or [])]
    found, listings = _discover(named, recursive, glob)
    with open_workspace() as workspace:
        options = ingest_options(workspace, source, timezone, started_at, time_from_name, copy)
        options = replace(options, chunk_windows=commit_every)
        options.check(len(found.files) + sum(len(listing.objects) for listing in listings))
        with stopping_on_signals() as stop:
            if queue:
                summary = run_register(workspace, found, options, stop)
            else:
                summary = run_ingest(workspace, found, options, stop, quiet=as_json)
            for listing in listings:
                summary.add(_run_remote(workspace, listing, options, stop, as_json, queue))
    if as_json:
        terminal.print_json(summary.to_document())
    else:
        print_summary(summary)
    if summary.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if summary.only_failures:
        raise typer.Exit(1)


def run_ingest(
    workspace: Workspace,
    found: Discovery,
    options: IngestOptions,
    stop: threading.Event,
    quiet: bool = False,
) -> Summary:
    """Ingest with a progress bar; what is new is sealed into the index if there is much of it."""
    from soundpost.archive.ingest import ingest
    from soundpost.store import models
    from soundpost_indexer.build import seal_if_due

    store, encoder, objects = workspace.store, workspace.encoder, workspace.objects
    with showing_progress(quiet) as progress:
        # No index is opened for it: searches are other processes, and read what is new from SQL.
        summary = ingest(
            found, options, store, encoder, None, objects, progress, stop, workspace.queue
        )
    if not summary.interrupted:
        with store.session() as session:
            models.switch_if_complete(session, workspace.model_id)
        seal_if_due(workspace.settings, store, workspace.model_id)
        _caption(workspace, stop, quiet)
    workspace.forget_index()
    return summary


def _caption(workspace: Workspace, stop: threading.Event, quiet: bool) -> None:
    """Put what is new into words, if the settings say so: nobody else may be there to do it."""
    from soundpost_ui.commands.caption import caption_waiting

    if workspace.settings.captions == "on":
        caption_waiting(workspace, stop, quiet)


def run_register(
    workspace: Workspace, found: Discovery, options: IngestOptions, stop: threading.Event
) -> Summary:
    """Ask for the windows of files by job, behind what comes in live."""
    from soundpost.archive.register import register
    from soundpost.jobs import BACKFILL

    store, jobs = workspace.store, workspace.queue
    return register(found, options, store, jobs, workspace.objects, priority=BACKFILL, stop=stop)


def _run_remote(
    workspace: Workspace,
    listing: RemoteListing,
    options: IngestOptions,
    stop: threading.Event,
    quiet: bool,
    queue: bool,
) -> Summary:
    """Ingest objects with a progress bar, or queue them, copying them either way."""
    from soundpost.archive.ingest import ingest
    from soundpost.archive.remote import ingest_remote
    from soundpost_indexer.build import seal_if_due

    store, objects = workspace.store, workspace.objects
    copying, total = replace(options, copy=True), len(listing.objects)
    with showing_progress(quiet) as progress:

        def admit(found: Discovery, before: Summary) -> Summary:
            if queue:
                return run_register(workspace, found, copying, stop)
            encoder = workspace.encoder

            def report(part: Progress) -> None:
                progress(part.after(before, total))

            return ingest(
                found, copying, store, encoder, None, objects, report, stop, workspace.queue
            )

        summary = ingest_remote(
            listing,
            options.source,
            store,
            admit,
            workspace.settings.fetch_dir,
            model_id=None if queue else workspace.model_id,
            timing=options.timing,
            stop=stop,
        )
    if not summary.interrupted and not queue:
        seal_if_due(workspace.settings, store, workspace.model_id)
        _caption(workspace, stop, quiet)
    return summary


_STOPPING = "Stopping; what is embedded is being written."


@contextmanager
def stopping_on_signals(said: str = _STOPPING) -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or termination sets; the second one ends at once."""
    stop = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        terminal.hint(f"{said} Again to end at once.")

    previous = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def print_summary(summary: Summary) -> None:
    """Print what became of the files: counts first, then everything that needs a look."""
    terminal.say(_headline(summary))
    if summary.not_audio:
        from soundpost.archive.discover import suffixes

        count = terminal.plural(len(summary.not_audio), "file")
        terminal.say(f"Not audio: {count}, {suffixes(summary.not_audio)}")
    if summary.left_out:
        terminal.say(f"Left out by --glob: {terminal.plural(summary.left_out, 'file')}")
    _print_findings("Failed", summary.failed)
    _print_findings("Truncated, kept as far as they go", summary.truncated)
    _print_findings("Remarked", summary.remarked, _SHOWN_REMARKS)
    if summary.windows:
        terminal.say(_speed(summary))
    if summary.interrupted:
        left = terminal.plural(summary.files - summary.reached, "file")
        terminal.say(f"Interrupted with {left} to go. Give the same command again to go on.")


def _headline(summary: Summary) -> str:
    parts = [f"{summary.ingested:,} ingested"] * bool(summary.ingested or not summary.queued)
    parts += [f"{summary.queued:,} queued"] * bool(summary.queued)
    parts += [f"{summary.duplicate:,} already there"]
    parts += [f"{summary.moved:,} moved"] * bool(summary.moved)
    parts += [f"{summary.dated:,} given their time"] * bool(summary.dated)
    parts += [f"{len(summary.failed):,} failed"]
    return f"{terminal.plural(summary.files, 'file')}: {', '.join(parts)}."


def _speed(summary: Summary) -> str:
    length = f"{summary.audio_s / 3600:.2f} h of audio in {summary.wall_s:.1f} s"
    return f"{length}, {summary.outside_encoder_share:.0%} of it outside the encoder."


def _print_findings(title: str, findings: Sequence[Finding], shown: int = _SHOWN) -> None:
    if not findings:
        return
    counts = Counter(finding.code for finding in findings).most_common()
    listed = ", ".join(f"{count:,} {code}" for code, count in counts)
    terminal.say(f"\n{title}: {listed}")
    for finding in findings[:shown]:
        # The message of an error names the file itself; once is enough.
        message = finding.message.replace(f": {finding.path}", "", 1)
        terminal.say(f"  {terminal.printable(terminal.short_path(finding.path))}")
        terminal.say(f"    [{finding.code}] {terminal.printable(message)}")
    if len(findings) > shown:
        terminal.say(f"  ... and {len(findings) - shown:,} more; --json lists all of them")
    for code, remedy in {item.code: item.remedy for item in findings if item.remedy}.items():
        terminal.say(f"  Remedy for {code}: {remedy}")


def _discover(
    paths: list[str], recursive: bool, glob: str | None
) -> tuple[Discovery, list[RemoteListing]]:
    from soundpost.archive.discover import Discovery, Selection, find_files
    from soundpost.archive.remote import find_remote, is_remote

    selection = Selection(recursive, glob)
    remote = [path for path in paths if is_remote(path)]
    local = [path for path in paths if not is_remote(path)]
    found = find_files(local, selection) if local or not remote else Discovery()
    return found, [find_remote(url, selection) for url in remote]


def ingest_options(
    workspace: Workspace,
    source: str,
    timezone: str | None,
    started_at: str | None,
    time_from_name: bool,
    copy: bool,
) -> IngestOptions:
    """Return the options of an ingest, as a person gave them."""
    from soundpost.archive.plan import IngestOptions, Timing
    from soundpost.archive.recorder_names import moment_from_text, zone_named

    zone = zone_named(timezone or _zone_of(workspace, source))
    moment = None if started_at is None else moment_from_text(started_at, zone)
    return IngestOptions(
        source=source,
        timezone=timezone,
        timing=Timing(moment, time_from_name, zone),
        copy=copy,
        batch_size=workspace.settings.batch_size,
        threads=workspace.settings.threads // 2,
    )


def _zone_of(workspace: Workspace, source: str) -> str:
    from soundpost.store import sources

    with workspace.store.reading() as session:
        zones = {known.name: known.timezone for known in sources.find_all(session)}
    return zones.get(source, "UTC")
