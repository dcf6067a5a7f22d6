"""The tasks: shells around plain functions.

The process that forks loads no model: torch and FAISS hang in a child that is forked after their
first parallel operation. Each child makes its tools at its first job.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from celery.signals import worker_ready, worker_shutting_down

from soundpost.config import load_settings
from soundpost.errors import StoreError
from soundpost.jobs import (
    BASELINE,
    CAPTION,
    COMPOSE_TASK,
    EMBED,
    EXPLAIN,
    INDEX,
    NOTIFY,
    RECONCILE_TASK,
    REEMBED,
    TICK_TASK,
    WATCH,
    JobQueue,
    task_name,
)
from soundpost.store.session import Store, open_store
from soundpost.store.tables import utc_now
from soundpost_workers.app import app
from soundpost_workers.hearing import Hearing, is_idle, start_anew
from soundpost_workers.reconcile import reconcile
from soundpost_workers.send import CelerySender

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from soundpost.explain.caption import Captioner
    from soundpost.explain.difference import DifferenceExplainer
    from soundpost.models.encoder import AudioTextEncoder
    from soundpost_workers.embed import Tools
    from soundpost_workers.explain import ExplainTools
    from soundpost_workers.watch import WatchTools

# Shared with the forked children: the signal to stop only reaches the process that forked them.
log = logging.getLogger(__name__)

_stopping = multiprocessing.Event()

# Celery takes this lock in its signal handler. A second signal that arrives meanwhile would wait
# for the first one for ever, and a worker whose supervisor was killed gets several.
worker_shutting_down.lock = threading.RLock()


@lru_cache(maxsize=1)
def store_of_process(process_id: int) -> Store:
    """The database of this process: connections must not be shared with the one that forked it."""
    return open_store(load_settings().resolved_database_url)


def worker_name(process_id: int) -> str:
    """The name under which this process holds jobs."""
    return f"{socket.gethostname()}:{process_id}"


def job_queue() -> JobQueue:
    """The queue that the jobs of these settings go to."""
    return JobQueue.of(load_settings(), CelerySender(app))


@lru_cache(maxsize=1)
def encoder_of_process(process_id: int) -> AudioTextEncoder:
    """The model of this process, loaded once."""
    from soundpost.models.registry import load_encoder

    return load_encoder(load_settings())


@lru_cache(maxsize=1)
def tools_of_process(process_id: int) -> Tools:
    """What this process embeds with, made at its first job."""
    from soundpost.store.files import AudioFiles
    from soundpost_workers.embed import Tools

    settings = load_settings()
    return Tools(
        settings=settings,
        store=store_of_process(process_id),
        files=AudioFiles(settings.resolved_objects_url),
        encoder=encoder_of_process(process_id),
        queue=job_queue(),
        worker=worker_name(process_id),
    )


@app.task(name=task_name(EMBED))  # type: ignore[untyped-decorator]  # Celery publishes no types
def embed_task(job_id: int) -> None:
    """Embed the recording of a job, and others that wait."""
    from soundpost_workers.embed import embed

    embed(tools_of_process(os.getpid()), job_id, _stopping)


@app.task(name=task_name(REEMBED))  # type: ignore[untyped-decorator]  # Celery publishes no types
def reembed_task(job_id: int) -> None:
    """Look for recordings that this worker's model has not embedded yet."""
    from soundpost_workers.reembed import reembed

    reembed(tools_of_process(os.getpid()), job_id)


@app.task(name=task_name(INDEX))  # type: ignore[untyped-decorator]  # Celery publishes no types
def index_task(job_id: int) -> None:
    """Seal an index if that is due."""
    from soundpost_workers.index import build

    process_id = os.getpid()
    build(store_of_process(process_id), load_settings(), job_id, worker_name(process_id))


@lru_cache(maxsize=1)
def watch_tools_of_process(process_id: int) -> WatchTools:
    """What this process watches with; what it fits stays in memory."""
    from soundpost.monitoring.feedback import explain_findings, tell_and_learn
    from soundpost.monitoring.watch import Watcher
    from soundpost_workers.watch import WatchTools

    store = store_of_process(process_id)
    queue = job_queue()
    told, explained = tell_and_learn(queue), explain_findings(queue)
    watcher = Watcher(store, told, partial(embed_text, process_id), explained)
    return WatchTools(load_settings(), store, queue, watcher, worker_name(process_id))


@lru_cache(maxsize=256)
def embed_text(process_id: int, text: str) -> NDArray[np.float32]:
    """Embed a text; the model is loaded at the first, and only rules that watch for one need it."""
    vector: NDArray[np.float32] = encoder_of_process(process_id).embed_text([text])[0]
    return vector


