"""The client's calls about words, each against a running service."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.client import Client
from soundpost.errors import PathNotFoundError, ServiceUnreachableError, UnknownFindingError
from soundpost.service.explain_schemas import Explanation
from soundpost.store import explanations, rules, sources
from soundpost.store.session import Store
from soundpost.store.tables import utc_now
from soundpost.store.watch_tables import Finding, Incident

RATE_HZ = 16_000


def noise(level: float, seconds: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (level * rng.normal(size=int(seconds * RATE_HZ))).astype(np.float32)


@pytest.fixture
def filled(start_service: Any, sqlite_store: Store) -> Any:
    """A service without a network, with a soft and a loud noise, and its ids by name."""
    service = start_service(sqlite_store, explainer="off", explain_timeout_s=120.0)
    service.ids = service.fill(soft=noise(0.01), loud=noise(0.2))
    return service


def test_an_explanation_is_typed(filled: Any) -> None:
    made = filled.client.explain(filled.ids["soft"], filled.ids["loud"], tiers=(1, 3))
    assert isinstance(made, Explanation)
    assert [tier.tier for tier in made.tiers] == [1, 3]
    assert made.tiers[0].attempts >= 0


def test_an_open_file_is_sent(filled: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, noise(0.2, 2.0), RATE_HZ, format="WAV")
    file.seek(0)
    made = filled.client.explain_audio(file, filled.ids["soft"], tier=2, name="new.wav")
    assert [tier.tier for tier in made.tiers] == [2]
    with pytest.raises(PathNotFoundError):
        filled.client.explain_audio("nowhere.wav", filled.ids["soft"])


def test_a_finding_is_fetched_with_its_explanation_and_its_claims(filled: Any) -> None:
    now = utc_now()
    claim = {"tier": 1, "quote": "louder", "verdict": "supported", "measurement": {"level_db": 9.0}}
    with filled.store.session() as session:
        source = sources.by_name(session, "hall")
        rule = rules.NewRule(name="loud", kind="level", created_by="a", settings={"above_dbfs": 0})
        incident = Incident(
            source_id=source.id,
            state="open",
            severity="warning",
            group_key="hall",
            pending_since=now,
            last_fired_at=now,
        )
        session.add(incident)
        session.flush()
        finding = Finding(
            incident_id=incident.id,
            rule_id=rules.add(session, rule, now=now).id,
            window_id=filled.ids["loud"],
            reference_window_id=filled.ids["soft"],
        )
        session.add(finding)
        session.flush()
        number, incident_id = finding.id, incident.id
    assert filled.client.finding(number).explanation is None
    assert filled.client.finding(number).claims is None
    with filled.store.session() as session:
        explanations.explain_finding(session, number, {"summary": "9 dB louder"}, [claim])
    found = filled.client.finding(number)
    assert found.explanation == {"summary": "9 dB louder"}
    assert found.claims == [claim]
    assert filled.client.incident(incident_id).findings == [found]
    with pytest.raises(UnknownFindingError):
        filled.client.finding(999)


def test_nobody_at_the_address_is_said() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceUnreachableError):
        client.explain(1, 2)
