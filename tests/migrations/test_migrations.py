"""The migrations lead to exactly the tables of the code, on both databases."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, inspect, select, text

from soundpost.errors import SchemaError, StoreError
from soundpost.store import (
    explain_tables,
    models,
    notification_tables,  # noqa: F401  # Its tables belong to the metadata.
    watch_tables,  # noqa: F401  # Its tables belong to the metadata.
)
from soundpost.store.session import SCHEMA_REVISION, create_engine, open_store
from soundpost.store.tables import ServingModel, Table
from soundpost_migrations.upgrade import alembic_config, current, downgrade, upgrade


@pytest.fixture
def engine(empty_url: str) -> Engine:
    return create_engine(empty_url, poolclass=NullPool)


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, parents: explain_tables.is_mapped(name),
            },
        )
        return list(compare_metadata(context, Table.metadata))


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})


def test_an_empty_database_gets_exactly_the_tables_of_the_code(
    empty_url: str, engine: Engine
) -> None:
    assert differences(engine) != []
    upgrade(empty_url)
    assert differences(engine) == []
    assert current(empty_url) == SCHEMA_REVISION


def test_the_comparison_notices_a_missing_column(empty_url: str, engine: Engine) -> None:
    upgrade(empty_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE sources DROP COLUMN cadence_s"))
    assert len(differences(engine)) == 1


def readable(index: Mapping[str, Any]) -> str:
    """Write an index down; the condition of a partial one is an object that equals no other."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def everything_about_the_tables(engine: Engine) -> dict[str, object]:
    with engine.connect() as connection:
        found = inspect(connection)
        return {
            table: (
                found.get_check_constraints(table),
                sorted(found.get_unique_constraints(table), key=str),
                sorted(found.get_foreign_keys(table), key=str),
                sorted(map(readable, found.get_indexes(table))),
                found.get_pk_constraint(table),
                found.get_table_options(table),
            )
            for table in Table.metadata.tables
        }


def test_what_the_comparison_leaves_out_is_the_same_too(empty_url: str, engine: Engine) -> None:
    """Checks, options and the actions of foreign keys, against tables made by the code."""
    upgrade(empty_url)
    migrated = everything_about_the_tables(engine)
    downgrade(empty_url, "base")
    Table.metadata.create_all(engine)
    assert migrated == everything_about_the_tables(engine)


def test_ids_that_are_quoted_elsewhere_are_never_used_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'soundpost.db'}"
    upgrade(url)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        statement = text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        found = set(connection.execute(statement).scalars())
    archive = {"embeddings", "jobs", "recordings", "tombstones"}
    assert found == archive | {"audit_log", "incidents", "notifications", "rules"}


