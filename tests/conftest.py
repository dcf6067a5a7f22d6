"""Databases for tests: every test that asks for one runs on SQLite and on PostgreSQL.

postgres_server: a real server for this test run.
empty_url: a fresh database without tables. store_url: one with tables. store: the same, open.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

from soundpost.store.session import Store, open_store
from soundpost_migrations.upgrade import upgrade

# Durability is not what these tests are about; without it they take a third of the time.
SERVER_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
}


@dataclass
class PostgresServer:
    """A server on a Unix socket in a folder of its own; databases are copied from templates."""

    folder: Path
    names: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create(self, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"test_{next(self.names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, database: str) -> None:
        """Remove a database, also with connections left open."""
        self.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement outside a transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server; skip where there is none, fail where CI must have one."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        reason = "initdb and postgres are not on the path"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI must test PostgreSQL")
        pytest.skip(reason)
    # Not tmp_path: the path of a Unix socket is limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="soundpost-pg-"))
    server = _start(folder)
    try:
        yield PostgresServer(folder)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A PostgreSQL database with the tables, to be copied."""
    name = postgres_server.create()
    upgrade(postgres_server.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables, to be copied."""
    path = tmp_path_factory.mktemp("template") / "soundpost.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database = server.create()
    yield server.url(database)
    server.drop(database)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A fresh SQLite file with the tables."""
    path = tmp_path / "soundpost.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database with the tables."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database = server.create(request.getfixturevalue("postgres_template"))
    yield server.url(database)
    server.drop(database)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A fresh store, open."""
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    """A fresh store on SQLite only, for tests that are not about the database."""
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    data = folder / "data"
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    initialise = ["initdb", "--auth=trust", "--username=postgres", "--no-sync", "-E", "UTF8"]
    subprocess.run(
        [*initialise, "--locale=C", "-D", str(data)],
        user=user,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    options = [f"--{name}={value}" for name, value in SERVER_SETTINGS.items()]
    command = ["postgres", "-D", str(data), f"--unix_socket_directories={folder}", *options]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    _wait_until_ready(server, folder)
    return server


def _wait_until_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            psycopg.connect(PostgresServer(folder).url("postgres")).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    server.kill()
    pytest.fail(f"PostgreSQL did not start:\n{(folder / 'server.log').read_text()}")
