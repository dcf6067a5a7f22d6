"""What Alembic runs to connect; the URL comes from `upgrade`, or from the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, NullPool, text

from soundpost.config import load_settings
from soundpost.store import (  # Their tables belong to the metadata.
    explain_tables,
    notification_tables,  # noqa: F401  # For its tables alone.
    watch_tables,  # noqa: F401  # For its tables alone.
)
from soundpost.store.session import create_engine
from soundpost.store.tables import Table

# Any number will do, as long as nothing else in the database uses it.
UPGRADE_LOCK = 7_305_010


def run() -> None:
    """Migrate in one transaction that nobody else can be in at the same time."""
    url = context.config.attributes.get("url") or load_settings().resolved_database_url
    engine = create_engine(url, migrating=True, poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        hold_upgrades(connection)
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            # SQLite cannot alter a column: tables are copied.
            render_as_batch=connection.dialect.name == "sqlite",
            include_name=lambda name, kind, parents: explain_tables.is_mapped(name),
        )
        with context.begin_transaction():
            context.run_migrations()


def hold_upgrades(connection: Connection) -> None:
    """Wait for another upgrade of this database to end; SQLite's transaction does so itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))


run()
