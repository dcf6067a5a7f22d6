"""What goes over the wire, for the service and its client: times in UTC, durations in seconds.

It imports pydantic and nothing heavier, so that the client works with the bare install.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

LARGEST_ID = 2**63 - 1
LARGEST_PAGE = 500
LONGEST_NAME = 200
LONGEST_TEXT = 1000
MOST_HITS = 1000
MOST_RERANKED = 1000
DEFAULT_MIN_SCORE = 0.3
# A century: nothing is asked for behind it, and every number before it is exact to the sample.
_LAST_S = 3.2e9

Item = TypeVar("Item")


def to_unicode(value: object) -> object:
    """Make a text fit to be sent: a file name may hold bytes that are no Unicode."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _to_moment(value: object) -> object:
    """Read ISO 8601 with an offset; a bare number or a local time would mean different moments."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        moment = datetime.fromisoformat(value)
    else:
        raise ValueError("write a time as text")  # noqa: TRY004  # what pydantic reports
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset, such as 2026-03-15T04:30:00+01:00")
    return moment


def _printable(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("use printable characters")
    return value


Shown = Annotated[str, BeforeValidator(to_unicode)]
Moment = Annotated[
    datetime,
    BeforeValidator(_to_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_printable),
]
ZoneName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Seconds = Annotated[float, Field(ge=0, le=_LAST_S, allow_inf_nan=False)]
Status = Literal["queued", "embedding", "embedded", "failed"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class Answer(BaseModel):
    """Something the service says; members that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Query(BaseModel):
    """Something the service is asked; a member it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fault(Answer):
    """What is wrong with one member of a request."""

    where: Shown
    message: Shown


class Problem(Answer):
    """Problem details as in RFC 9457, with our stable code, the offending value and the remedy."""

    type: str
    title: str
    status: int
    detail: Shown = ""
    instance: Shown = ""
    code: str
    value: Shown | None = None
    remedy: str
    request_id: str
    faults: list[Fault] = []


class Page(Answer, Generic[Item]):
    """Some of a list; `next` is the cursor of what follows, null at its end."""

    items: list[Item]
    next: str | None = None


# --- what there is ----------------------------------------------------------------------------


class Remark(Answer):
    """A finding that did not stop a recording, and what to do about it."""

    code: str
    detail: Shown
    remedy: str = ""


class Recording(Answer):
    """A recording; `path` is where its file was found, or the name it was uploaded under."""

    id: int
    source: Shown
    path: Shown
    status: Status
    sha256: str | None
    size_bytes: int | None
    format: str | None
    sample_rate_hz: int | None
    channels: int | None
    duration_s: float | None
    started_at: datetime | None
    created_at: datetime
    truncated: bool
    kept: bool = Field(description="Whether the service keeps a copy of the audio.")
    error_code: str | None
    error_detail: Shown | None
    remedy: str | None
    remarks: list[Remark]


class Tag(Answer):
    """A sound class that the model hears."""

    label: str
    probability: float


class Window(Answer):
    """A stretch of a recording as the model took it; its id is what search/window takes."""

    embedding_id: int
    start_s: float
    end_s: float
    acoustics: dict[str, Any]
    tags: list[Tag]


class Job(Answer):
    """A piece of work."""

    id: int
    kind: str
    state: JobState
    recording_id: int | None
    priority: int
    attempts: int
    max_attempts: int
    created_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: Shown | None
    error_code: str | None
    error_detail: Shown | None
    remedy: str | None


class Uploaded(Answer):
    """What became of an upload; known: this content was there already. No job, nothing to do."""

    recording: Recording
    job: Job | None
    known: bool


class Source(Answer):
    """A named microphone, machine, place or archive, and what there is of it."""

    name: Shown
    timezone: str
    created_at: datetime
    recordings: int
    embedded: int
    failed: int
    windows: int
    duration_s: float
    cadence_s: float | None = Field(
        default=None, description="How often it is heard; null: estimated from its recordings."
    )
    tags: list[Shown] = []


class Model(Answer):
    """The exact weights that made vectors; `active` is the one that searches use."""

    id: int
    name: str
    revision: str
    dimension: int
    sample_rate_hz: int
    window_s: float
    hop_s: float
    created_at: datetime
    embeddings: int
    active: bool


class Index(Answer):
    """The vector index: how much it holds and how far it is behind the database.

    behind: embeddings that cannot be found yet; behind_s: for how long there have been some.
    """

    model: str
    revision: str
    dimension: int
    vectors: int
    embeddings: int
    behind: int
    behind_s: float
    engine: str | None = None
    layout: str | None = None
    bytes: int | None = None


class Check(Answer):
    """One thing the service needs."""

    name: str
    ok: bool
    code: str | None = None
    detail: Shown = ""
    remedy: str = ""


class Readiness(Answer):
    """Whether the service can do its work, and what it lacks if not."""

    ready: bool
    checks: list[Check]


class Health(Answer):
    """That the process is alive."""

    status: Literal["ok"] = "ok"
    version: str


# --- searching --------------------------------------------------------------------------------


class SearchFilters(Query):
    """Where to search, how much to find, how relevant it must be, and how long that may take.

    after and before select what was heard within [after, before) by the wall clock.
    """

    source: Name | None = None
    after: Moment | None = None
    before: Moment | None = None
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = DEFAULT_MIN_SCORE
    k: Annotated[int, Field(ge=1, le=MOST_HITS)] = 10
    timeout_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = Field(
        default=None, description="At most what the service allows, which is also the default."
    )


class TextQuery(SearchFilters):
    """What to listen for, in words."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_TEXT)]
    rerank: Literal["auto", "off"] | Annotated[int, Field(strict=True, ge=1, le=MOST_RERANKED)] = (
        Field(default="auto", description="How many of the first hits a reranker puts in order.")
    )


