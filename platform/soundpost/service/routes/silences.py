"""Silences and maintenance windows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from soundpost.errors import (
    MalformedRequestError,
    SilenceEndedError,
    UnknownRuleError,
    UnknownSilenceError,
    UnknownSourceError,
)
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.incidents import check_moment
from soundpost.service.routes.recordings import Cursor, Limit, NewestFirst
from soundpost.service.schemas import LARGEST_ID, Name, Page
from soundpost.service.watch_schemas import Deed, NewSilence, Silence, SilenceKind
from soundpost.service.watch_views import show_silence
from soundpost.store import rules, silences, sources
from soundpost.store.tables import utc_now

router = APIRouter(prefix="/v1/silences", tags=["silences"])

SilenceId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("", responses=answers(UnknownSourceError))
def list_silences(
    parts: ServiceParts,
    kind: Annotated[SilenceKind | None, Query()] = None,
    source: Annotated[Name | None, Query(description="Only those of just this source.")] = None,
    ended: Annotated[bool, Query(description="Those that are over, too.")] = False,
    newest_first: NewestFirst = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Silence]:
    """List silences and maintenance windows."""
    after_id = read_cursor(cursor, "silences", newest_first)
    with parts.store.reading() as session:
        rows = silences.find(
            session,
            kind=kind,
            source_id=sources.by_name(session, source).id if source is not None else None,
            unfinished_at=None if ended else utc_now(),
            after_id=after_id,
            newest_first=newest_first,
            limit=limit + 1,
        )
        items = [show_silence(session, row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(
        items=items, next=write_cursor("silences", items[-1].id, newest_first) if more else None
    )


@router.post(
    "",
    status_code=201,
    responses=answers(MalformedRequestError, UnknownSourceError, UnknownRuleError),
)
def create_silence(new: NewSilence, parts: ServiceParts) -> Silence:
    """Add a silence or a maintenance window."""
    check_moment(new.starts_at, new.ends_at)
    with parts.store.session() as session:
        if new.rule_id is not None:
            rules.get(session, new.rule_id)
        now = utc_now()
        made = silences.NewSilence(
            kind=new.kind,
            starts_at=new.starts_at or now,
            ends_at=new.ends_at,
            reason=new.reason,
            created_by=new.actor,
            source_id=sources.by_name(session, new.source).id if new.source is not None else None,
            tag=new.tag,
            rule_id=new.rule_id,
            weekly=new.weekly.model_dump(by_alias=True) if new.weekly is not None else None,
        )
        return show_silence(session, silences.add(session, made, now=now))


@router.get("/{silence_id}", responses=answers(UnknownSilenceError))
def get_silence(silence_id: SilenceId, parts: ServiceParts) -> Silence:
    """Look at a silence."""
    with parts.store.reading() as session:
        return show_silence(session, silences.get(session, silence_id))


@router.post(
    "/{silence_id}/end",
    responses=answers(UnknownSilenceError, SilenceEndedError, MalformedRequestError),
)
def end_silence(silence_id: SilenceId, deed: Deed, parts: ServiceParts) -> Silence:
    """End a silence now; what still fires is told of at the next look."""
    with parts.store.session() as session:
        row = silences.end(session, silence_id, deed.actor, now=utc_now(), reason=deed.reason)
        return show_silence(session, row)
