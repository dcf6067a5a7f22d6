"""`soundpost serve`: the HTTP service, without a model in its process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost_ui import terminal
from soundpost_ui.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import uvicorn

    from soundpost.archive.rerank import SecondStage
    from soundpost.config import Settings
    from soundpost.models.encoder_process import EncoderProcess
    from soundpost.store.tables import EncoderModel

DEFAULT_PORT = 8780
_GRACE_S = 10
# How often to ask whether a new model has come to serve.
_LOOK_S = 2.0

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve_command)


def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = DEFAULT_PORT,
) -> None:
    """Answer requests over HTTP until ended; the API describes itself under /docs.

    Workers do the embedding: soundpost up runs them beside it.
    """
    import uvicorn

    from soundpost.archive.rerank import SecondStage
    from soundpost.service.app import create_app
    from soundpost.service.logs import configure_logs
    from soundpost_indexer.follow import LiveIndex

    configure_logs()
    with open_workspace() as workspace, _encoder(workspace) as (encoder, model_id):
        settings, store = workspace.settings, workspace.store
        second_stage = SecondStage.load(settings, encoder.load_reranker, settings.search_threads)
        _tell(second_stage)
        with LiveIndex(settings, store, model_id) as index:
            app = create_app(
                settings,
                store,
                index,
                encoder,
                workspace.queue,
                workspace.objects,
                second_stage=second_stage,
            )
            config = uvicorn.Config(
                app,
                host,
                port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
            server = uvicorn.Server(config)
            with _ending_for_another_model(workspace, model_id, server):
                terminal.hint(f"Listening on http://{host}:{port}")
                server.run()


def _tell(second_stage: SecondStage) -> None:
    """Log what reranks, or why nothing does: that is a fault only where a reranker was named."""
    from soundpost.errors import NoRerankerError, describe

    reranker, problem = second_stage.reranker, second_stage.problem
    if reranker is not None:
        log.info("hits are reranked by %s %s", reranker.spec.name, reranker.spec.revision[:12])
    elif problem is not None:
        level = logging.INFO if isinstance(problem, NoRerankerError) else logging.WARNING
        log.log(level, "hits are not reranked: %s", describe(problem))


@contextmanager
def _encoder(workspace: Workspace) -> Iterator[tuple[EncoderProcess, int]]:
    """Start the encoder of the model in whose space searches are made now."""
    from soundpost.models.encoder_process import EncoderProcess
    from soundpost.store import models

    encoder = EncoderProcess(workspace.settings)
    try:
        with workspace.store.session() as session:
            model = models.ensure(session, encoder.spec)
            serving = models.serving(session)
        if serving is not None and serving.id != model.id:
            earlier = _earlier(workspace.settings, serving)
            if earlier is not None:
                encoder.close()
                encoder, model = earlier, serving
        yield encoder, model.id
    finally:
        encoder.close()


def _earlier(settings: Settings, serving: EncoderModel) -> EncoderProcess | None:
    """Return the encoder that still serves, if its weights are still to be had."""
    from soundpost.errors import ModelError
    from soundpost.models.encoder_process import EncoderProcess

    encoder = EncoderProcess(settings.model_copy(update={"encoder": serving.name}))
    try:
        if encoder.spec.revision == serving.revision:
            log.info("searches stay with %s until the new model is complete", serving.name)
            return encoder
        reason = f"its weights are now {encoder.spec.revision}"
    except ModelError as error:
        reason = str(error)
    encoder.close()
    log.warning(
        "%s cannot answer searches any more (%s): they find what the new model has embedded so far",
        serving.name,
        reason,
    )
    return None


@contextmanager
def _ending_for_another_model(
    workspace: Workspace, model_id: int, server: uvicorn.Server
) -> Iterator[None]:
    """End the service when another model comes to serve: started again, it takes that one."""
    from soundpost.errors import StoreError
    from soundpost.store import models

    over = threading.Event()
    with workspace.store.reading() as session:
        before = models.serving(session)

    def look() -> None:
        while not over.wait(_LOOK_S):
            try:
                with workspace.store.reading() as session:
                    now = models.serving(session)
            except StoreError:
                continue
            if now is not None and before is not None and now.id not in (before.id, model_id):
                log.warning("%s is complete: starting anew with it", now.name)
                server.should_exit = True
                return

    thread = threading.Thread(target=look, name="model switch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
