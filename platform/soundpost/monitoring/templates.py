"""What notifications say in words: subject and text, ours or by a template of the channel's owner.

A template is a text with named fields in braces, such as `{source}: {reason}`. Only names are
allowed: a field that reached into an object could show what is nobody's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from string import Formatter
from typing import Any

from soundpost.errors import InvalidValueError
from soundpost.monitoring.notification_document import Kind, NotifiedIncident

LONGEST_SUBJECT = 200
LONGEST_TEMPLATE = 4000
# More would not be read, and many channels cut what is longer.
MOST_LISTED = 20
_LONGEST_LINE = 500
_MOST_FACTS = 5

FIELDS: Mapping[str, str] = {
    "kind": "opened, changed, repeat or resolved",
    "count": "how many incidents it is about",
    "group": "what the incidents have in common",
    "id": "the number of the most severe incident",
    "source": "the source of that incident",
    "severity": "info, warning or critical",
    "state": "open, acknowledged, resolved or dismissed",
    "reason": "why it was opened, in one line",
    "when": "when it opened, by the clock of the source and in UTC",
    "evidence": "how sure it is",
    "link": "where it can be looked at, empty without a public address",
    "clip_link": "where it can be heard, empty without a public address",
    "list": "every incident with all of this",
}
_FORMATTER = Formatter()


def check_template(template: str) -> None:
    """Raise InvalidValueError for a template with a wrong field, or that is no template."""
    if not template.strip() or len(template) > LONGEST_TEMPLATE:
        detail = f"a template has 1 to {LONGEST_TEMPLATE} characters"
        raise InvalidValueError(template[:100], detail)
    try:
        parts = list(_FORMATTER.parse(template))
    except ValueError as error:
        raise InvalidValueError(template, f"{error}; write braces twice to show them") from error
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        if field not in FIELDS or spec or conversion:
            shown = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise InvalidValueError("{" + shown + "}", f"the fields are {', '.join(FIELDS)}")


def render_subject(
    kind: Kind, group: str, incidents: Sequence[NotifiedIncident], template: str | None = None
) -> str:
    """Return the subject: one line, whatever the names of sources hold."""
    if template is not None:
        return one_line(_fill(template, kind, group, incidents))[:LONGEST_SUBJECT]
    lead = lead_of(incidents)
    more = f" and {len(incidents) - 1} more" if len(incidents) > 1 else ""
    said = f"{_WORDS[kind]} {lead.severity}: {lead.source}{more}: {lead.reason}"
    return one_line(f"[Soundpost] {said}")[:LONGEST_SUBJECT]


def render_text(
    kind: Kind, group: str, incidents: Sequence[NotifiedIncident], template: str | None = None
) -> str:
    """Return the body: plain text, several lines."""
    if template is not None:
        return _fill(template, kind, group, incidents)
    count = len(incidents)
    head = f"{count} incidents, {_WORDS[kind].lower()}." if count > 1 else f"{_WORDS[kind]}."
    return f"{head}\n\n{_list(incidents)}\n"


def lead_of(incidents: Sequence[NotifiedIncident]) -> NotifiedIncident:
    """Return the incident that speaks for all: what goes on, then the most severe, then the new."""
    ranks = {"critical": 2, "warning": 1, "info": 0}
    return max(
        incidents,
        key=lambda one: (one.closed_at is None, ranks[one.severity], bool(one.changes), -one.id),
    )


def one_line(text: str) -> str:
    """Return text without anything that could end a line, hide or turn around what follows."""
    plain = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    return " ".join(plain.split())[:_LONGEST_LINE]


def when(incident: NotifiedIncident) -> str:
    """Say when an incident was: by the clock of its source, with UTC beside it."""
    opened = _moment(incident.opened_at_local)
    if incident.closed_at_local is None:
        return f"since {opened}"
    return f"{opened} to {_moment(incident.closed_at_local)}"


_WORDS: Mapping[Kind, str] = {
    "opened": "New",
    "changed": "Changed",
    "repeat": "Still open",
    "resolved": "Over",
    "test": "Test",
}


def _moment(local: datetime) -> str:
    zone = local.tzname() or ""
    if local.utcoffset() == UTC.utcoffset(None):
        return f"{local:%Y-%m-%d %H:%M:%S} UTC"
    return f"{local:%Y-%m-%d %H:%M:%S} {zone} ({local.astimezone(UTC):%H:%M:%S} UTC)"


def _fill(template: str, kind: Kind, group: str, incidents: Sequence[NotifiedIncident]) -> str:
    lead = lead_of(incidents)
    fields = {
        "kind": kind,
        "count": str(len(incidents)),
        "group": one_line(group),
        "id": str(lead.id),
        "source": one_line(lead.source),
        "severity": lead.severity,
        "state": lead.state,
        "reason": one_line(lead.reason),
        "when": when(lead),
        "evidence": _facts(lead.evidence),
        "link": lead.link or "",
        "clip_link": (lead.clip.link if lead.clip else None) or "",
        "list": _list(incidents),
    }
    return _FORMATTER.vformat(template, (), fields)


def _list(incidents: Sequence[NotifiedIncident]) -> str:
    blocks = [_block(one) for one in incidents[:MOST_LISTED]]
    if len(incidents) > MOST_LISTED:
        blocks.append(f"... and {len(incidents) - MOST_LISTED} more.")
    return "\n\n".join(blocks)


def _block(incident: NotifiedIncident) -> str:
    """Write one incident; lines without anything to say are left out."""
    state = incident.state if not incident.changes else ", ".join(incident.changes)
    lines = [
        f"#{incident.id} {one_line(incident.source)} ({incident.severity}, {state})",
        one_line(incident.reason),
        when(incident) + (" (noticed late)" if incident.late else ""),
        _facts(incident.evidence),
        incident.link or "",
        f"Listen: {incident.clip.link}" if incident.clip and incident.clip.link else "",
    ]
    return "\n".join(line for line in lines if line)


def _facts(evidence: Mapping[str, Any]) -> str:
    """Write the plain numbers and words of evidence; ids and what is nested are for machines."""
    plain = [
        f"{one_line(name).replace('_', ' ')} {_fact(value)}"
        for name, value in evidence.items()
        if isinstance(value, str | int | float)
        and not isinstance(value, bool)
        and not name.endswith("_id")
    ]
    return ", ".join(plain[:_MOST_FACTS])


def _fact(value: str | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))
