"""Hearing: a recording goes to every rule of its source, and what they say to the incidents."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from soundpost.monitoring.incidents import Applied, Change, OnChange
from soundpost.monitoring.rules import Heard, TestFactory


def hear(
    session: Session, heard: Heard, make_test: TestFactory, on_change: OnChange | None = None
) -> Applied:
    """Evaluate every rule of the source on a recording, and apply what they say.

    In one transaction: it holds the source's row, reads and keeps each rule's memory, leaves out
    what maintenance windows cover, and lets health rules inhibit the others.
    """
    raise NotImplementedError


def tick(
    session: Session, now: datetime, make_test: TestFactory, on_change: OnChange | None = None
) -> list[Change]:
    """Let time pass for every source: stalled sources, and everything of `incidents.tick`."""
    raise NotImplementedError
