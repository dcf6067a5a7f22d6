"""Notifications are wired into the workers: by the clock, by message, in queues that are served."""

from __future__ import annotations

from pathlib import Path

from soundpost.config import Settings
from soundpost.jobs import COMPOSE_TASK, NOTIFY, QUEUES, task_name
from soundpost_workers.app import make_app


def test_the_clock_looks_for_what_is_due_and_workers_know_what_to_do(tmp_path: Path) -> None:
    app = make_app(Settings(home=tmp_path, notify_tick_s=3.0))
    entry = app.conf.beat_schedule["compose"]
    assert (entry["task"], entry["schedule"]) == (COMPOSE_TASK, 3.0)
    assert entry["options"]["queue"] in QUEUES
    app.loader.import_default_modules()
    from soundpost_workers import tasks

    assert {COMPOSE_TASK, task_name(NOTIFY)} <= set(tasks.app.tasks)
