"""Connections and transactions, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event, inspect, make_url, text
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from soundpost.errors import SchemaError, SoundpostError, StoreError

# The newest migration; revisions are numbered so that older and newer can be told apart.
SCHEMA_REVISION = "0006"

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
_BUSY_PAUSE_S = 0.005

# Mistakes of ours in a statement: a caller cannot mend these, and nothing should hide them.
_OUR_MISTAKES = (IntegrityError, ProgrammingError, DataError, NotSupportedError)
_READING = {"soundpost_reading": True, "postgresql_readonly": True}


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Let something happen after the transaction of Store.session, and only if it is committed."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)


class Store:
    """The database: an engine and the two kinds of transaction.

    `session` is for anything that writes; `reading` never waits for a writer.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writers = sessionmaker(engine, expire_on_commit=False)
        self._readers = sessionmaker(engine.execution_options(**_READING), expire_on_commit=False)

    @property
    def address(self) -> str:
        """The URL, fit to be shown: without its password."""
        return hide_password(self.engine.url)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction that may write: commit at the end, roll back on an error.

        On SQLite only one is open at a time over all processes, others wait: keep it short.
        Raises StoreError where the database is out of reach, full, damaged or locked for too long.
        """
        with outages_as_store_error(self.engine.url), self._writers.begin() as session:
            yield session
        for action in session.info.pop(_AFTER_COMMIT, []):
            action()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads; an attempt to write raises StoreError."""
        with outages_as_store_error(self.engine.url), self._readers.begin() as session:
            yield session

    def revision(self) -> str | None:
        """The migration the database is at, None for an empty one."""
        with self.reading() as session:
            connection = session.connection()
            if not inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(text("SELECT version_num FROM alembic_version"))
            return max(found.scalars(), default=None)

    def check_schema(self) -> None:
        """Raise SchemaError unless the tables are the ones this code was written for."""
        found = self.revision()
        if found is None or found < SCHEMA_REVISION:
            detail = f"revision {found or 'none'}, needs {SCHEMA_REVISION}: run the upgrade"
            raise SchemaError(self.address, detail)
        if found > SCHEMA_REVISION:
            detail = f"revision {found}, this Soundpost knows {SCHEMA_REVISION}: use a newer one"
            raise SchemaError(self.address, detail)

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def open_store(url: str) -> Store:
    """Open the database at a SQLAlchemy URL, SQLite or PostgreSQL.

    The folder of an SQLite file is created. Raises StoreError where it cannot be reached.
    """
    store = Store(create_engine(url))
    try:
        with store.reading() as session:
            session.connection()
    except StoreError:
        store.close()
        raise
    return store


def create_engine(url: str, *, migrating: bool = False, **options: Any) -> Engine:
    """Make the engine of a URL; nothing is connected yet.

    `migrating` leaves foreign keys unchecked: SQLite changes a table by replacing it, and that
    must not delete what points to it. Raises StoreError for a URL that is not understood.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, foreign_keys=not migrating, **options)
    options.setdefault("pool_pre_ping", True)
    timeout = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_TIMEOUT_S}
    return sqlalchemy_engine(parsed, connect_args=timeout, **options)


def parse_url(url: str) -> URL:
    """Read a database URL; plain postgresql:// means psycopg 3. Raises StoreError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("the database URL", "it is not of the form sqlite:///FILE") from error
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(hide_password(parsed), "only sqlite:// and postgresql:// are supported")
    if parsed.database in (None, "", ":memory:"):
        raise StoreError(hide_password(parsed), "SQLite needs a file: sqlite:////folder/file.db")
    return parsed


def hide_password(url: URL) -> str:
    """Write a URL without its password, wherever in it that is."""
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True)


@contextmanager
def outages_as_store_error(url: URL) -> Iterator[None]:
    """Turn what the operator can mend (server, disk, lock, damage) into StoreError.

    An error of ours from within a statement, such as a time without a zone, comes out as itself.
    """
    try:
        yield
    except StatementError as error:
        if isinstance(error.orig, SoundpostError):
            raise error.orig from error
        if isinstance(error, _OUR_MISTAKES) or not isinstance(error, DBAPIError):
            raise
        reason = " ".join(str(error.orig).split())
        raise StoreError(hide_password(url), reason) from error
    except NoConnectionError as error:
        raise StoreError(hide_password(url), "every connection is in use") from error


def insert_new(session: Session, table: type[Any]) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT in the dialect of the session: both know ON CONFLICT."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def _sqlite_engine(url: URL, *, foreign_keys: bool, **options: Any) -> Engine:
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(hide_password(url), f"its folder cannot be made: {error}") from error
    engine = sqlalchemy_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, entry: ConnectionPoolEntry) -> None:
        # None: the driver must not begin transactions by itself, `begin` below does.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes fails at once when another wrote in between;
        # taking the write lock first makes it wait instead.
        reading = connection.get_execution_options().get("soundpost_reading", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the journal's mode, once in a database's life.

    SQLite does not wait while others open the same new file: it fails at once, and must be asked
    again. Asking for the mode first: setting it takes a lock even where it is set already.
    """
    last = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The lowest byte; the others say why it is busy.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
            time.sleep(_BUSY_PAUSE_S)
