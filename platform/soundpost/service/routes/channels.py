"""Channels: who is told of incidents, and whether that works."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from soundpost.errors import (
    ChannelExistsError,
    MalformedRequestError,
    NotifyError,
    UnknownChannelError,
    UnknownSourceError,
)
from soundpost.monitoring import channel_setup
from soundpost.monitoring.channel_setup import ChannelPlan
from soundpost.service.notification_schemas import (
    Channel,
    ChannelChange,
    ChannelName,
    ChannelTest,
    NewChannel,
)
from soundpost.service.notification_views import show_channel
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.store import channels
from soundpost.store.tables import utc_now

router = APIRouter(prefix="/v1/channels", tags=["channels"])

PathName = Annotated[ChannelName, Path()]
# What null means where it takes a channel back to the default.
_DEFAULTS: dict[str, Any] = {"enabled": True, "min_severity": "info", "settings": {}}


@router.get("", responses=answers())
def list_channels(parts: ServiceParts) -> list[Channel]:
    """List every channel, by name; addresses are shown without what is secret in them."""
    with parts.store.reading() as session:
        return [show_channel(session, row, utc_now()) for row in channels.find_all(session)]


@router.post(
    "",
    status_code=201,
    responses=answers(ChannelExistsError, UnknownSourceError, MalformedRequestError),
)
def add_channel(new: NewChannel, parts: ServiceParts, response: Response) -> Channel:
    """Add a channel; it is told of what is open already."""
    plan = ChannelPlan(name=new.name, kind=new.kind, **_changes(new, ("name", "kind")))
    now = utc_now()
    with parts.store.session() as session:
        row = channel_setup.add(session, plan, now, parts.settings)
        shown = show_channel(session, row, now)
    response.headers["Location"] = f"/v1/channels/{new.name}"
    return shown


@router.get("/{name}", responses=answers(UnknownChannelError))
def get_channel(name: PathName, parts: ServiceParts) -> Channel:
    """Look at one channel."""
    with parts.store.reading() as session:
        return show_channel(session, channels.by_name(session, name), utc_now())


@router.patch(
    "/{name}",
    responses=answers(UnknownChannelError, UnknownSourceError, MalformedRequestError),
)
def change_channel(name: PathName, change: ChannelChange, parts: ServiceParts) -> Channel:
    """Change a channel, turn it on or off; one that is off forgets what it was told."""
    now = utc_now()
    with parts.store.session() as session:
        row = channel_setup.change(session, name, _changes(change), now, parts.settings)
        return show_channel(session, row, now)


@router.delete("/{name}", status_code=204, responses=answers(UnknownChannelError))
def remove_channel(name: PathName, parts: ServiceParts) -> None:
    """Remove a channel; what it was sent stays to be seen."""
    with parts.store.session() as session:
        channel_setup.remove(session, name)


@router.post("/{name}/test", responses=answers(UnknownChannelError))
def test_channel(name: PathName, parts: ServiceParts) -> ChannelTest:
    """Send a test message now, and say what happened."""
    began_s = time.monotonic()
    try:
        channel_setup.try_out(parts.store, name, parts.settings.notify_timeout_s, utc_now())
    except UnknownChannelError:
        raise
    except NotifyError as error:
        took_s = round(time.monotonic() - began_s, 3)
        code, detail, remedy = error.code, str(error), error.remedy
        return ChannelTest(ok=False, took_s=took_s, code=code, detail=detail, remedy=remedy)
    return ChannelTest(ok=True, took_s=round(time.monotonic() - began_s, 3))


def _changes(change: ChannelChange, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a request names; a scope of one kind ends that of the other."""
    named = change.model_dump(include=change.model_fields_set - set(left_out), exclude_none=False)
    for field, default in _DEFAULTS.items():
        if field in named and named[field] is None:
            named[field] = default
    if named.get("source") is not None:
        named["tag"] = None
    if named.get("tag") is not None:
        named["source"] = None
    if named.get("url", "") is None:
        del named["url"]
    return named
