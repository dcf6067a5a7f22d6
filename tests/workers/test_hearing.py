"""A worker finds out that it hears nothing any more, and takes neither quiet nor work for it."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from soundpost.store import jobs
from soundpost.store.session import Store
from soundpost.store.tables import utc_now
from soundpost_workers.hearing import Hearing

WAITED_S = 0.2


def add(store: Store, queue: str, sent_s_ago: float | None, kind: str = "embed") -> None:
    with store.session() as session:
        job, _ = jobs.add(session, jobs.NewJob(kind, f"{queue} {sent_s_ago}", queue))
        job.due_at = utc_now() - timedelta(hours=1)
        job.sent_at = None if sent_s_ago is None else utc_now() - timedelta(seconds=sent_s_ago)


def is_found(url: str, idle: bool, patience_s: float) -> bool:
    deaf = threading.Event()
    hearing = Hearing(url, ["embed"], WAITED_S, lambda: idle, deaf.set)
    hearing.start()
    try:
        return deaf.wait(patience_s)
    finally:
        hearing.stop()


@pytest.mark.parametrize("kind", ["embed", "watch", "explain", "caption"])
def test_messages_that_nobody_hears_are_noticed(store: Store, store_url: str, kind: str) -> None:
    add(store, "embed", 60.0, kind)
    assert is_found(store_url, idle=True, patience_s=30.0)


@pytest.mark.parametrize(
    ("queue", "sent_s_ago", "idle"),
    [("embed", 60.0, False), ("index", 60.0, True), ("embed", -600.0, True), ("embed", None, True)],
    ids=["busy", "another queue", "just sent", "never sent"],
)
def test_a_worker_with_nothing_to_hear_is_left_alone(
    store: Store, store_url: str, queue: str, sent_s_ago: float | None, idle: bool
) -> None:
    add(store, queue, sent_s_ago)
    assert not is_found(store_url, idle, patience_s=1.0)


def test_a_kind_that_this_version_has_no_task_for_is_no_reason(
    store: Store, store_url: str
) -> None:
    add(store, "embed", 60.0, kind="of a later version")
    assert not is_found(store_url, idle=True, patience_s=1.0)


def test_a_database_that_is_away_is_no_reason_to_start_anew() -> None:
    url = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
    assert not is_found(url, idle=True, patience_s=1.0)