def test_upgrading_twice_keeps_what_is_there(empty_url: str, engine: Engine) -> None:
    upgrade(empty_url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO sources (name, timezone, created_at) VALUES ('a', 'UTC', :now)"),
            {"now": "2026-01-01 00:00:00.000000"},
        )
    upgrade(empty_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sources")).scalar_one() == 1


def test_downgrading_leaves_no_tables_and_upgrading_again_works(
    empty_url: str, engine: Engine
) -> None:
    upgrade(empty_url)
    downgrade(empty_url, "base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    assert current(empty_url) is None
    upgrade(empty_url)
    assert differences(engine) == []


def test_an_unknown_newer_revision_is_refused_and_left_alone(
    empty_url: str, engine: Engine
) -> None:
    upgrade(empty_url)
    set_revision(engine, "9999")
    with pytest.raises(SchemaError, match="9999"):
        upgrade(empty_url)
    with pytest.raises(SchemaError, match="9999"):
        downgrade(empty_url, "base")
    assert current(empty_url) == "9999"


def test_the_store_says_which_way_its_schema_is_off(empty_url: str, engine: Engine) -> None:
    store = open_store(empty_url)
    with pytest.raises(SchemaError, match=r"revision none.*run the upgrade"):
        store.check_schema()
    upgrade(empty_url)
    store.check_schema()
    set_revision(engine, "0000")
    with pytest.raises(SchemaError, match=r"0000.*run the upgrade"):
        store.check_schema()
    set_revision(engine, "9999")
    with pytest.raises(SchemaError, match=r"9999.*newer"):
        store.check_schema()
    store.close()


UPGRADE_WHEN_TOLD = """
import sys
import alembic.command
from soundpost_migrations.upgrade import upgrade
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
upgrade(sys.argv[1])
"""


def test_four_processes_may_upgrade_at_once(empty_url: str, engine: Engine) -> None:
    command = [sys.executable, "-c", UPGRADE_WHEN_TOLD, empty_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    # Quiet as well: it runs in front of what a person asked for.
    assert outputs == ["", "", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert differences(engine) == []


def test_the_upgrade_runs_as_a_command(empty_url: str, engine: Engine) -> None:
    command = [sys.executable, "-m", "soundpost_migrations.upgrade", empty_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout + done.stderr == ""
    assert differences(engine) == []


def test_a_failing_upgrade_changes_nothing(empty_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tombstones (id INTEGER)"))
    with pytest.raises(Exception, match="tombstones"):
        upgrade(empty_url)
    assert current(empty_url) is None
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["tombstones"]


def test_a_server_that_is_out_of_reach_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        upgrade(f"postgresql://ada:secret@/archive?host={tmp_path}")
    assert "ada:***@" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_revisions_are_numbered_and_the_code_knows_the_last() -> None:
    scripts = ScriptDirectory.from_config(alembic_config("sqlite:///unused.db"))
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert all(re.fullmatch(r"\d{4}", revision) for revision in revisions)
    assert revisions == sorted(revisions, reverse=True)
    assert scripts.get_heads() == [SCHEMA_REVISION]


FIRST_ROWS = """
    INSERT INTO sources (id, name, timezone, created_at) VALUES (1, 'a', 'UTC', :now);
    INSERT INTO recordings (id, source_id, path, status, truncated, remarks, created_at)
        VALUES (1, 1, '/a.wav', 'embedded', false, '[]', :now);
    INSERT INTO models
        (id, name, revision, dimension, sample_rate_hz, window_s, hop_s, created_at)
        VALUES (1, 'a', '1', 1, 16000, 10, 5, :now), (2, 'b', '1', 1, 16000, 10, 5, :now);
    INSERT INTO windows (id, recording_id, start_s, end_s, acoustics)
        VALUES (1, 1, 0, 10, '{}'), (2, 1, 10, 20, '{}');
    INSERT INTO embeddings (id, window_id, model_id, vector, frames)
        VALUES (1, 1, 1, :zero, :zero), (2, 1, 2, :zero, :zero), (3, 2, 2, :zero, :zero)
"""

# Before this table there was nothing to choose by.
SERVING_ROW = "INSERT INTO serving_model (id, model_id, since) VALUES (1, 2, :now)"


def insert_first_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in FIRST_ROWS.split(";"):
            values = {"now": "2026-01-01 00:00:00.000000", "zero": b"\0\0\0\0"}
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(statement), used)


def test_the_model_with_most_vectors_serves_after_the_upgrade(
    empty_url: str, engine: Engine
) -> None:
    alembic.command.upgrade(alembic_config(empty_url), "0002")
    insert_first_rows(engine)
    upgrade(empty_url)
    store = open_store(empty_url)
    with store.reading() as session:
        model = models.serving(session)
        assert model is not None and model.name == "b"
        since = session.scalars(select(ServingModel.since)).one()
    store.close()
    assert abs(datetime.now(UTC) - since) < timedelta(hours=1)


def test_no_model_serves_an_empty_archive(empty_url: str) -> None:
    upgrade(empty_url)
    store = open_store(empty_url)
    with store.reading() as session:
        assert models.serving(session) is None
    store.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
def test_data_survives_going_back_and_coming_again(
    revision: str, empty_url: str, engine: Engine
) -> None:
    alembic.command.upgrade(alembic_config(empty_url), revision)
    insert_first_rows(engine)
    if revision >= "0003":
        with engine.begin() as connection:
            connection.execute(text(SERVING_ROW), {"now": "2026-01-01 00:00:00.000000"})
    upgrade(empty_url)
    downgrade(empty_url, revision)
    assert current(empty_url) == revision
    upgrade(empty_url)
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM embeddings")).scalar_one() == 3
        assert connection.execute(text("SELECT model_id FROM serving_model")).scalar_one() == 2
