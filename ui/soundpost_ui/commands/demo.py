"""`soundpost demo`: see it work in a few minutes, on an archive made for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from soundpost.config import Settings, load_settings
from soundpost_ui import terminal
from soundpost_ui.commands.ingest import print_summary, run_ingest, stopping_on_signals
from soundpost_ui.commands.search import print_result, run_search, run_similar
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost_ui.demo import Archive, Story

_HITS = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo_command)


def demo_command(
    keep: Annotated[
        Path | None,
        typer.Option(help="Make it in this folder and keep it.", show_default=False),
    ] = None,
) -> None:
    """Build a small archive, ingest it, search it by text and by example."""
    with _folder(keep) as folder:
        from soundpost_ui.demo import Story, build_archive

        settings = _settings(folder)
        story = Story()
        _chapter("1", f"An archive is made in {folder}")
        archive = build_archive(folder / "audio", settings.data, story)
        _introduce(archive)
        with open_workspace(settings) as workspace:
            _ingest(workspace, archive)
            _search(workspace, story)
            _find_similar(workspace, archive)
        _what_next(keep)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="soundpost-demo-") as folder:
        yield Path(folder)


def _settings(folder: Path) -> Settings:
    """Return the user's settings with a home of the demo's own, whatever theirs is."""
    changes = {"home": folder / "home", "database_url": "", "objects_url": ""}
    return load_settings().model_copy(update=changes)


def _introduce(archive: Archive) -> None:
    for place in (archive.yard, archive.workshop):
        terminal.say(f"{place.name}: {terminal.plural(len(list(place.iterdir())), 'file')}")
    if archive.real:
        terminal.say(f"field: {len(archive.real)} real clips of the evaluation data")
    else:
        terminal.say("(with SOUNDPOST_DATA set, real clips would join them)")


def _ingest(workspace: Workspace, archive: Archive) -> None:
    from soundpost.archive.discover import Selection, find_files
    from soundpost.archive.plan import IngestOptions, Timing

    _chapter("2", "Everything in it is brought in: soundpost ingest FOLDER")
    batch_size = workspace.settings.batch_size
    places = {"yard": [archive.yard], "workshop": [archive.workshop], "field": archive.real}
    for source, paths in places.items():
        if not paths:
            continue
        timing = Timing(from_name=source != "field")
        options = IngestOptions(source=source, timing=timing, batch_size=batch_size)
        found = find_files(paths, Selection())
        terminal.say(Text(f"$ soundpost ingest {source} --source {source}", style="bold"))
        with stopping_on_signals() as stop:
            summary = run_ingest(workspace, found, options, stop)
        print_summary(summary)
        if summary.interrupted:
            raise typer.Exit(130)


def _search(workspace: Workspace, story: Story) -> None:
    from soundpost.archive.search import SearchOptions

    _chapter("3", "Then you say what you are looking for")
    for text in (*story.texts, story.hopeless):
        terminal.say(Text(f'$ soundpost search "{text}" -k {_HITS}', style="bold"))
        print_result(run_search(workspace, text, SearchOptions(k=_HITS)))
        terminal.say()


def _find_similar(workspace: Workspace, archive: Archive) -> None:
    from soundpost.archive.search import SearchOptions

    _chapter("4", "Or you have a sound and want more like it")
    name = terminal.short_path(str(archive.example))
    terminal.say(Text(f'$ soundpost similar "{name}@2-7" -k {_HITS}', style="bold"))
    print_result(run_similar(workspace, f"{archive.example}@2-7", SearchOptions(k=_HITS)))


def _what_next(keep: Path | None) -> None:
    _chapter("5", "Now your own")
    terminal.say("soundpost ingest ~/recordings --source garden --time-from-name")
    terminal.say('soundpost search "an owl at night" --source garden')
    terminal.say("soundpost recordings --status failed    what could not be read, and why")
    terminal.say("soundpost doctor                        whether all is well")
    if keep is not None:
        home = keep.resolve() / "home"
        terminal.say(f"\nThis archive stays: SOUNDPOST_HOME='{home}' soundpost search ...")
    else:
        terminal.say("\nThis archive is gone with the demo; --keep FOLDER keeps it.")


def _chapter(number: str, title: str) -> None:
    terminal.say()
    terminal.say(Text(f"{number}. {title}", style="bold yellow"))
