"""Sources: where recordings come from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, MalformedRequestError, UnknownSourceError
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.schemas import LONGEST_NAME, Name, Source
from soundpost.service.views import show_source
from soundpost.service.watch_schemas import SourceChange
from soundpost.store import sources

router = APIRouter(prefix="/v1/sources", tags=["sources"])


@router.get("", responses=answers())
def list_sources(parts: ServiceParts) -> list[Source]:
    """List every source, by name, with what there is of it."""
    with parts.store.reading() as session:
        return [show_source(summary) for summary in sources.summaries(session)]


# A name may have slashes in it.
@router.get("/{name:path}", responses=answers(UnknownSourceError))
def get_source(
    name: Annotated[Name, Path(min_length=1, max_length=LONGEST_NAME)], parts: ServiceParts
) -> Source:
    """Look at one source."""
    with parts.store.reading() as session:
        return _show(session, name)


@router.patch("/{name:path}", responses=answers(UnknownSourceError, MalformedRequestError))
def change_source(
    name: Annotated[Name, Path(min_length=1, max_length=LONGEST_NAME)],
    change: SourceChange,
    parts: ServiceParts,
) -> Source:
    """Change the timezone, the cadence or the tags of a source."""
    given = change.model_fields_set
    for member in given & {"timezone", "tags"}:
        if getattr(change, member) is None:
            raise InvalidValueError(f"body.{member}", "it cannot be null")
    with parts.store.session() as session:
        sources.describe(
            session,
            name,
            timezone=change.timezone,
            cadence_s=change.cadence_s,
            no_cadence="cadence_s" in given and change.cadence_s is None,
            tags=change.tags,
        )
        return _show(session, name)


def _show(session: Session, name: str) -> Source:
    source = sources.by_name(session, name)
    found = {summary.source.id: summary for summary in sources.summaries(session)}
    return show_source(found[source.id])
