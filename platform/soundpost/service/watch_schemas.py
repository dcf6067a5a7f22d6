"""What goes over the wire of incidents, rules and silences: times in UTC, durations in seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from soundpost.service.schemas import Answer, Moment, Name, Query, Seconds, Shown, ZoneName

LONGEST_TAG = 100
LONGEST_REASON = 1000
MOST_TAGS = 50

IncidentState = Literal["pending", "open", "acknowledged", "resolved", "dismissed"]
Severity = Literal["info", "warning", "critical"]
RuleKind = Literal[
    "novelty",
    "text",
    "exemplar",
    "level",
    "tag",
    "silence",
    "microphone",
    "stalled",
    "format",
    "clock",
]
SilenceKind = Literal["silence", "maintenance"]


def _sayable(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("say it in characters that can be seen")
    return value


def _trimmed(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise ValueError("use printable characters, and no space around")
    return value


# Who does something: until there are accounts, everybody says so by themselves.
Actor = Name
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_REASON),
    AfterValidator(_sayable),
]
SourceTag = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_TAG), AfterValidator(_trimmed)
]
Cadence = Annotated[float, Field(ge=1, le=366 * 86_400, allow_inf_nan=False)]


# --- incidents --------------------------------------------------------------------------------


class IncidentRule(Answer):
    """A rule's part in an incident; firing: whether it held when it was last looked at.

    joined_at: when it had held for long enough to count, null before.
    """

    rule_id: int
    name: Shown
    kind: str
    severity: Severity
    firing: bool
    times: int
    first_fired_at: datetime
    last_fired_at: datetime
    joined_at: datetime | None
    reason: Shown
    evidence: dict[str, Any]


class Finding(Answer):
    """A window that carries an incident, beside the reference window nearest to it.

    explanation: what differs, in words, in three tiers; null until it is explained, without tiers
    where the audio is gone. claims: everything the words claim, each with its tier, its verdict and
    the measurement behind it.
    """

    id: int
    rule_id: int | None
    window_id: int | None
    recording_id: int | None
    start_s: float | None
    end_s: float | None
    reference_window_id: int | None
    reference_recording_id: int | None
    heard_at: datetime | None
    novelty: float | None
    p_value: float | None
    measurements: dict[str, Any]
    explanation: dict[str, Any] | None
    claims: list[dict[str, Any]] | None = None
    verdict: str | None
    reviewer: Shown | None
    note: Shown | None


class AuditEntry(Answer):
    """Who did what, when and why; actor "soundpost": it happened by itself."""

    id: int
    at: datetime
    actor: Shown
    action: str
    reason: Shown | None
    detail: dict[str, Any]


class Incident(Answer):
    """A stretch of time in which rules fired for a source.

    suppressed_by: why nobody is told of it, such as a silence. late: it was noticed in a recording
    that arrived after later ones. last_fired_at is in the time of the recordings.
    """

    id: int
    source: Shown
    family: Literal["sound", "health"]
    state: IncidentState
    severity: Severity
    group_key: Shown
    reason: Shown
    evidence: dict[str, Any]
    suppressed_by: dict[str, Any] | None
    late: bool
    pending_since: datetime
    last_fired_at: datetime
    opened_at: datetime | None
    told_at: datetime | None
    acknowledged_at: datetime | None
    escalated_at: datetime | None
    closed_at: datetime | None


class IncidentDetail(Incident):
    """An incident with its rules, the windows that carry it, and everything that was done to it."""

    rules: list[IncidentRule]
    findings: list[Finding]
    history: list[AuditEntry]


class Deed(Query):
    """Who does something to an incident, and why."""

    actor: Actor
    reason: Reason | None = None


class Dismissal(Query):
    """Who says that an incident was a false alarm, and why."""

    actor: Actor
    reason: Reason


# --- rules ------------------------------------------------------------------------------------


class Waiting(Answer):
    """What a rule lacks to work for a source."""

    source: Shown
    waiting: Shown


class Rule(Answer):
    """When something is to be noticed, for one source, for every source with a tag, or for all."""

    id: int
    name: Shown
    kind: str
    source: Shown | None
    tag: Shown | None
    settings: dict[str, Any]
    severity: Severity
    for_s: float
    keep_firing_s: float
    cooldown_s: float
    escalate_after_s: float | None
    enabled: bool
    created_by: Shown
    created_at: datetime
    waiting: list[Waiting]


class NewRule(Query):
    """A rule to be added. settings: see the documentation of its kind.

    A rule of the kind exemplar takes `embedding_id`, a window as search/window does.
    """

    name: Name
    kind: RuleKind
    actor: Actor
    settings: dict[str, Any] = Field(default={}, max_length=50)
    source: Name | None = None
    tag: SourceTag | None = None
    severity: Severity = "warning"
    for_s: Seconds = 0.0
    keep_firing_s: Seconds = 300.0
    cooldown_s: Seconds = 0.0
    escalate_after_s: Seconds | None = None
    enabled: bool = True


class RuleChange(Query):
    """What is to be different of a rule; what is not given stays."""

    actor: Actor
    name: Name | None = None
    settings: dict[str, Any] | None = Field(default=None, max_length=50)
    severity: Severity | None = None
    for_s: Seconds | None = None
    keep_firing_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    escalate_after_s: Seconds | None = Field(default=None, description="null: it never escalates.")
    enabled: bool | None = None


# --- silences ---------------------------------------------------------------------------------


class Weekly(Query):
    """Hours of each week in the zone of the source. days: 0 is Monday. from, to: HH:MM."""

    days: Annotated[list[Annotated[int, Field(ge=0, le=6)]], Field(min_length=1, max_length=7)]
    from_: str = Field(alias="from", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    to: str = Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")


class Silence(Answer):
    """A time in which nobody is told (silence), or in which what is heard does not count."""

    id: int
    kind: SilenceKind
    source: Shown | None
    tag: Shown | None
    rule_id: int | None
    starts_at: datetime
    ends_at: datetime | None
    weekly: dict[str, Any] | None
    reason: Shown
    created_by: Shown
    created_at: datetime


class NewSilence(Query):
    """A silence to be added; without source, tag and rule_id it is for all.

    It starts at once unless starts_at is given, and needs an end unless it is weekly.
    """

    actor: Actor
    reason: Reason
    kind: SilenceKind = "silence"
    source: Name | None = None
    tag: SourceTag | None = None
    rule_id: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    weekly: Weekly | None = None


# --- sources ----------------------------------------------------------------------------------


class SourceChange(Query):
    """What is to be different of a source; what is not given stays.

    cadence_s null: how often it is heard is estimated from its recordings. tags: all it is to have.
    """

    timezone: ZoneName | None = None
    cadence_s: Cadence | None = None
    tags: Annotated[list[SourceTag], Field(max_length=MOST_TAGS)] | None = None
