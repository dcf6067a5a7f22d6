"""Adding, changing, removing and trying channels: everything is checked before it is kept."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from soundpost.config import Settings
from soundpost.errors import ChannelExistsError, InvalidValueError
from soundpost.monitoring import delivery, notify
from soundpost.monitoring.channels.kinds import infer_kind, open_target
from soundpost.monitoring.channels.sending import open_stored, send
from soundpost.monitoring.channels.target import Address
from soundpost.monitoring.messages import write_test
from soundpost.monitoring.notification_document import SEVERITIES
from soundpost.monitoring.templates import check_template
from soundpost.store import channels, notifications, sources
from soundpost.store.notification_tables import Channel
from soundpost.store.session import Store

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
LONGEST_TAG = 100
LONGEST_WAIT_S = 30 * 86_400.0
SHORTEST_REPEAT_S = 60.0


@dataclass(frozen=True)
class ChannelPlan:
    """What a channel is to be: its address, whom it is told of, and in which words and times.

    Without a kind it follows from the URL; without source and tag it is told of all sources.
    """

    name: str
    url: str = field(repr=False)
    kind: str | None = None
    secret: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    min_severity: str = "info"
    source: str | None = None
    tag: str | None = None
    subject_template: str | None = None
    body_template: str | None = None
    group_wait_s: float | None = None
    group_interval_s: float | None = None
    repeat_s: float | None = None


def add(session: Session, plan: ChannelPlan, now: datetime, settings: Settings) -> Channel:
    """Add a channel; it is told of what is open already.

    Raises ChannelExistsError, UnknownSourceError, and InvalidValueError, which quotes no secret.
    """
    kind = plan.kind or infer_kind(plan.url)
    values = _checked(session, replace(plan, kind=kind))
    channel = Channel(name=plan.name, created_at=now, failures=0, **values)
    try:
        with session.begin_nested():
            session.add(channel)
    except IntegrityError as error:
        raise ChannelExistsError(plan.name) from error
    notify.channel_changed(session, channel, now, settings=settings)
    return channel


def change(
    session: Session, name: str, changes: Mapping[str, Any], now: datetime, settings: Settings
) -> Channel:
    """Change what is named in `changes`, by the fields of ChannelPlan; name and kind stay.

    Raises UnknownChannelError and what `add` raises.
    """
    channel = channels.by_name(session, name, lock=True)
    changeable = {one.name for one in fields(ChannelPlan)} - {"name", "kind"}
    if found := sorted(changes.keys() - changeable):
        raise InvalidValueError(found, "not something that can be changed")
    plan = replace(_plan_of(session, channel), **changes)
    for column, value in _checked(session, plan).items():
        setattr(channel, column, value)
    if changes.keys() & {"url", "secret", "settings", "enabled"}:
        # It may well work now; nobody should have to wait to see that.
        channel.failures, channel.open_until = 0, None
    notify.channel_changed(session, channel, now, settings=settings)
    return channel


def remove(session: Session, name: str) -> None:
    """Remove a channel; what it was sent stays to be seen. Raises UnknownChannelError."""
    channel = channels.by_name(session, name, lock=True)
    notifications.cancel_queued(session, channel.id)
    session.delete(channel)
    session.flush()


def try_out(store: Store, name: str, timeout_s: float, now: datetime) -> None:
    """Send a test message at once, also through a channel that is off or left alone.

    If it arrives, what waits for the channel goes on. Raises UnknownChannelError,
    ChannelUnreachableError, ChannelRefusedError.
    """
    with store.reading() as session:
        channel = channels.by_name(session, name)
        address = delivery.address_of(channel)
        document = write_test(channel, f"test-{secrets.token_hex(16)}", now)
    send(open_stored(address), address, document, None, timeout_s)
    with store.session() as session:
        known = channels.find(session, channel.id, lock=True)
        if known is not None:
            delivery.note_reached(session, known, now)


def _plan_of(session: Session, channel: Channel) -> ChannelPlan:
    names = [one.name for one in fields(ChannelPlan) if one.name != "source"]
    source = sources.get(session, channel.source_id).name if channel.source_id else None
    return ChannelPlan(source=source, **{name: getattr(channel, name) for name in names})


def _checked(session: Session, plan: ChannelPlan) -> dict[str, Any]:
    """Return the columns of a plan but its name. Raises what `add` raises."""
    _check_words(plan)
    settings = {name: value for name, value in plan.settings.items() if value is not None}
    open_target(Address(str(plan.kind), plan.url, plan.secret, settings))
    left_out = ("name", "source", "settings")
    kept = {one.name: getattr(plan, one.name) for one in fields(plan) if one.name not in left_out}
    source_id = sources.by_name(session, plan.source).id if plan.source is not None else None
    return {**kept, "settings": settings, "source_id": source_id}


def _check_words(plan: ChannelPlan) -> None:
    if not re.fullmatch(NAME, plan.name):
        detail = "letters, digits, dots, dashes and underlines, at most 100"
        raise InvalidValueError(plan.name[:120], f"a channel's name has {detail}")
    if plan.kind not in ("apprise", "mqtt", "webhook"):
        raise InvalidValueError(plan.kind, "a channel is apprise, mqtt or webhook")
    if plan.min_severity not in SEVERITIES:
        raise InvalidValueError(plan.min_severity, f"severities are {', '.join(SEVERITIES)}")
    if plan.source is not None and plan.tag is not None:
        raise InvalidValueError(plan.tag, "a channel is for a source or for a tag, not for both")
    if plan.tag is not None and not (plan.tag.isprintable() and 0 < len(plan.tag) <= LONGEST_TAG):
        raise InvalidValueError(plan.tag[:120], f"a tag has 1 to {LONGEST_TAG} characters")
    for template in (plan.subject_template, plan.body_template):
        if template is not None:
            check_template(template)
    _check_time("group wait", plan.group_wait_s, 0.0)
    _check_time("group interval", plan.group_interval_s, 0.0)
    _check_time("repeat", plan.repeat_s, SHORTEST_REPEAT_S)


def _check_time(name: str, value_s: float | None, least_s: float) -> None:
    if value_s is not None and not least_s <= value_s <= LONGEST_WAIT_S:
        detail = f"the {name} is {least_s:g} to {LONGEST_WAIT_S:g} seconds"
        raise InvalidValueError(f"{value_s:g} s", detail)
