"""`soundpost doctor` and `upgrade`: is all well, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from soundpost.config import load_settings
from soundpost_ui import terminal
from soundpost_ui.commands.search import Json
from soundpost_ui.workspace import open_workspace

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor")(doctor_command)
    app.command("upgrade")(upgrade_command)


def doctor_command(
    files: Annotated[
        bool, typer.Option("--files", help="Look at every file of the archive too.")
    ] = False,
    rebuild_index: Annotated[
        bool, typer.Option("--rebuild-index", help="Build the index anew from the database.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check settings, database, model, index, disk and versions; the exit code is 1 on an error."""
    with open_workspace() as workspace:
        from soundpost_ui.checks import Check, diagnose, rebuild

        checks: list[Check] = []
        steps: list[Callable[[], list[Check]]] = [lambda: diagnose(workspace, files)]
        if rebuild_index:
            steps.insert(0, lambda: rebuild(workspace))
        for step in steps:
            checks += step()
    if as_json:
        terminal.print_json([check.to_document() for check in checks])
    else:
        for check in checks:
            _print(check.level, check.name, check.message, check.remedy)
    if any(check.level == "error" for check in checks):
        raise typer.Exit(1)


def upgrade_command() -> None:
    """Bring the tables of the database to this version of Soundpost; back it up first."""
    from soundpost_migrations.upgrade import current, upgrade

    url = load_settings().resolved_database_url
    before = current(url)
    upgrade(url)
    after = current(url)
    change = f"{before or 'empty'} to {after}" if before != after else f"{after}, as it was"
    terminal.say(f"The tables are at revision {change}.")


def _print(level: str, name: str, message: str, remedy: str) -> None:
    terminal.say(
        Text.assemble((f"{level:<8}", _STYLES[level]), f"{name:<10}", terminal.printable(message))
    )
    if remedy and level != "ok":
        terminal.say(f"{'':18}remedy: {remedy}")
