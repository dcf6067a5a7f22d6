"""The SQL tables of watching: baselines, rules, incidents and who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from soundpost.store.tables import BigId, Document, PathText, Source, Table, UtcDateTime, utc_now


class SourceTag(Table):
    """A word by which sources are spoken of together, such as 'pumps'."""

    __tablename__ = "source_tags"

    source_id: Mapped[int] = mapped_column(
        ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(String(100), primary_key=True)

    __table_args__ = (Index("ix_source_tags_tag", "tag"),)


class Baseline(Table):
    """What is normal for a source under a model: reference recordings and their calibration.

    state: learning (recordings are still gathered), preparing, ready, active (one a source),
    retired, failed. chosen: how its recordings were chosen. calibration: as
    `monitoring.baselines` writes it. quality: findings on whether it is good enough.
    """

    __tablename__ = "baselines"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    version: Mapped[int] = mapped_column(Integer)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    state: Mapped[str] = mapped_column(String(16))
    chosen: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    learn_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    calibration: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    quality: Mapped[list[dict[str, Any]]] = mapped_column(Document, default=list)
    summary: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    # The version it was made from by accepting recordings, or rolled back to.
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("baselines.id"))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(PathText)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    activated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint(
            "state IN ('learning', 'preparing', 'ready', 'active', 'retired', 'failed')",
            name="state",
        ),
        UniqueConstraint("source_id", "version"),
        Index(
            "uq_baselines_active",
            "source_id",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )


class BaselineRecording(Table):
    """A recording that a baseline refers to; deleting it takes it out of the baseline too."""

    __tablename__ = "baseline_recordings"

    baseline_id: Mapped[int] = mapped_column(
        ForeignKey("baselines.id", ondelete="CASCADE"), primary_key=True
    )
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (Index("ix_baseline_recordings_recording_id", "recording_id"),)


class Score(Table):
    """How new a window is against a baseline; parts: the same by each method alone."""

    __tablename__ = "scores"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    window_id: Mapped[int] = mapped_column(ForeignKey("windows.id", ondelete="CASCADE"))
    baseline_id: Mapped[int] = mapped_column(ForeignKey("baselines.id", ondelete="CASCADE"))
    novelty: Mapped[float] = mapped_column(Float)
    p_value: Mapped[float] = mapped_column(Float)
    context: Mapped[str] = mapped_column(String(100), default="")
    parts: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)

    __table_args__ = (
        UniqueConstraint("window_id", "baseline_id"),
        Index("ix_scores_baseline_id", "baseline_id"),
    )


class Rule(Table):
    """When something is to be noticed, for one source, for every source with a tag, or for all.

    for_s: how long it must hold before an incident opens. keep_firing_s: how long an incident
    stays open after it held last. cooldown_s: how long after one incident the next may open.
    """

    __tablename__ = "rules"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.id"), index=True)
    tag: Mapped[str | None] = mapped_column(String(100), index=True)
    settings: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    severity: Mapped[str] = mapped_column(String(16), default="warning")
    for_s: Mapped[float] = mapped_column(Float, default=0.0)
    keep_firing_s: Mapped[float] = mapped_column(Float, default=300.0)
    cooldown_s: Mapped[float] = mapped_column(Float, default=0.0)
    escalate_after_s: Mapped[float | None] = mapped_column(Float)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (
        CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
        CheckConstraint("source_id IS NULL OR tag IS NULL", name="scope"),
        {"sqlite_autoincrement": True},
    )


class WatchState(Table):
    """What a rule remembers of a source between recordings; seen_until: the end of the latest."""

    __tablename__ = "watch_states"

    rule_id: Mapped[int] = mapped_column(
        ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True
    )
    source_id: Mapped[int] = mapped_column(
        ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True
    )
    state: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    seen_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Incident(Table):
    """A stretch of time in which one or more rules fired for a source.

    state: pending, open, acknowledged, resolved, dismissed. family: sound (what is heard) or health
    (of the source); only rules of one family join. group_key: incidents of the same key are told of
    together. reason: one line. suppressed_by: why nobody is told: {"kind", "id"}. late: noticed in
    a recording that arrived after later ones. pending_since and last_fired_at are in the time of
    the recordings; noticed_at is when it was last seen to fire, and the others when it was told,
    opened and so on.
    """

    __tablename__ = "incidents"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    family: Mapped[str] = mapped_column(String(16), default="sound")
    state: Mapped[str] = mapped_column(String(16))
    severity: Mapped[str] = mapped_column(String(16))
    group_key: Mapped[str] = mapped_column(String(300))
    reason: Mapped[str] = mapped_column(Text, default="")
    evidence: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    suppressed_by: Mapped[dict[str, Any] | None] = mapped_column(Document)
    late: Mapped[bool] = mapped_column(default=False)
    pending_since: Mapped[datetime] = mapped_column(UtcDateTime)
    last_fired_at: Mapped[datetime] = mapped_column(UtcDateTime)
    noticed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    opened_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    told_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    escalated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    source: Mapped[Source] = relationship(lazy="joined", innerjoin=True, viewonly=True)

    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'open', 'acknowledged', 'resolved', 'dismissed')", name="state"
        ),
        CheckConstraint("family IN ('sound', 'health')", name="family"),
        Index(
            "uq_incidents_active",
            "source_id",
            "family",
            "late",
            unique=True,
            sqlite_where=text("state IN ('pending', 'open', 'acknowledged')"),
            postgresql_where=text("state IN ('pending', 'open', 'acknowledged')"),
        ),
        Index("ix_incidents_source_id_state", "source_id", "state"),
        Index("ix_incidents_state_id", "state", "id"),
        Index("ix_incidents_group_key_state", "group_key", "state"),
        {"sqlite_autoincrement": True},
    )


class IncidentRule(Table):
    """A rule's part in an incident; firing: whether it held when it was last looked at.

    first_fired_at: since when it holds without a break, or held last. joined_at: when it had held
    for long enough to count; null before.
    """

    __tablename__ = "incident_rules"

    incident_id: Mapped[int] = mapped_column(
        ForeignKey("incidents.id", ondelete="CASCADE"), primary_key=True
    )
    rule_id: Mapped[int] = mapped_column(
        ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True
    )
    firing: Mapped[bool] = mapped_column(default=True)
    times: Mapped[int] = mapped_column(Integer, default=1)
    first_fired_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_fired_at: Mapped[datetime] = mapped_column(UtcDateTime)
    joined_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text, default="")
    evidence: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)

    __table_args__ = (Index("ix_incident_rules_rule_id", "rule_id"),)


class Finding(Table):
    """A window that carries an incident, beside the reference window nearest to it.

    measurements: what differs, ready to be explained. explanation, claims, verdict: filled in by
    whoever explains and reviews it. A deleted recording leaves its measurements.
    """

    __tablename__ = "findings"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incidents.id", ondelete="CASCADE"))
    rule_id: Mapped[int | None] = mapped_column(ForeignKey("rules.id", ondelete="SET NULL"))
    window_id: Mapped[int | None] = mapped_column(ForeignKey("windows.id", ondelete="SET NULL"))
    reference_window_id: Mapped[int | None] = mapped_column(
        ForeignKey("windows.id", ondelete="SET NULL")
    )
    heard_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    novelty: Mapped[float | None] = mapped_column(Float)
    p_value: Mapped[float | None] = mapped_column(Float)
    measurements: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)
    explanation: Mapped[dict[str, Any] | None] = mapped_column(Document)
    claims: Mapped[list[dict[str, Any]] | None] = mapped_column(Document)
    verdict: Mapped[str | None] = mapped_column(String(32))
    reviewer: Mapped[str | None] = mapped_column(String(200))
    note: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (
        Index("ix_findings_incident_id", "incident_id"),
        Index("ix_findings_window_id", "window_id"),
        Index("ix_findings_reference_window_id", "reference_window_id"),
    )


class Silence(Table):
    """A time in which nobody is told of incidents, or in which nothing is watched at all.

    kind: silence (incidents are kept, nobody is told), maintenance (what is heard does not count).
    weekly: {"days": [0..6], "from": "HH:MM", "to": "HH:MM"} in the source's timezone, Monday is 0;
    without it, from starts_at to ends_at. Without source, tag and rule it holds for all.
    """

    __tablename__ = "silences"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), default="silence")
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.id"), index=True)
    tag: Mapped[str | None] = mapped_column(String(100))
    rule_id: Mapped[int | None] = mapped_column(ForeignKey("rules.id", ondelete="CASCADE"))
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    weekly: Mapped[dict[str, Any] | None] = mapped_column(Document)
    reason: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (CheckConstraint("kind IN ('silence', 'maintenance')", name="kind"),)


class AuditEntry(Table):
    """Who did what to which thing, when and why; never changed."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(64))
    subject_kind: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(Document, default=dict)

    __table_args__ = (
        Index("ix_audit_log_subject_kind_subject_id", "subject_kind", "subject_id"),
        {"sqlite_autoincrement": True},
    )
