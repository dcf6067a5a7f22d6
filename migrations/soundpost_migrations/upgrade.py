"""Bring the tables of a database to what this version of Soundpost needs."""

from __future__ import annotations

import sys
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from soundpost.config import load_settings
from soundpost.errors import SchemaError
from soundpost.store.session import (
    SCHEMA_REVISION,
    hide_password,
    open_store,
    outages_as_store_error,
    parse_url,
)


def upgrade(url: str) -> None:
    """Create or upgrade the tables; nothing happens where they are up to date.

    Several processes may do so at once: one works, the others wait. A failed upgrade leaves the
    database as it was. Raises StoreError, or SchemaError if the tables are newer than this code.
    """
    found = current(url)
    if found == SCHEMA_REVISION:
        return
    if found is not None and found > SCHEMA_REVISION:
        detail = f"revision {found}, this Soundpost knows {SCHEMA_REVISION}: use a newer one"
        raise SchemaError(hide_password(parse_url(url)), detail)
    _run(url, "upgrade", "head")


def downgrade(url: str, revision: str) -> None:
    """Go back to an earlier revision, "base" for an empty database. What is dropped is lost.

    Raises StoreError, or SchemaError for a revision that does not exist.
    """
    _run(url, "downgrade", revision)


def current(url: str) -> str | None:
    """The revision a database is at, None if it is empty. Raises StoreError."""
    store = open_store(url)
    try:
        return store.revision()
    finally:
        store.close()


def alembic_config(url: str) -> Config:
    """Alembic's configuration of an installed Soundpost, also from a wheel."""
    config = Config()
    config.set_main_option("script_location", str(files("soundpost_migrations")).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def _run(url: str, direction: str, revision: str) -> None:
    parsed = parse_url(url)
    with outages_as_store_error(parsed):
        try:
            getattr(command, direction)(alembic_config(url), revision)
        except CommandError as error:
            raise SchemaError(hide_password(parsed), str(error)) from error


if __name__ == "__main__":
    upgrade(sys.argv[1] if len(sys.argv) > 1 else load_settings().resolved_database_url)
