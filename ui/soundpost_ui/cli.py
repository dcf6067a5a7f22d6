"""The command line: `soundpost`. Each command lives in `soundpost_ui.commands`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError

from soundpost.errors import InvalidValueError, SoundpostError
from soundpost_ui import terminal
from soundpost_ui.commands import (
    baseline,
    caption,
    channels,
    demo,
    doctor,
    drill,
    explain,
    incidents,
    index,
    ingest,
    jobs,
    listen,
    notifications,
    recordings,
    rules,
    search,
    serve,
    train,
    up,
    watch,
    watch_folder,
)
from soundpost_ui.workspace import platform_needed

# What sysexits.h calls an internal software error.
_SOFTWARE = 70

app = typer.Typer(
    help="Search sound archives by text, and know when a place or a machine sounds different.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are environment variables SOUNDPOST_*; soundpost doctor shows them.",
)
COMMANDS = (
    ingest,
    watch_folder,
    listen,
    search,
    explain,
    caption,
    recordings,
    jobs,
    channels,
    notifications,
    watch,
    incidents,
    rules,
    index,
    baseline,
    drill,
    train,
    up,
    serve,
    doctor,
    demo,
)
for module in COMMANDS:
    module.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"soundpost {version('soundpost')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where errors come from (SOUNDPOST_DEBUG=1).")
    ] = False,
) -> None:
    """Search sound archives by text, and know when a place or a machine sounds different."""
    if debug:
        os.environ["SOUNDPOST_DEBUG"] = "1"


def main() -> None:
    """Run the command line; an error of Soundpost ends with code 2 and its remedy."""
    # Threads of a model that wait for each other otherwise spin, and take the very cores that
    # decode the next recordings: an ingest takes twice as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with platform_needed():
            app()
    except SoundpostError as error:
        _fail(error)
    except ValidationError as error:
        _fail(_setting_error(error), error)
    except Exception as error:  # noqa: BLE001  # Anything else is our mistake; say so, briefly.
        _fail(_Unexpected(f"{type(error).__name__}: {error}"), error, _SOFTWARE)


class _Unexpected(SoundpostError):
    """This is a mistake in Soundpost itself."""

    code = "unexpected"
    remedy = "Run it again with --debug, and report what it prints."


def _fail(error: SoundpostError, cause: Exception | None = None, code: int = 2) -> None:
    if os.environ.get("SOUNDPOST_DEBUG"):
        raise cause or error
    terminal.print_error(error)
    sys.exit(code)


def _setting_error(error: ValidationError) -> SoundpostError:
    first = error.errors()[0]
    name = "SOUNDPOST_" + "_".join(str(part) for part in first["loc"]).upper()
    return InvalidValueError(f"{name}={first['input']}", first["msg"])
