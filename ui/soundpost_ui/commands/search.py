"""`soundpost search`, `similar` and `clip`: find a moment, find more like it, take it out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from soundpost_ui import terminal
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.archive.clips import Stretch
    from soundpost.archive.rerank import Reranking
    from soundpost.archive.search import Example, Hit, SearchOptions, SearchResult

Count = Annotated[int, typer.Option("-k", help="How many hits at most.")]
SourceName = Annotated[str | None, typer.Option(help="Only this source.", show_default=False)]
After = Annotated[
    str | None,
    typer.Option(help="Only what was heard from then on: 2026-03-15T04:30.", show_default=False),
]
Before = Annotated[
    str | None, typer.Option(help="Only what was heard before then.", show_default=False)
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Zone of --after and --before; default: the source's, or UTC."),
]
MinScore = Annotated[float, typer.Option(help="How relevant a hit must be, 0 to 1.")]
RerankOption = Annotated[
    str,
    typer.Option(
        "--rerank",
        metavar="auto|off|N",
        help="How many of the first hits are put in order by looking at them together.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# soundpost.archive.search.MIN_SCORE, which a bare install cannot import; a test compares them.
DEFAULT_MIN_SCORE = 0.3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("search")(search_command)
    app.command("similar")(similar_command)
    app.command("clip")(clip_command)


def search_command(
    text: Annotated[str, typer.Argument(help="What to listen for, in your own words.")],
    k: Count = 10,
    source: SourceName = None,
    after: After = None,
    before: Before = None,
    timezone: Timezone = None,
    min_score: MinScore = DEFAULT_MIN_SCORE,
    rerank: RerankOption = "auto",
    as_json: Json = False,
) -> None:
    """Find the moments that sound like a text.

    Finding nothing relevant is an answer too: the exit code is 0, the list of hits empty.
    """
    from soundpost.archive.rerank import read_rerank

    with open_workspace() as workspace:
        options = search_options(workspace, k, source, after, before, timezone, min_score)
        options = replace(options, rerank=read_rerank(rerank))
        options.check()
        result = run_search(workspace, text, options)
    _show(result, {"text": text}, as_json, asked=rerank != "auto")


def similar_command(
    example: Annotated[
        str, typer.Argument(help="A file, or a recording's id; a part as NAME@START-END.")
    ],
    k: Count = 10,
    source: SourceName = None,
    after: After = None,
    before: Before = None,
    timezone: Timezone = None,
    min_score: MinScore = DEFAULT_MIN_SCORE,
    as_json: Json = False,
) -> None:
    """Find what sounds like a file or like a part of a recording.

    Times are seconds, m:ss or h:mm:ss: soundpost similar rain.wav@1:05-1:12, or 12@5-10.
    """
    with open_workspace() as workspace:
        options = search_options(workspace, k, source, after, before, timezone, min_score)
        options.check()
        result = run_similar(workspace, example, options)
    _show(result, {"example": example}, as_json)


def clip_command(
    stretch: Annotated[
        str, typer.Argument(help="A recording's id or a file; a part as NAME@START-END.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write: .wav, .flac or .aiff.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a recording, or a part of it, to a file: mono, exact to the sample."""
    from soundpost.archive.clips import write_clip

    with open_workspace() as workspace:
        part, path = resolve(workspace, stretch)
        clip = write_clip(path, out, part.start_s, part.end_s, force)
    if as_json:
        document = {"path": str(clip.path), "samples": clip.samples}
        terminal.print_json({**document, "sample_rate_hz": clip.sample_rate_hz})
        return
    length = terminal.clock(clip.duration_s, 3)
    terminal.say(f"{clip.path}: {length}, {clip.samples:,} samples at {clip.sample_rate_hz:,} Hz")


def run_search(workspace: Workspace, text: str, options: SearchOptions) -> SearchResult:
    """Search by text."""
    from soundpost.archive.search import search_text

    parts = workspace.store, workspace.encoder, workspace.index
    if options.rerank == "off":
        return search_text(text, options, *parts)
    return search_text(text, options, *parts, workspace.second_stage)


def run_similar(workspace: Workspace, name: str, options: SearchOptions) -> SearchResult:
    """Search by a file or a recording."""
    from soundpost.archive.search import search_similar

    example = example_named(workspace, name)
    return search_similar(example, options, workspace.store, workspace.encoder, workspace.index)


def search_options(
    workspace: Workspace,
    k: int,
    source: str | None,
    after: str | None,
    before: str | None,
    timezone: str | None,
    min_score: float,
) -> SearchOptions:
    """Read what was typed. Raises InvalidValueError for times and zones that cannot be read."""
    from soundpost.archive.recorder_names import moment_from_text, zone_named
    from soundpost.archive.search import SearchOptions

    zone = zone_named(timezone or _zone_of(workspace, source))
    moments = [moment_from_text(text, zone).at if text else None for text in (after, before)]
    return SearchOptions(k, source, moments[0], moments[1], min_score)