class WindowQuery(SearchFilters):
    """What to listen for, as an embedded window or as a stretch of a recording."""

    embedding_id: Id | None = None
    recording_id: Id | None = None
    start_s: Seconds = 0.0
    end_s: Seconds | None = None

    @model_validator(mode="after")
    def check(self) -> WindowQuery:
        """Refuse neither and both, and a stretch that ends before it begins."""
        if (self.embedding_id is None) == (self.recording_id is None):
            raise ValueError("give embedding_id or recording_id")
        check_stretch(self.start_s, self.end_s)
        return self


class ExampleQuery(SearchFilters):
    """The fields that go with an uploaded example; start_s and end_s are a stretch of it."""

    start_s: Seconds = 0.0
    end_s: Seconds | None = None

    @model_validator(mode="after")
    def check(self) -> ExampleQuery:
        """Refuse a stretch that ends before it begins."""
        check_stretch(self.start_s, self.end_s)
        return self


class UploadFields(Query):
    """The fields that go with an uploaded recording.

    A started_at without an offset is local to `timezone`, or else to the source's zone.
    """

    source: Name = "archive"
    started_at: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    timezone: ZoneName | None = None


def check_stretch(start_s: float, end_s: float | None) -> None:
    """Raise ValueError for a stretch that ends before it begins."""
    if end_s is not None and end_s <= start_s:
        raise ValueError("end_s must lie after start_s")


class Hit(Answer):
    """A stretch of a recording that answers a query; peak_s is where it is clearest.

    relevance: 0 to 1. similarity: the cosine behind it. joint_probability: how likely it is the one
    that is meant, among all that were judged together, null if it was not. score: what reranked hits
    are ordered by, similarity + weight * joint_probability. at: the wall clock at peak_s in the
    source's zone, null if the recording's start is unknown. caption: what it sounds like, in words,
    null where it has no captions. matched: what found it, its "sound", the "words" of a caption, or
    both; what words alone found may be less relevant than was asked for.
    """

    recording_id: int
    path: Shown
    source: Shown
    start_s: float
    end_s: float
    peak_s: float
    at: datetime | None
    relevance: float
    similarity: float
    joint_probability: float | None
    score: float
    tags: list[Tag]
    caption: Shown | None = None
    matched: list[Literal["sound", "words"]] = ["sound"]


class Reranking(Answer):
    """What ordered the hits: a reranker, if `applied`, or similarity, and then why.

    candidates: how many of the first hits were judged; left_out: how many of those could not be,
    because their vectors are damaged. reason: "off", "by-example", "nothing-to-order", "no-claim" or
    the code of an error, such as "no-reranker" and "rerank-timeout".
    """

    applied: bool
    reranker: str | None
    revision: str | None
    candidates: int
    left_out: int
    steps: int | None
    weight: float | None
    took_s: float
    reason: str | None
    detail: Shown


class SearchResult(Answer):
    """What was found, best first; `nearest` is the best there was if that is nothing."""

    hits: list[Hit]
    nearest: Hit | None
    searched: int
    min_score: float
    rerank: Reranking
    took_s: float
