"""`soundpost demo`: see it work in a few minutes, on an archive made for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from soundpost.config import Settings, load_settings
from soundpost_ui import terminal
from soundpost_ui.commands.baseline import make_baseline, print_baseline
from soundpost_ui.commands.incidents import show_incident
from soundpost_ui.commands.ingest import print_summary, run_ingest, stopping_on_signals
from soundpost_ui.commands.search import print_result, run_search, run_similar
from soundpost_ui.commands.watch import run_watch
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost_ui.demo import Archive, PumpRoom, Story

_HITS = 3
# Findings whose explanations are printed: one in full, one in a sentence.
_EXPLAINED = 2
_PUMP = "pump-3"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo_command)


def demo_command(
    keep: Annotated[
        Path | None,
        typer.Option(help="Make it in this folder and keep it.", show_default=False),
    ] = None,
) -> None:
    """Build a small archive, search it by text and by example, and watch a machine."""
    with _folder(keep) as folder:
        from soundpost_ui.demo import Story, build_archive, build_gate, build_pump_room

        settings = _settings(folder)
        story = Story()
        _chapter("1", f"An archive is made in {folder}")
        archive = build_archive(folder / "audio", settings.data, story)
        _introduce(archive)
        with open_workspace(settings) as workspace:
            _ingest(workspace, archive)
            _search(workspace, story)
            if workspace.second_stage.reranker is not None:
                _rerank(workspace, build_gate(folder / "audio"), story)
            _find_similar(workspace, archive)
            _watch(workspace, build_pump_room(folder / "audio"))
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
    """Return the user's settings with a home of the demo's own, whatever theirs is.

    Who comes to see reranking does not mind a second, and the machine may be busy.
    """
    places = {"home": folder / "home", "database_url": "", "objects_url": ""}
    changes = {**places, "rerank_budget_s": 5.0}
    return load_settings().model_copy(update=changes)


def _introduce(archive: Archive) -> None:
    for place in (archive.yard, archive.workshop):
        terminal.say(f"{place.name}: {terminal.plural(len(list(place.iterdir())), 'file')}")
    if archive.real:
        terminal.say(f"field: {len(archive.real)} real clips of the evaluation data")
    else:
        terminal.say("(with SOUNDPOST_DATA set, real clips would join them)")


def _ingest(workspace: Workspace, archive: Archive) -> None:
    _chapter("2", "Everything in it is brought in: soundpost ingest FOLDER")
    places = {"yard": [archive.yard], "workshop": [archive.workshop], "field": archive.real}
    for source, paths in places.items():
        if paths:
            _bring_in(workspace, paths, source, source, from_name=source != "field")


def _bring_in(
    workspace: Workspace, paths: Sequence[Path], name: str, source: str, *, from_name: bool = True
) -> None:
    from soundpost.archive.discover import Selection, find_files
    from soundpost.archive.plan import IngestOptions, Timing

    batch_size = workspace.settings.batch_size
    options = IngestOptions(
        source=source, timing=Timing(from_name=from_name), batch_size=batch_size
    )
    _typed(f"soundpost ingest {name} --source {source}")
    with stopping_on_signals() as stop:
        summary = run_ingest(workspace, find_files(paths, Selection()), options, stop)
    print_summary(summary)
    if summary.interrupted:
        raise typer.Exit(130)


def _search(workspace: Workspace, story: Story) -> None:
    from soundpost.archive.search import SearchOptions

    _chapter("3", "Then you say what you are looking for")
    for text in (*story.texts, story.hopeless):
        _typed(f'soundpost search "{text}" -k {_HITS}')
        print_result(run_search(workspace, text, SearchOptions(k=_HITS)))
        terminal.say()


def _rerank(workspace: Workspace, gate: Path, story: Story) -> None:
    """Show one query before and after reranking, on recordings that differ in their order alone."""
    from soundpost.archive.search import SearchOptions

    terminal.say("At a gate the same things are heard in one order and in the other.")
    _bring_in(workspace, [gate], "gate", "gate")
    options = SearchOptions(k=_HITS, source="gate")
    terminal.say("\nSimilarity knows what is heard, and hardly when:")
    _typed(f'soundpost search "{story.in_order}" -k {_HITS} --source gate --rerank off')
    print_result(run_search(workspace, story.in_order, replace(options, rerank="off")))
    terminal.say("\nReranking looks at each of them as it goes on:")
    _typed(f'soundpost search "{story.in_order}" -k {_HITS} --source gate')
    print_result(run_search(workspace, story.in_order, options))


def _find_similar(workspace: Workspace, archive: Archive) -> None:
    from soundpost.archive.search import SearchOptions

    _chapter("4", "Or you have a sound and want more like it")
    name = terminal.short_path(str(archive.example))
    _typed(f'soundpost similar "{name}@2-7" -k {_HITS}')
    print_result(run_similar(workspace, f"{archive.example}@2-7", SearchOptions(k=_HITS)))


def _watch(workspace: Workspace, room: PumpRoom) -> None:
    _chapter("5", "A pump is watched, and its bearing wears out")
    _bring_in(workspace, [room.normal], "pump-3/normal", _PUMP)
    _typed(f"soundpost baseline create {_PUMP}")
    print_baseline(make_baseline(workspace, _PUMP), _PUMP)
    for place, what in (
        (room.quiet, "Some hours go by in which nothing happens."),
        (room.worn, "Then the bearing begins to knock."),
        (room.mended, "It is mended."),
    ):
        terminal.say(f"\n{what}")
        _bring_in(workspace, [place], f"pump-3/{place.name}", _PUMP)
        _typed(f"soundpost watch {_PUMP}")
        run_watch(workspace, _PUMP)
        if place == room.worn:
            _typed("soundpost incidents show 1")
            show_incident(workspace, 1, explained=_EXPLAINED)


def _typed(command: str) -> None:
    terminal.say(Text(f"$ {command}", style="bold"))


def _what_next(keep: Path | None) -> None:
    _chapter("6", "Now your own")
    terminal.say("soundpost ingest ~/recordings --source garden --time-from-name")
    terminal.say('soundpost search "an owl at night" --source garden')
    terminal.say("soundpost baseline create garden --learn 7d")
    terminal.say("soundpost channels add me mailto://user:password@example.org")
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