def print_result(result: SearchResult, asked: bool = False) -> None:
    """Print hits, or how far the best there was is from being one.

    asked: reranking was asked for in so many words, so it is said if there is none.
    """
    for place, hit in enumerate(result.hits, start=1):
        _print_hit(place, hit)
    if result.hits:
        _print_reranking(result.rerank, asked)
        return
    terminal.say(f"Nothing found above {result.min_score:.2f}.")
    if result.nearest is not None:
        path = terminal.printable(terminal.short_path(result.nearest.path))
        at = terminal.clock(result.nearest.peak_s)
        terminal.hint(f"The nearest, at {result.nearest.relevance:.2f}, was {path} at {at}.")
    elif result.searched == 0:
        terminal.hint("No recording meets the filters.")


def _show(result: SearchResult, query: dict[str, str], as_json: bool, asked: bool = False) -> None:
    if as_json:
        terminal.print_json({"query": query, **result.to_document()})
    else:
        print_result(result, asked)


def _print_reranking(reranking: Reranking, asked: bool) -> None:
    """Say what ordered the hits, unless that is as it was asked for or as it always is here."""
    if reranking.applied:
        judged = terminal.plural(reranking.candidates, "hit")
        how = f" in {terminal.plural(reranking.steps, 'step')}" if reranking.steps else ""
        terminal.hint(f"{reranking.reranker} put {judged} in order{how}, {reranking.took_s:.3f} s.")
        if reranking.left_out:
            terminal.hint(f"It left out {reranking.left_out}: their vectors are damaged.")
    elif reranking.reason not in (_NO_NEWS if asked else _NO_NEWS_UNASKED):
        terminal.hint(f"In the order of similarity: [{reranking.reason}] {reranking.detail}.")


_NO_NEWS = ("off", "by-example", "nothing-to-order")
_NO_NEWS_UNASKED = (*_NO_NEWS, "no-reranker", "no-claim")


def _print_hit(place: int, hit: Hit) -> None:
    span = f"{terminal.clock(hit.start_s)}-{terminal.clock(hit.end_s)}"
    score = Text.assemble(
        (f"{place:>2}  ", "dim"),
        (f"{hit.relevance:.2f} ", "bold"),
        (terminal.bar(hit.relevance), "green"),
        (f"  {span}", "bold cyan"),
        f", clearest at {terminal.clock(hit.peak_s)}",
    )
    terminal.say(score)
    path = terminal.printable(terminal.short_path(hit.path))
    terminal.say(f"    {path}")
    details = [f"recording {hit.recording_id}", hit.source]
    if hit.at is not None:
        details.append(terminal.wall_clock(hit.at, hit.at.tzinfo or UTC))
    if hit.joint_probability is not None:
        details.append(f"similarity {hit.similarity:.2f}")
        details.append(f"joint {hit.joint_probability:.2f}")
        details.append(f"score {hit.score:.2f}")
    details += [f"{label} {probability:.2f}" for label, probability in hit.tags]
    terminal.say(Text(f"    {' · '.join(details)}", style="dim"))
    if hit.caption is not None:
        terminal.say(Text(f"    {_said(hit)}", style="dim italic"))


def _said(hit: Hit) -> str:
    """Write the caption of a hit, and what its words had to do with it."""
    why = {
        ("words",): "found by its words alone",
        ("sound", "words"): "found by its sound and its words",
    }.get(hit.matched, "")
    return f'"{terminal.printable(hit.caption or "")}"' + (f" ({why})" if why else "")


def example_named(workspace: Workspace, name: str) -> Example:
    """Embed a file or a recording, or a part of it."""
    from soundpost.archive.search import example_from_file

    part, path = resolve(workspace, name)
    known = part.recording_id or _recording_at(workspace, path)
    return example_from_file(path, workspace.encoder, part.start_s, part.end_s, known)


def resolve(workspace: Workspace, text: str) -> tuple[Stretch, Path]:
    """Return what was named and the file that holds it."""
    from soundpost.archive.clips import parse_stretch
    from soundpost.errors import PathNotFoundError
    from soundpost.store import recordings

    part = parse_stretch(text)
    if part.recording_id is not None:
        with workspace.store.reading() as session:
            recording = recordings.get(session, part.recording_id)
        return part, workspace.objects.open_local(recording)
    path = Path(part.name)
    if not part.name.strip() or not path.exists():
        raise PathNotFoundError(part.name)
    return part, path


def _recording_at(workspace: Workspace, path: Path) -> int | None:
    from soundpost.store import recordings

    with workspace.store.reading() as session:
        known = recordings.by_path(session, str(path.absolute()))
    return known.id if known else None


def _zone_of(workspace: Workspace, source: str | None) -> str:
    from soundpost.store import sources

    if source is None:
        return "UTC"
    with workspace.store.reading() as session:
        return sources.by_name(session, source).timezone
