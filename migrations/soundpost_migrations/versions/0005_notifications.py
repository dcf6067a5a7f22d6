"""Notifications: channels, what each was told, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
TABLES = ("channels", "notification_groups", "notifications")


def upgrade() -> None:
    """Create the tables."""
    create_channels()
    create_notification_groups()
    create_notifications()


def downgrade() -> None:
    """Drop the tables: nobody is told any more, incidents stay."""
    for table in reversed(TABLES):
        op.drop_table(table)


def create_channels() -> None:
    """Who is told."""
    op.create_table(
        "channels",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text()),
        sa.Column("settings", DOCUMENT, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("min_severity", sa.String(16), nullable=False),
        sa.Column("source_id", BIG_ID),
        sa.Column("tag", sa.String(100)),
        sa.Column("subject_template", sa.Text()),
        sa.Column("body_template", sa.Text()),
        sa.Column("group_wait_s", sa.Float()),
        sa.Column("group_interval_s", sa.Float()),
        sa.Column("repeat_s", sa.Float()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", TIME),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("failed_at", TIME),
        sa.Column("sent_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("kind IN ('apprise', 'mqtt', 'webhook')", name=op.f("ck_channels_kind")),
        sa.CheckConstraint(
            "min_severity IN ('info', 'warning', 'critical')",
            name=op.f("ck_channels_min_severity"),
        ),
        sa.CheckConstraint("source_id IS NULL OR tag IS NULL", name=op.f("ck_channels_scope")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="fk_channels_source_id_sources"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
        sa.UniqueConstraint("name", name="uq_channels_name"),
    )
    op.create_index("ix_channels_source_id", "channels", ["source_id"])


def create_notification_groups() -> None:
    """What each channel was told, and is told next."""
    op.create_table(
        "notification_groups",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("channel_id", BIG_ID, nullable=False),
        sa.Column("group_key", sa.String(300), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("pending", DOCUMENT, nullable=False),
        sa.Column("pending_at", TIME),
        sa.Column("told", DOCUMENT, nullable=False),
        sa.Column("sent_at", TIME),
        sa.Column("due_at", TIME),
        sa.ForeignKeyConstraint(
            ["channel_id"],
            ["channels.id"],
            name="fk_notification_groups_channel_id_channels",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_notification_groups"),
        sa.UniqueConstraint(
            "channel_id", "group_key", name="uq_notification_groups_channel_id_group_key"
        ),
    )
    op.create_index("ix_notification_groups_due_at", "notification_groups", ["due_at"])


def create_notifications() -> None:
    """What is on its way, was sent, or was given up."""
    op.create_table(
        "notifications",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("channel_id", BIG_ID),
        sa.Column("channel_name", sa.String(100), nullable=False),
        sa.Column("group_key", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("incident_ids", DOCUMENT, nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.CheckConstraint(
            "kind IN ('opened', 'changed', 'repeat', 'resolved')",
            name=op.f("ck_notifications_kind"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'sent', 'failed', 'cancelled')",
            name=op.f("ck_notifications_state"),
        ),
        sa.ForeignKeyConstraint(
            ["channel_id"],
            ["channels.id"],
            name="fk_notifications_channel_id_channels",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint("key", name="uq_notifications_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_notifications_channel_id_group_key_id",
        "notifications",
        ["channel_id", "group_key", "id"],
    )
    op.create_index("ix_notifications_state_id", "notifications", ["state", "id"])
