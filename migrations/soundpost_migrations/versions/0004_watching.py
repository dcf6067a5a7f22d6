"""Watching: baselines, scores, rules, incidents, findings, silences and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
TABLES = (
    "audit_log",
    "baselines",
    "incidents",
    "rules",
    "source_tags",
    "baseline_recordings",
    "incident_rules",
    "silences",
    "watch_states",
    "findings",
    "scores",
)


def upgrade() -> None:
    """Create the tables."""
    create_audit_log()
    create_baselines()
    create_incidents()
    create_rules()
    create_source_tags()
    create_baseline_recordings()
    create_incident_rules()
    create_silences()
    create_watch_states()
    create_findings()
    create_scores()


def downgrade() -> None:
    """Drop the tables: what was watched is forgotten, the archive stays."""
    for table in reversed(TABLES):
        op.drop_table(table)


def create_audit_log() -> None:
    """Who did what, and why."""
    op.create_table(
        "audit_log",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject_kind", sa.String(32), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("detail", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.create_index(
        "ix_audit_log_subject_kind_subject_id", "audit_log", ["subject_kind", "subject_id"]
    )


def create_baselines() -> None:
    """What is normal for a source."""
    op.create_table(
        "baselines",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("chosen", DOCUMENT, nullable=False),
        sa.Column("learn_until", TIME),
        sa.Column("calibration", sa.LargeBinary()),
        sa.Column("quality", DOCUMENT, nullable=False),
        sa.Column("summary", DOCUMENT, nullable=False),
        sa.Column("parent_id", BIG_ID),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("activated_at", TIME),
        sa.Column("retired_at", TIME),
        sa.CheckConstraint(
            "state IN ('learning', 'preparing', 'ready', 'active', 'retired', 'failed')",
            name=op.f("ck_baselines_state"),
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_baselines_model_id_models"),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["baselines.id"], name="fk_baselines_parent_id_baselines"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="fk_baselines_source_id_sources"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_baselines"),
        sa.UniqueConstraint("source_id", "version", name="uq_baselines_source_id_version"),
    )
    op.create_index(
        "uq_baselines_active",
        "baselines",
        ["source_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )


def create_incidents() -> None:
    """Times in which rules fired."""
    op.create_table(
        "incidents",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("family", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("group_key", sa.String(300), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", DOCUMENT, nullable=False),
        sa.Column("suppressed_by", DOCUMENT),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("pending_since", TIME, nullable=False),
        sa.Column("last_fired_at", TIME, nullable=False),
        sa.Column("noticed_at", TIME, nullable=False),
        sa.Column("opened_at", TIME),
        sa.Column("told_at", TIME),
        sa.Column("acknowledged_at", TIME),
        sa.Column("escalated_at", TIME),
        sa.Column("closed_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'open', 'acknowledged', 'resolved', 'dismissed')",
            name=op.f("ck_incidents_state"),
        ),
        sa.CheckConstraint("family IN ('sound', 'health')", name=op.f("ck_incidents_family")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="fk_incidents_source_id_sources"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_incidents_active",
        "incidents",
        ["source_id", "family", "late"],
        unique=True,
        sqlite_where=sa.text("state IN ('pending', 'open', 'acknowledged')"),
        postgresql_where=sa.text("state IN ('pending', 'open', 'acknowledged')"),
    )
    op.create_index("ix_incidents_group_key_state", "incidents", ["group_key", "state"])
    op.create_index("ix_incidents_source_id_state", "incidents", ["source_id", "state"])
    op.create_index("ix_incidents_state_id", "incidents", ["state", "id"])


def create_rules() -> None:
    """When something is to be noticed."""
    op.create_table(
        "rules",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("source_id", BIG_ID),
        sa.Column("tag", sa.String(100)),
        sa.Column("settings", DOCUMENT, nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("for_s", sa.Float(), nullable=False),
        sa.Column("keep_firing_s", sa.Float(), nullable=False),
        sa.Column("cooldown_s", sa.Float(), nullable=False),
        sa.Column("escalate_after_s", sa.Float()),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "severity IN ('info', 'warning', 'critical')", name=op.f("ck_rules_severity")
        ),
        sa.CheckConstraint("source_id IS NULL OR tag IS NULL", name=op.f("ck_rules_scope")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name="fk_rules_source_id_sources"),
        sa.PrimaryKeyConstraint("id", name="pk_rules"),
        sa.UniqueConstraint("name", name="uq_rules_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rules_source_id", "rules", ["source_id"])
    op.create_index("ix_rules_tag", "rules", ["tag"])


def create_source_tags() -> None:
    """Words for several sources."""
    op.create_table(
        "source_tags",
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("tag", sa.String(100), nullable=False),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["sources.id"],
            name="fk_source_tags_source_id_sources",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source_id", "tag", name="pk_source_tags"),
    )
    op.create_index("ix_source_tags_tag", "source_tags", ["tag"])


def create_baseline_recordings() -> None:
    """What a baseline refers to."""
    op.create_table(
        "baseline_recordings",
        sa.Column("baseline_id", BIG_ID, nullable=False),
        sa.Column("recording_id", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["baseline_id"],
            ["baselines.id"],
            name="fk_baseline_recordings_baseline_id_baselines",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name="fk_baseline_recordings_recording_id_recordings",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("baseline_id", "recording_id", name="pk_baseline_recordings"),
    )
    op.create_index("ix_baseline_recordings_recording_id", "baseline_recordings", ["recording_id"])


def create_incident_rules() -> None:
    """Which rules have a part in an incident."""
    op.create_table(
        "incident_rules",
        sa.Column("incident_id", BIG_ID, nullable=False),
        sa.Column("rule_id", BIG_ID, nullable=False),
        sa.Column("firing", sa.Boolean(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_fired_at", TIME, nullable=False),
        sa.Column("last_fired_at", TIME, nullable=False),
        sa.Column("joined_at", TIME),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["incidents.id"],
            name="fk_incident_rules_incident_id_incidents",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name="fk_incident_rules_rule_id_rules", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("incident_id", "rule_id", name="pk_incident_rules"),
    )
    op.create_index("ix_incident_rules_rule_id", "incident_rules", ["rule_id"])


def create_silences() -> None:
    """Times in which nobody is told."""
    op.create_table(
        "silences",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source_id", BIG_ID),
        sa.Column("tag", sa.String(100)),
        sa.Column("rule_id", BIG_ID),
        sa.Column("starts_at", TIME, nullable=False),
        sa.Column("ends_at", TIME),
        sa.Column("weekly", DOCUMENT),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("kind IN ('silence', 'maintenance')", name=op.f("ck_silences_kind")),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name="fk_silences_rule_id_rules", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="fk_silences_source_id_sources"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_silences"),
    )
    op.create_index("ix_silences_ends_at", "silences", ["ends_at"])
    op.create_index("ix_silences_source_id", "silences", ["source_id"])


def create_watch_states() -> None:
    """What rules remember."""
    op.create_table(
        "watch_states",
        sa.Column("rule_id", BIG_ID, nullable=False),
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("state", DOCUMENT, nullable=False),
        sa.Column("seen_until", TIME),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name="fk_watch_states_rule_id_rules", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["sources.id"],
            name="fk_watch_states_source_id_sources",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rule_id", "source_id", name="pk_watch_states"),
    )


def create_findings() -> None:
    """Windows that carry an incident."""
    op.create_table(
        "findings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("incident_id", BIG_ID, nullable=False),
        sa.Column("rule_id", BIG_ID),
        sa.Column("window_id", BIG_ID),
        sa.Column("reference_window_id", BIG_ID),
        sa.Column("heard_at", TIME),
        sa.Column("novelty", sa.Float()),
        sa.Column("p_value", sa.Float()),
        sa.Column("measurements", DOCUMENT, nullable=False),
        sa.Column("explanation", DOCUMENT),
        sa.Column("claims", DOCUMENT),
        sa.Column("verdict", sa.String(32)),
        sa.Column("reviewer", sa.String(200)),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["incidents.id"],
            name="fk_findings_incident_id_incidents",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["reference_window_id"],
            ["windows.id"],
            name="fk_findings_reference_window_id_windows",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name="fk_findings_rule_id_rules", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["window_id"], ["windows.id"], name="fk_findings_window_id_windows", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
    )
    op.create_index("ix_findings_incident_id", "findings", ["incident_id"])
    op.create_index("ix_findings_reference_window_id", "findings", ["reference_window_id"])
    op.create_index("ix_findings_window_id", "findings", ["window_id"])


def create_scores() -> None:
    """How new each window is."""
    op.create_table(
        "scores",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("window_id", BIG_ID, nullable=False),
        sa.Column("baseline_id", BIG_ID, nullable=False),
        sa.Column("novelty", sa.Float(), nullable=False),
        sa.Column("p_value", sa.Float(), nullable=False),
        sa.Column("context", sa.String(100), nullable=False),
        sa.Column("parts", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["baseline_id"],
            ["baselines.id"],
            name="fk_scores_baseline_id_baselines",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["window_id"], ["windows.id"], name="fk_scores_window_id_windows", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_scores"),
        sa.UniqueConstraint("window_id", "baseline_id", name="uq_scores_window_id_baseline_id"),
    )
    op.create_index("ix_scores_baseline_id", "scores", ["baseline_id"])
