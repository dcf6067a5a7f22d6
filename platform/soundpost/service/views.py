"""Rows as they are shown."""

from __future__ import annotations

from soundpost.archive import search
from soundpost.archive.summary import remedy_for
from soundpost.service import schemas
from soundpost.store.embeddings import EmbeddingDetail
from soundpost.store.sources import SourceSummary
from soundpost.store.tables import EncoderModel, Job, Recording


def show_recording(row: Recording) -> schemas.Recording:
    """Show a recording."""
    remarks = [
        schemas.Remark(
            code=remark["code"],
            detail=remark.get("detail", ""),
            remedy=remedy_for(remark["code"]),
        )
        for remark in row.remarks
    ]
    return schemas.Recording.model_validate(
        {
            **{name: getattr(row, name) for name in _PLAIN_OF_RECORDING},
            "source": row.source.name,
            "kept": row.object_key is not None,
            "remedy": remedy_for(row.error_code) if row.error_code else None,
            "remarks": remarks,
        }
    )


_PLAIN_OF_RECORDING = (
    "id",
    "path",
    "status",
    "sha256",
    "size_bytes",
    "format",
    "sample_rate_hz",
    "channels",
    "duration_s",
    "started_at",
    "created_at",
    "truncated",
    "error_code",
    "error_detail",
)


def show_job(row: Job) -> schemas.Job:
    """Show a job."""
    recording_id = row.payload.get("recording")
    return schemas.Job.model_validate(
        {
            **{name: getattr(row, name) for name in _PLAIN_OF_JOB},
            "recording_id": recording_id if isinstance(recording_id, int) else None,
            "remedy": remedy_for(row.error_code) if row.error_code else None,
        }
    )


_PLAIN_OF_JOB = (
    "id",
    "kind",
    "state",
    "priority",
    "attempts",
    "max_attempts",
    "created_at",
    "due_at",
    "started_at",
    "finished_at",
    "worker",
    "error_code",
    "error_detail",
)


def show_window(detail: EmbeddingDetail) -> schemas.Window:
    """Show a window of a recording."""
    return schemas.Window(
        embedding_id=detail.embedding_id,
        start_s=detail.start_s,
        end_s=detail.end_s,
        acoustics=detail.acoustics,
        tags=[schemas.Tag(label=label, probability=p) for label, p in detail.tags],
    )


def show_source(summary: SourceSummary) -> schemas.Source:
    """Show a source."""
    return schemas.Source(
        name=summary.source.name,
        timezone=summary.source.timezone,
        created_at=summary.source.created_at,
        recordings=summary.recordings,
        embedded=summary.embedded,
        failed=summary.failed,
        windows=summary.windows,
        duration_s=summary.duration_s,
        cadence_s=summary.source.cadence_s,
        tags=list(summary.tags),
    )


def show_model(row: EncoderModel, embeddings: int, active: bool) -> schemas.Model:
    """Show a model."""
    return schemas.Model(
        id=row.id,
        name=row.name,
        revision=row.revision,
        dimension=row.dimension,
        sample_rate_hz=row.sample_rate_hz,
        window_s=row.window_s,
        hop_s=row.hop_s,
        created_at=row.created_at,
        embeddings=embeddings,
        active=active,
    )


def show_result(result: search.SearchResult, took_s: float) -> schemas.SearchResult:
    """Show what a search found."""
    return schemas.SearchResult(
        hits=[_show_hit(hit) for hit in result.hits],
        nearest=_show_hit(result.nearest) if result.nearest else None,
        searched=result.searched,
        min_score=result.min_score,
        rerank=schemas.Reranking.model_validate(result.rerank.to_document()),
        took_s=round(took_s, 4),
    )


def _show_hit(hit: search.Hit) -> schemas.Hit:
    tags = [schemas.Tag(label=label, probability=p) for label, p in hit.tags]
    return schemas.Hit.model_validate({**vars(hit), "tags": tags})
