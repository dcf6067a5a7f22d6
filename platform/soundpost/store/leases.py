"""Leases: rights that one process has at a time over all machines that share the database.

Each is taken in a short transaction and renewed while it is used. Whoever dies loses it with time,
and whoever was paused for longer than that finds out when it renews.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, true, update
from sqlalchemy.orm import Session

from soundpost.store.session import insert_new
from soundpost.store.tables import Lease, utc_now


def take(
    session: Session,
    name: str,
    holder: str,
    lease_s: float,
    *,
    over: str | None = None,
    by_force: bool = False,
    now: datetime | None = None,
) -> str | None:
    """Take a lease and return its token, or None while another has it.

    It is also taken from the holder `over`, for a caller who knows that one to be dead, and from
    anybody by force: whoever had it can no longer renew it.
    """
    moment = now or utc_now()
    values = {
        "token": secrets.token_hex(16),
        "holder": holder,
        "leased_until": moment + timedelta(seconds=lease_s),
    }
    free = or_(Lease.leased_until < moment, Lease.holder == over)
    statement = (
        insert_new(session, Lease)
        .values(name=name, **values)
        .on_conflict_do_update(
            index_elements=["name"], set_=values, where=true() if by_force else free
        )
    )
    token: str | None = session.scalar(statement.returning(Lease.token))
    return token


def renew(
    session: Session, name: str, token: str, lease_s: float, *, now: datetime | None = None
) -> bool:
    """Extend a lease; return False if it is another's by now.

    One that ended and that nobody took is still the caller's.
    """
    until = (now or utc_now()) + timedelta(seconds=lease_s)
    mine = update(Lease).where(Lease.name == name, Lease.token == token)
    changed = session.scalar(mine.values(leased_until=until).returning(Lease.name))
    return changed is not None


def release(session: Session, name: str, token: str) -> None:
    """Give a lease back, if it is still the caller's."""
    session.execute(delete(Lease).where(Lease.name == name, Lease.token == token))


def holder_of(session: Session, name: str, *, now: datetime | None = None) -> str | None:
    """Who has a lease at this moment."""
    valid = Lease.leased_until >= (now or utc_now())
    return session.scalar(select(Lease.holder).where(Lease.name == name, valid))