@app.task(name=task_name(WATCH))  # type: ignore[untyped-decorator]  # Celery publishes no types
def watch_task(job_id: int) -> None:
    """Watch the recording of a job, and others of its source that began before."""
    from soundpost_workers.watch import watch

    watch(watch_tools_of_process(os.getpid()), job_id)


@app.task(name=task_name(BASELINE))  # type: ignore[untyped-decorator]  # Celery publishes no types
def baseline_task(job_id: int) -> None:
    """Prepare a baseline."""
    from soundpost_workers.watch import prepare_baseline

    prepare_baseline(watch_tools_of_process(os.getpid()), job_id)


@app.task(name=TICK_TASK)  # type: ignore[untyped-decorator]  # Celery publishes no types
def tick_task() -> None:
    """Let time pass for what is watched."""
    from soundpost_workers.watch import tick

    tick(watch_tools_of_process(os.getpid()), utc_now())


@lru_cache(maxsize=1)
def explainer_of_process(process_id: int) -> DifferenceExplainer:
    """What explains differences in this process, loaded once."""
    from soundpost.explain.difference import load_explainer

    return load_explainer(load_settings(), encoder_of_process(process_id))


@lru_cache(maxsize=1)
def captioner_of_process(process_id: int) -> Captioner:
    """What captions in this process, loaded once."""
    from soundpost.explain.caption import load_captioner

    return load_captioner(load_settings(), encoder_of_process(process_id))


@lru_cache(maxsize=1)
def explain_tools_of_process(process_id: int) -> ExplainTools:
    """What this process puts into words with."""
    from soundpost.store.files import AudioFiles
    from soundpost_workers.explain import ExplainTools

    settings = load_settings()
    return ExplainTools(
        settings=settings,
        store=store_of_process(process_id),
        files=AudioFiles(settings.resolved_objects_url),
        explainer=partial(explainer_of_process, process_id),
        captioner=partial(captioner_of_process, process_id),
        worker=worker_name(process_id),
    )


@app.task(name=task_name(EXPLAIN))  # type: ignore[untyped-decorator]  # Celery publishes no types
def explain_task(job_id: int) -> None:
    """Explain a finding."""
    from soundpost_workers.explain import explain

    explain(explain_tools_of_process(os.getpid()), job_id)


@app.task(name=task_name(CAPTION))  # type: ignore[untyped-decorator]  # Celery publishes no types
def caption_task(job_id: int) -> None:
    """Put a recording into words."""
    from soundpost_workers.explain import caption

    caption(explain_tools_of_process(os.getpid()), job_id, _stopping)


@app.task(name=task_name(NOTIFY))  # type: ignore[untyped-decorator]  # Celery publishes no types
def notify_task(job_id: int) -> None:
    """Deliver a notification."""
    from soundpost.store.files import AudioFiles
    from soundpost_workers.notify import Courier, deliver

    process_id, settings = os.getpid(), load_settings()
    files = AudioFiles(settings.resolved_objects_url)
    store = store_of_process(process_id)
    deliver(Courier(settings, store, files, worker_name(process_id)), job_id)


@app.task(name=COMPOSE_TASK)  # type: ignore[untyped-decorator]  # Celery publishes no types
def compose_task() -> None:
    """Compose the notifications that are due."""
    from soundpost_workers.notify import compose

    compose(store_of_process(os.getpid()), job_queue(), load_settings())


@app.task(name=RECONCILE_TASK)  # type: ignore[untyped-decorator]  # Celery publishes no types
def reconcile_task() -> None:
    """Look after the jobs."""
    reconcile(store_of_process(os.getpid()), job_queue(), load_settings())


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery publishes no types
def begin(sender: Any, **_: Any) -> None:
    """Look after the jobs once, have a model asked what it lacks, and begin to watch the broker."""
    settings = load_settings()
    queues = [queue.name for queue in sender.task_consumer.queues]
    waited_s = max(2.0, settings.resend_s / 2)
    hearing = Hearing(settings.resolved_database_url, queues, waited_s, is_idle, start_anew)
    hearing.start()
    worker_shutting_down.connect(lambda **_: hearing.stop(), weak=False)
    try:
        store = open_store(settings.resolved_database_url)
    except StoreError as error:
        log.warning("jobs are looked after later: %s", error)
        return
    try:
        with store.session() as session:
            job_queue().reembed(session)
        reconcile(store, job_queue(), settings)
    except StoreError as error:
        log.warning("jobs are looked after later: %s", error)
    finally:
        store.close()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # Celery publishes no types
def stop(**_: Any) -> None:
    """Let the work of this process end at its next batch; it need not be told again."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _stopping.set()
