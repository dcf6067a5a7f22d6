"""Channels: who is told of incidents."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from soundpost.errors import UnknownChannelError
from soundpost.store.notification_tables import Channel
from soundpost.store.watch_tables import SourceTag


def by_name(session: Session, name: str, *, lock: bool = False) -> Channel:
    """Return the channel of this name; `lock` lets nobody else change it until the end.

    Raises UnknownChannelError.
    """
    statement = select(Channel).where(Channel.name == name)
    channel = session.scalar(_locked(statement, lock))
    if channel is None:
        raise UnknownChannelError(name)
    return channel


def find(session: Session, channel_id: int, *, lock: bool = False) -> Channel | None:
    """Return a channel, or None if it was removed."""
    return session.scalar(_locked(select(Channel).where(Channel.id == channel_id), lock))


def find_all(session: Session) -> list[Channel]:
    """Return every channel, by name."""
    return list(session.scalars(select(Channel).order_by(Channel.name)))


def enabled(session: Session) -> list[Channel]:
    """Return every channel that is on, by id: whoever locks several does so in this order."""
    statement = select(Channel).where(Channel.enabled.is_(True)).order_by(Channel.id)
    return list(session.scalars(statement))


def tags_of(session: Session, source_id: int) -> set[str]:
    """Return the tags of a source."""
    statement = select(SourceTag.tag).where(SourceTag.source_id == source_id)
    return set(session.scalars(statement))


def _locked(statement: Select[Channel], lock: bool) -> Select[Channel]:
    options = statement.execution_options(populate_existing=True) if lock else statement
    return options.with_for_update(key_share=True) if lock else options
