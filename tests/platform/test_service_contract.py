"""The OpenAPI document is true: whatever is sent, the answer is one that it describes, and no 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import schemathesis
import soundfile
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import CheckContext, GenerationMode, Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.config import Settings
from soundpost.errors import NoSamplesError
from soundpost.jobs import JobQueue, NoSender
from soundpost.models.placeholder import ToneEncoder
from soundpost.monitoring.incidents import Round, apply
from soundpost.monitoring.rules import Firing
from soundpost.service.app import create_app
from soundpost.service.problems import STATUSES, every_kind, status_of
from soundpost.store import jobs, recordings, rules, silences, sources
from soundpost.store.files import AudioFiles
from soundpost.store.session import Store
from soundpost_indexer.exact import ExactIndex


def no_server_error(context: CheckContext, response: Response, case: schemathesis.Case) -> None:
    """Fail at any 5xx but those that say that there was no time."""
    if response.status_code >= 500:
        assert response.json()["code"] in ("search-timeout", "explain-timeout"), response.text


CHECKS = (
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)
EXAMPLES = 15
OPERATIONS = 60


@pytest.fixture
def app(store: Store, tmp_path: Any) -> Iterator[Any]:
    """An application over an archive that has some of everything."""
    rng = np.random.default_rng(1)
    for number in range(3):
        wave = rng.uniform(-0.1, 0.1, 16_000 * 5).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", wave, 16_000)
    (tmp_path / "broken.wav").write_text("no sound")
    index, settings = ExactIndex(32), _settings(tmp_path)
    ingest(find_files([tmp_path], Selection()), IngestOptions(), store, ToneEncoder(), index)
    queue = JobQueue(NoSender())
    with store.session() as session:
        for row in recordings.find(session):
            queue.embed(session, row.id, row.source_id)
        held = jobs.lease(session, 1, "w", 60.0)
        assert held is not None
        jobs.fail(session, held, NoSamplesError("x"))
        jobs.cancel(session, 2)
    add_incidents(store)
    objects = AudioFiles(settings.resolved_objects_url)
    yield create_app(settings, store, index, ToneEncoder(), queue, objects)


def _settings(folder: Any) -> Settings:
    return Settings(home=folder / "home", upload_bytes=1_000_000, explainer="off")


def add_incidents(store: Store) -> None:
    """Three incidents, of a rule that stays, and a silence."""
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    with store.session() as session:
        new = rules.NewRule(name="loud", kind="level", created_by="ann", settings={"above_dbfs": 0})
        rule_id = rules.add(session, new, now=now).id
        for number in range(3):
            source_id = sources.ensure(session, f"pump {number}").id
            firing = Firing(rule_id, source_id, now, now, "loud")
            apply(session, Round(source_id, [firing], {rule_id: now}, now), now)
        until = now + timedelta(days=9)
        silence = silences.NewSilence("silence", now, until, "works", "ann")
        silences.add(session, silence, now=now)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_the_document_describes(app: Any, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    tried = [result.ok() for result in schema.get_all_operations()]
    assert len(tried) == OPERATIONS
    for operation in tried:
        # What takes no input cannot be sent a wrong one.
        if mode is GenerationMode.POSITIVE or _takes_input(operation):
            _try(operation, mode)


def _takes_input(operation: Any) -> bool:
    raw = operation.definition.raw
    return bool(raw.get("parameters") or raw.get("requestBody"))


def _try(operation: Any, mode: GenerationMode) -> None:
    @seed(20261121)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(checks=list(CHECKS))

    try:
        check()
    except BaseException as error:
        error.add_note(f"operation {operation.label}, {mode}")
        raise


def test_every_error_has_a_status_and_is_in_the_document(app: Any) -> None:
    schemas = app.openapi()["components"]["schemas"]
    codes = schemas["Problem"]["properties"]["code"]
    assert codes["enum"] == sorted({kind.code for kind in every_kind()})
    for kind in every_kind():
        assert 400 <= status_of(kind) < 600
        assert f"`{kind.code}`" in codes["description"]
    assert "HTTPValidationError" not in schemas


def test_a_code_belongs_to_one_class(app: Any) -> None:
    kinds = [kind for kind in every_kind() if kind.__module__.startswith("soundpost.errors.")]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert set(STATUSES) <= set(kinds)
