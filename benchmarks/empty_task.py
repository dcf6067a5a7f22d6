"""A Celery application with one task that does nothing, for measuring brokers alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

from soundpost.config import load_settings
from soundpost_workers.app import make_app


def _app() -> Celery:
    app = make_app(load_settings())
    transport = os.environ.get("BENCH_SQLALCHEMY_URL")
    if transport:
        app.conf.update(broker_url=transport, broker_transport_options={})
    app.conf.update(include=[], beat_schedule={})
    return app


app = _app()


@app.task(name="bench.empty", queue="embed")  # type: ignore[untyped-decorator]  # Celery publishes no types
def empty(number: int, folder: str) -> None:
    """Leave a trace and nothing else."""
    with (Path(folder) / "done").open("a", encoding="ascii") as file:
        file.write(f"{number}\n")


def send(numbers: range, folder: str) -> None:
    """Send one message a number."""
    producer: Any = app.amqp.producer_pool.acquire()
    with producer:
        for number in numbers:
            empty.apply_async((number, folder), producer=producer)
