"""`soundpost up`, `worker` and `beat`: the programs of a running installation."""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import find_spec
from typing import Annotated

import typer

from soundpost.errors import MissingExtraError
from soundpost_ui import terminal
from soundpost_ui.commands.ingest import stopping_on_signals
from soundpost_ui.commands.serve import DEFAULT_PORT
from soundpost_ui.supervisor import Program, Supervisor
from soundpost_ui.workspace import open_workspace

_APP = "soundpost_workers.app"
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
EMBED_QUEUES = "embed,explain"
# What must not wait behind the embedding of a long recording.
WATCH_QUEUES = "watch,notify,housekeeping"
ALL_QUEUES = f"{EMBED_QUEUES},{WATCH_QUEUES}"
INDEX_QUEUES = "index"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up_command)
    app.command("worker")(worker_command)
    app.command("beat")(beat_command)


def up_command(
    host: Annotated[str, typer.Option(help="Address of the service.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service.")] = (
        DEFAULT_PORT
    ),
) -> None:
    """Run service, workers, index builder and clock together; Ctrl-C ends them.

    What dies is started again. Nothing is lost by ending it at any moment.
    """
    with open_workspace() as workspace:
        # Once, here: the programs would otherwise all try at the same time.
        workspace.store.check_schema()
    lock = threading.Lock()

    def line(name: str, text: str) -> None:
        with lock:
            terminal.say(f"{name:>7} │ {terminal.printable(text)}")

    terminal.say(f"Service: http://{host}:{port}  (API: /docs)   Ctrl-C ends everything.")
    with stopping_on_signals("Stopping; what is being embedded is given back.") as stop:
        Supervisor(programs(host, port), line).run(stop)


def programs(host: str, port: int) -> list[Program]:
    """Return what an installation on one machine consists of."""
    soundpost = [sys.executable, "-m", "soundpost_ui"]
    return [
        Program("service", [*soundpost, "serve", "--host", host, "--port", str(port)]),
        Program("worker", [*soundpost, "worker", "--queues", EMBED_QUEUES]),
        Program("watch", [*soundpost, "worker", "--queues", WATCH_QUEUES, "--processes", "1"]),
        Program("index", [*soundpost, "worker", "--queues", INDEX_QUEUES]),
        Program("clock", [*soundpost, "beat"]),
    ]


def worker_command(
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas.")] = (
        ALL_QUEUES
    ),
    processes: Annotated[
        int, typer.Option(min=0, help="Processes; 0 takes SOUNDPOST_WORKER_PROCESSES.")
    ] = 0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a worker: it embeds, watches and tells what waits, as long as it runs."""
    name = f"{queues.partition(',')[0]}-{os.getpid()}@%h"
    arguments = ["worker", "--queues", queues, "--hostname", name, "--loglevel", log_level]
    arguments += ["--concurrency", str(processes)] if processes else []
    _become_celery([*arguments, *_QUIET])


def beat_command(
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Run the clock that looks after lost jobs; one is enough, several do no harm."""
    _become_celery(["beat", "--loglevel", log_level])


def _become_celery(arguments: list[str]) -> None:
    """Replace this process by Celery's: signals then go to it directly."""
    if find_spec("celery") is None:
        raise MissingExtraError("celery")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "celery", "--quiet", "--app", _APP, *arguments])
