"""The Celery application: `celery --app soundpost_workers.app worker`.

Redis is the broker in production. Without one, messages are files in a folder; that transport may
lose what a killed worker had taken, which costs one interval of the reconciler and nothing else.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import after_setup_logger
from kombu.entity import Queue

from soundpost.config import Settings, load_settings
from soundpost.jobs import COMPOSE_TASK, HOUSEKEEPING, NOTIFY, QUEUES, RECONCILE_TASK, TICK_TASK
from soundpost_workers import folder_broker

# Messages are small and tasks are idempotent: an early second delivery costs a look at the table.
_VISIBILITY_S = 60
_POLL_S = 0.02


def make_app(settings: Settings) -> Celery:
    """Make the application of these settings; nothing is connected yet."""
    app = Celery("soundpost", include=["soundpost_workers.tasks"])
    app.conf.update(_broker(settings))
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue=HOUSEKEEPING,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.worker_processes,
        worker_max_memory_per_child=settings.worker_memory_bytes // 1024,
        task_time_limit=settings.job_limit_s,
        worker_enable_remote_control=False,
        worker_log_format="%(asctime)s %(levelname)s %(message)s",
        worker_task_log_format="%(asctime)s %(levelname)s %(message)s",
        broker_connection_retry_on_startup=True,
        # A broker that is away is no reason to end: jobs wait in their table.
        broker_connection_max_retries=None,
        timezone="UTC",
        beat_schedule={
            "reconcile": {
                "task": RECONCILE_TASK,
                "schedule": settings.reconcile_s,
                # One that could not be taken in time is of no use any more.
                "options": {"queue": HOUSEKEEPING, "expires": max(1.0, settings.reconcile_s)},
            },
            "tick": {
                "task": TICK_TASK,
                "schedule": settings.tick_s,
                "options": {"queue": HOUSEKEEPING, "expires": max(1.0, settings.tick_s)},
            },
            "compose": {
                "task": COMPOSE_TASK,
                "schedule": settings.notify_tick_s,
                "options": {"queue": NOTIFY, "expires": max(1.0, settings.notify_tick_s)},
            },
        },
        beat_scheduler="celery.beat:Scheduler",
    )
    return app


def _broker(settings: Settings) -> dict[str, Any]:
    if settings.broker_url:
        return {"broker_url": settings.broker_url, "broker_transport_options": _server_options()}
    messages = settings.broker_dir / "messages"
    messages.mkdir(parents=True, exist_ok=True)
    options = {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "polling_interval": _POLL_S,
    }
    return {"broker_url": f"{folder_broker.SCHEME}://", "broker_transport_options": options}


def _server_options() -> dict[str, Any]:
    return {
        "visibility_timeout": _VISIBILITY_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
    }


@after_setup_logger.connect  # type: ignore[untyped-decorator]  # Celery publishes no types
def keep_logs_readable(**_: Any) -> None:
    """Leave out what Celery says of every message: what came of it is said by its task."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


# Meant for workers that unpickle what they are sent; ours take JSON with a number in it.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = make_app(load_settings())
