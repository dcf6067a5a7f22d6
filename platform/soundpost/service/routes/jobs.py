"""Jobs: what is to be done, what became of it, and having it done again or not at all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from soundpost.errors import JobStateError, UnknownJobError, UnknownSourceError
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import Cursor, Limit, NewestFirst
from soundpost.service.schemas import LARGEST_ID, Job, JobState, Name, Page
from soundpost.service.views import show_job
from soundpost.store import jobs, sources

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Kind = Annotated[str | None, Query(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


@router.get("", responses=answers(UnknownSourceError))
def list_jobs(
    parts: ServiceParts,
    state: Annotated[JobState | None, Query()] = None,
    kind: Kind = None,
    source: Annotated[Name | None, Query()] = None,
    newest_first: NewestFirst = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Job]:
    """List jobs."""
    after_id = read_cursor(cursor, "jobs", newest_first)
    with parts.store.reading() as session:
        rows = jobs.find(
            session,
            state=state,
            kind=kind,
            source_id=sources.by_name(session, source).id if source is not None else None,
            after_id=after_id,
            newest_first=newest_first,
            limit=limit + 1,
        )
        items = [show_job(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(
        items=items, next=write_cursor("jobs", items[-1].id, newest_first) if more else None
    )


@router.get("/{job_id}", responses=answers(UnknownJobError))
def get_job(job_id: JobId, parts: ServiceParts) -> Job:
    """Look at one job."""
    with parts.store.reading() as session:
        return show_job(jobs.get(session, job_id))


@router.post("/{job_id}/retry", responses=answers(UnknownJobError, JobStateError))
def retry_job(job_id: JobId, parts: ServiceParts) -> Job:
    """Have a failed or cancelled job done again, with all its attempts."""
    with parts.store.session() as session:
        return show_job(parts.queue.retry(session, job_id))


@router.post("/{job_id}/cancel", responses=answers(UnknownJobError, JobStateError))
def cancel_job(job_id: JobId, parts: ServiceParts) -> Job:
    """End a job that is not finished; a worker that has it stops when it next renews its lease."""
    with parts.store.session() as session:
        return show_job(jobs.cancel(session, job_id))
