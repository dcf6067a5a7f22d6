"""`soundpost explain`: how one sound differs from another, in words that were checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from soundpost_ui import terminal
from soundpost_ui.commands.search import Json, resolve
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from soundpost.explain.between import Part
    from soundpost.explain.difference import Explanation

_MARKS = {"supported": ("yes", "green"), "contradicted": ("NO", "bold red")}
_UNMEASURED = ("not measurable", "dim")
_TIERS = {1: "In a sentence", 2: "In some sentences", 3: "In full"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain")(explain_command)


def explain_command(
    first: Annotated[
        str, typer.Argument(help="A file, or a recording's id; a part as NAME@START-END.")
    ],
    second: Annotated[str, typer.Argument(help="What is told apart from it, named the same way.")],
    tier: Annotated[
        int | None,
        typer.Option(help="1 short, 2 with details, 3 in full; default: all of them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how the second sound differs from the first.

    Everything that is said is checked against the recordings, and shown with what was measured.
    """
    from soundpost.explain.between import TIERS, check_tiers

    wanted = check_tiers(TIERS if tier is None else [tier])
    with open_workspace() as workspace:
        made = run_explain(workspace, first, second, wanted)
    if as_json:
        query = {"first": first, "second": second}
        terminal.print_json({"query": query, **made.to_document()})
        return
    print_explanation(made.to_document(), (first, second))


def run_explain(workspace: Workspace, first: str, second: str, tiers: Sequence[int]) -> Explanation:
    """Explain how two files, recordings or parts of them differ."""
    from soundpost.explain.between import explain_parts

    one, other = _part(workspace, first), _part(workspace, second)
    return explain_parts(workspace.store, workspace.explainer, one, other, tiers)


def _part(workspace: Workspace, text: str) -> Part:
    from soundpost.explain.between import Part

    stretch, path = resolve(workspace, text)
    return Part(path, stretch.start_s, stretch.end_s, text)


# --- how it is shown --------------------------------------------------------------------------


def print_explanation(
    document: Mapping[str, Any],
    names: tuple[str, str] | None = None,
    indent: str = "",
    tiers: Sequence[int] = (1, 2, 3),
) -> None:
    """Print an explanation: its texts, each with its claims, what was measured, and by whom.

    names: what the two recordings are called, if that is not clear from what stands before. A tier
    that says what a shorter one said is left out.
    """
    gone = document.get("without_audio")
    if gone:
        _say(indent, f"Explained by what was measured alone: {gone['detail']}")
    elif names is not None:
        _say(indent, _compared(document, names))
    printed: dict[str, str] = {}
    for tier, text in sorted(document["tiers"].items(), key=lambda item: int(item[0])):
        if int(tier) in tiers and text["text"] not in printed:
            _print_tier(int(tier), text, indent)
            printed[text["text"]] = text["written_by"]
    if document["summary"]:
        _say(indent, _measured(document["summary"]))
    _say(indent, _written_by(document, printed.values()), style="dim")


def _measured(summary: str) -> str:
    return summary if summary.startswith("Measured") else f"Measured: {summary}"


def _compared(document: Mapping[str, Any], names: tuple[str, str]) -> str:
    seconds = document["compared"]
    parts = [
        f"audio {number} is {name}, {terminal.clock(start_s, 1)}-{terminal.clock(end_s, 1)}"
        for number, (name, (start_s, end_s)) in enumerate(zip(names, seconds, strict=True), 1)
    ]
    return "; ".join(parts)


def _print_tier(tier: int, text: Mapping[str, Any], indent: str) -> None:
    by = "" if text["written_by"] == "model" else f", from {text['written_by']} alone"
    _say(indent, f"{_TIERS[tier]}{by}:", style="bold")
    _say(f"{indent}  ", text["text"])
    for claim in text["claims"]:
        _print_claim(claim, f"{indent}    ")
    if text["excluded"]:
        said = ", ".join(f'"{quote}"' for quote in text["excluded"])
        _say(
            f"{indent}    ",
            f"taken back, as the recordings do not bear it out: {said}",
            style="dim",
        )
    if text.get("added"):
        said = " ".join(text["added"])
        _say(f"{indent}    ", f"added, as it is measured: {said}", style="dim")


def _print_claim(claim: Mapping[str, Any], indent: str) -> None:
    mark, style = _MARKS.get(claim["verdict"], _UNMEASURED)
    why = claim["reason"]
    if not any(character.isdigit() for character in why):
        measured = [f"{name} {value:g}" for name, value in claim["measurement"].items()]
        why = "; ".join(part for part in (why, ", ".join(measured)) if part)
    line = Text.assemble(
        (f"{indent}{mark:<3}", style),
        f' "{terminal.printable(claim["quote"])}"',
        (f"  {why}", "dim"),
    )
    terminal.say(line)


def _written_by(document: Mapping[str, Any], shown: Collection[str]) -> str:
    if "model" in shown:
        return f"Written by {document['model']} {str(document['revision'])[:12]}, then checked."
    return "Written from measurements alone."


def _say(indent: str, text: str, style: str = "") -> None:
    for line in terminal.printable(text).splitlines():
        terminal.say(Text(f"{indent}{line}", style=style))
