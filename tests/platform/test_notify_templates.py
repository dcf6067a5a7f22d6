"""What notifications say, and what a name can do to them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.errors import InvalidValueError
from soundpost.monitoring.channels.webhook import read_key, sign
from soundpost.monitoring.messages import Envelope, write_document
from soundpost.monitoring.notification_document import (
    NotificationDocument,
    NotifiedClip,
    NotifiedIncident,
)
from soundpost.monitoring.templates import (
    FIELDS,
    LONGEST_SUBJECT,
    check_template,
    render_subject,
    render_text,
)
from soundpost.store import sources
from soundpost.store.notification_tables import Channel
from soundpost.store.session import Store
from soundpost.store.watch_tables import Incident

OPENED = datetime(2026, 3, 15, 3, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "notifications.md"


def incident(number: int = 7, **changes: object) -> NotifiedIncident:
    values = {
        "id": number,
        "source": "pump 3",
        "timezone": "Europe/Berlin",
        "state": "open",
        "severity": "warning",
        "reason": "sounds new since 04:28",
        "changes": ["opened"],
        "opened_at": OPENED,
        "opened_at_local": OPENED.astimezone(BERLIN),
        "evidence": {"rule_id": 3, "p_value": 0.000123, "method": "knn", "windows": [1, 2]},
        "link": f"https://sound.example.org/incidents/{number}",
        "clip": NotifiedClip(
            recording_id=1, start_s=5.0, end_s=15.0, link="https://sound.example.org/clip"
        ),
    }
    return NotifiedIncident.model_validate({**values, **changes})


def test_one_incident_is_told_in_a_few_lines() -> None:
    assert render_subject("opened", "pumps", [incident()]) == (
        "[Soundpost] New warning: pump 3: sounds new since 04:28"
    )
    assert render_text("opened", "pumps", [incident()]) == (
        "New.\n\n"
        "#7 pump 3 (warning, opened)\n"
        "sounds new since 04:28\n"
        "since 2026-03-15 04:30:00 CET (03:30:00 UTC)\n"
        "p value 0.000123, method knn\n"
        "https://sound.example.org/incidents/7\n"
        "Listen: https://sound.example.org/clip\n"
    )


def test_a_group_is_told_as_a_list_that_ends() -> None:
    many = [incident(number, changes=[]) for number in range(1, 31)]
    many[4] = incident(5, severity="critical", source="gate")
    assert render_subject("changed", "pumps", many) == (
        "[Soundpost] Changed critical: gate and 29 more: sounds new since 04:28"
    )
    text = render_text("changed", "pumps", many)
    assert text.startswith("30 incidents, changed.\n\n#1 ")
    assert "#20 " in text and "#21 " not in text
    assert text.endswith("... and 10 more.\n")


def test_what_is_not_there_leaves_no_line() -> None:
    closed = OPENED + timedelta(hours=1)
    bare = incident(
        evidence={},
        link=None,
        clip=None,
        state="resolved",
        changes=["opened", "resolved"],
        closed_at=closed,
        closed_at_local=closed,
        opened_at_local=OPENED,
    )
    assert render_text("resolved", "pumps", [bare]).splitlines()[2:] == [
        "#7 pump 3 (warning, opened, resolved)",
        "sounds new since 04:28",
        "2026-03-15 03:30:00 UTC to 2026-03-15 04:30:00 UTC",
    ]


def test_a_template_replaces_the_words() -> None:
    template = "{{{id}}} {severity} {source} {kind} {count} {link} {when}"
    check_template(template)
    assert render_subject("opened", "pumps", [incident()], template) == (
        "{7} warning pump 3 opened 1 https://sound.example.org/incidents/7 "
        "since 2026-03-15 04:30:00 CET (03:30:00 UTC)"
    )
    everything = "\n".join(f"{{{name}}}" for name in FIELDS)
    check_template(everything)
    assert len(render_text("opened", "pumps", [incident()], everything).splitlines()) >= len(FIELDS)


@pytest.mark.parametrize(
    "template",
    [
        "{nonsense}",
        "{source.name}",
        "{source[0]}",
        "{source!r}",
        "{source:>1000000000}",
        "{source:{count}}",
        "{}",
        "{0}",
        "{",
        "}",
        "{source",
        "   ",
        "",
        "x" * 5000,
    ],
)
def test_a_wrong_template_is_refused(template: str) -> None:
    with pytest.raises(InvalidValueError):
        check_template(template)


@given(template=st.text(alphabet="{}!:.[]sourceid ", max_size=30))
def test_a_template_that_is_accepted_can_be_written(template: str) -> None:
    try:
        check_template(template)
    except InvalidValueError:
        return
    render_text("opened", "pumps", [incident()], template)


EVIL = "pump\r\nBcc: everybody@example.org\u2028\u0000\x1b[2J\u202eevil"


@given(name=st.one_of(st.just(EVIL), st.text(max_size=300)), reason=st.text(max_size=600))
def test_no_name_ends_a_line_or_hides_what_follows(name: str, reason: str) -> None:
    evil = incident(source=name, reason=reason)
    for template in (None, "{source} {reason} {list}"):
        subject = render_subject("opened", name, [evil], template)
        assert subject.isprintable()
        assert len(subject) <= LONGEST_SUBJECT
    text = render_text("opened", "pumps", [evil])
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) <= 9


def test_a_hostile_name_in_the_database_adds_no_line(store: Store) -> None:
    # Names are checked when they are given; what came in another way must do no harm either.
    name = EVIL.replace("\x00", "")
    with store.session() as session:
        source = sources.ensure(session, "pump 3", "Europe/Berlin")
        source.name = name
        session.flush()
        row = Incident(
            source_id=source.id,
            state="open",
            severity="warning",
            group_key=name,
            reason=f"new: {name}",
            evidence={"why": name},
            pending_since=OPENED,
            last_fired_at=OPENED,
            opened_at=OPENED,
        )
        session.add(row)
        session.flush()
        channel = Channel(name="ops", kind="webhook", url="https://example.org", settings={})
        envelope = Envelope("k-1", "opened", name, 1, OPENED)
        document = write_document(session, envelope, channel, [row], {row.id: ["opened"]}, "")
    assert document.subject.isprintable()
    assert all(line.isprintable() for line in document.text.split("\n"))
    assert document.incidents[0].source.isprintable()
    assert document.incidents[0].opened_at_local.utcoffset() == timedelta(hours=1)
    assert document.incidents[0].link is None


def test_the_documentation_shows_a_document_of_this_version() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    shown = json.loads(example)
    document = NotificationDocument.model_validate(shown)
    assert json.loads(document.model_dump_json()) == shown
    schema = json.dumps(NotificationDocument.model_json_schema())
    for member in re.findall(r'"(\w+)": ', example):
        assert f'"{member}"' in schema or member in ("p_value", "method")


def test_the_documentation_names_every_field_of_templates() -> None:
    text = DOCS.read_text()
    assert [name for name in FIELDS if f"`{{{name}}}`" not in text] == []


def test_the_verification_that_the_documentation_shows_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102  # What the documentation shows must work.
    verify = names["verify"]
    assert callable(verify)
    secret = "whsec_" + "QUJD" * 8
    stamp = str(int(datetime.now(UTC).timestamp()))
    signature = sign(read_key(secret), "id-1", stamp, b"{}")
    headers = {
        "webhook-id": "id-1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,bm9uc2Vuc2U= {signature}",
    }
    assert verify(secret, headers, b"{}")
    assert not verify(secret, headers, b"{ }")
    assert not verify(secret, {**headers, "webhook-timestamp": "1700000000"}, b"{}")
