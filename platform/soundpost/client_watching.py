"""What the client says of watching: baselines, incidents, rules and silences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from soundpost.client_transport import Transport, given, moment_text
from soundpost.service.baseline_schemas import Baseline, ContextKind, Method
from soundpost.service.watch_schemas import (
    Incident,
    IncidentDetail,
    IncidentState,
    Rule,
    RuleKind,
    Severity,
    Silence,
    SilenceKind,
)

_BASELINES, _INCIDENTS = "/v1/baselines", "/v1/incidents"
_RULES, _SILENCES = "/v1/rules", "/v1/silences"


class BaselineFields(TypedDict, total=False):
    """What a baseline is made of and how, as NewBaseline of service.baseline_schemas has it."""

    after: datetime | None
    before: datetime | None
    recordings: Sequence[int]
    learn_s: float | None
    method: Method | None
    contexts: ContextKind
    budget_s: float
    activate: bool


class RuleChanges(TypedDict, total=False):
    """What can be changed of a rule; escalate_after_s None: it never escalates."""

    settings: dict[str, Any]
    severity: Severity
    for_s: float
    keep_firing_s: float
    cooldown_s: float
    escalate_after_s: float | None
    enabled: bool


class RenamedRule(RuleChanges, total=False):
    """As RuleChanges, with a new name."""

    name: str


class RuleFields(RuleChanges, total=False):
    """What a rule is made of beside its name and kind; without source and tag it is for all."""

    source: str | None
    tag: str | None


class SilenceFields(TypedDict, total=False):
    """What a silence covers, and when; weekly: days, from and to, as Weekly has it."""

    kind: SilenceKind
    source: str | None
    tag: str | None
    rule_id: int | None
    starts_at: datetime | None
    ends_at: datetime | None
    weekly: dict[str, Any] | None


class SourceFields(TypedDict, total=False):
    """What can be changed of a source."""

    timezone: str
    cadence_s: float | None
    tags: Sequence[str]


class WatchingCalls(Transport):
    """The calls about watching. Whoever does something says so: `actor` is kept in the history."""

    # --- baselines ---

    def baselines(self, source: str | None = None) -> list[Baseline]:
        """List the versions, by source, the newest first. Raises UnknownSourceError."""
        return self._list(Baseline, _BASELINES, {"source": source})

    def baseline(self, baseline_id: int) -> Baseline:
        """Look at one version. Raises UnknownBaselineError."""
        return self._ask(Baseline, "GET", f"{_BASELINES}/{baseline_id}")

    def create_baseline(
        self, source: str, *, actor: str, **choice: Unpack[BaselineFields]
    ) -> Baseline:
        """Have a baseline made by a worker, of everything embedded where nothing is chosen.

        Raises UnknownSourceError, NothingToLearnError, InvalidValueError.
        """
        body = {"source": source, "actor": actor, **choice}
        return self._ask(Baseline, "POST", _BASELINES, json=body)

    def accept_recordings(
        self, source: str, recordings: Sequence[int], *, actor: str, reason: str
    ) -> Baseline:
        """Take recordings as a new normal; the version is used once a worker has prepared it.

        Raises UnknownSourceError, NothingToLearnError, InvalidValueError, BaselineStateError.
        """
        who = {"actor": actor, "reason": reason}
        body = {"source": source, "recordings": list(recordings), **who}
        return self._ask(Baseline, "POST", f"{_BASELINES}/accept", json=body)

    def activate_baseline(
        self, baseline_id: int, *, actor: str, reason: str | None = None
    ) -> Baseline:
        """Watch by this version from now on. Raises UnknownBaselineError, BaselineStateError."""
        path = f"{_BASELINES}/{baseline_id}/activate"
        return self._ask(Baseline, "POST", path, json=_deed(actor, reason))

    def retire_baseline(
        self, baseline_id: int, *, actor: str, reason: str | None = None
    ) -> Baseline:
        """Stop comparing with this version. Raises UnknownBaselineError, BaselineStateError."""
        path = f"{_BASELINES}/{baseline_id}/retire"
        return self._ask(Baseline, "POST", path, json=_deed(actor, reason))

    # --- incidents ---

    def incidents(
        self,
        *,
        states: Sequence[IncidentState] = (),
        source: str | None = None,
        severities: Sequence[Severity] = (),
        since: datetime | None = None,
        newest_first: bool = True,
        page_size: int = 100,
    ) -> Iterator[Incident]:
        """Go through the incidents that meet every filter, asking for a page at a time.

        since: those that fired at or after then. Raises UnknownSourceError.
        """
        params = {
            "state": list(states),
            "source": source,
            "severity": list(severities),
            "since": moment_text(since),
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Incident, _INCIDENTS, params)

    def incident(self, incident_id: int) -> IncidentDetail:
        """Look at an incident with its rules, findings and history. Raises UnknownIncidentError."""
        return self._ask(IncidentDetail, "GET", f"{_INCIDENTS}/{incident_id}")

    def acknowledge(self, incident_id: int, *, actor: str, reason: str | None = None) -> Incident:
        """Say that somebody looks after it. Raises UnknownIncidentError, IncidentStateError."""
        return self._act(incident_id, "acknowledge", actor, reason)

    def resolve(self, incident_id: int, *, actor: str, reason: str | None = None) -> Incident:
        """Say that it is over. Raises UnknownIncidentError, IncidentStateError."""
        return self._act(incident_id, "resolve", actor, reason)

    def dismiss(self, incident_id: int, *, actor: str, reason: str) -> Incident:
        """Say that it was a false alarm. Raises UnknownIncidentError, IncidentStateError."""
        return self._act(incident_id, "dismiss", actor, reason)

    def accept(self, incident_id: int, *, actor: str, reason: str | None = None) -> Baseline:
        """Take what it was about as normal; the version is used once a worker has prepared it.

        Raises UnknownIncidentError, BaselineStateError, NothingToLearnError.
        """
        path = f"{_INCIDENTS}/{incident_id}/accept"
        return self._ask(Baseline, "POST", path, json=_deed(actor, reason))

    def reopen(self, incident_id: int, *, actor: str, reason: str | None = None) -> Incident:
        """Take back that it was resolved or dismissed. Raises like resolve."""
        return self._act(incident_id, "reopen", actor, reason)

    def note(self, incident_id: int, *, actor: str, text: str) -> IncidentDetail:
        """Add a remark to the history of an incident. Raises UnknownIncidentError."""
        path = f"{_INCIDENTS}/{incident_id}/notes"
        return self._ask(IncidentDetail, "POST", path, json=_deed(actor, text))

    def _act(self, incident_id: int, deed: str, actor: str, reason: str | None) -> Incident:
        path = f"{_INCIDENTS}/{incident_id}/{deed}"
        return self._ask(Incident, "POST", path, json=_deed(actor, reason))

    # --- rules ---

    def rules(
        self,
        *,
        kind: RuleKind | None = None,
        source: str | None = None,
        enabled: bool | None = None,
        newest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[Rule]:
        """Go through the rules that meet every filter; source: that hold for it, by tag too.

        Raises UnknownSourceError.
        """
        params = {
            "kind": kind,
            "source": source,
            "enabled": enabled,
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Rule, _RULES, params)

    def rule(self, rule_id: int) -> Rule:
        """Look at one rule. Raises UnknownRuleError."""
        return self._ask(Rule, "GET", f"{_RULES}/{rule_id}")

    def create_rule(
        self, name: str, kind: RuleKind, *, actor: str, **fields: Unpack[RuleFields]
    ) -> Rule:
        """Add a rule. An exemplar is named by settings={"embedding_id": ...}.

        Raises RuleSettingsError, RuleNameTakenError, UnknownSourceError, UnknownWindowError,
        InvalidValueError.
        """
        body = {"name": name, "kind": kind, "actor": actor, **fields}
        return self._ask(Rule, "POST", _RULES, json=body)

    def change_rule(self, rule_id: int, *, actor: str, **changes: Unpack[RenamedRule]) -> Rule:
        """Change a rule; what is not named stays. Raises UnknownRuleError, and like create_rule."""
        body = {"actor": actor, **changes}
        return self._ask(Rule, "PATCH", f"{_RULES}/{rule_id}", json=body)

    def delete_rule(self, rule_id: int, *, actor: str) -> None:
        """Delete a rule; its incidents stay. Raises UnknownRuleError."""
        self._send("DELETE", f"{_RULES}/{rule_id}", params={"actor": actor})

    # --- silences ---

    def silences(
        self,
        *,
        kind: SilenceKind | None = None,
        source: str | None = None,
        ended: bool = False,
        newest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[Silence]:
        """Go through the silences and maintenance windows; ended: those that are over, too.

        Raises UnknownSourceError.
        """
        params = {
            "kind": kind,
            "source": source,
            "ended": ended,
            "newest_first": newest_first,
            "limit": page_size,
        }
        return self._pages(Silence, _SILENCES, params)

    def silence(self, silence_id: int) -> Silence:
        """Look at one silence. Raises UnknownSilenceError."""
        return self._ask(Silence, "GET", f"{_SILENCES}/{silence_id}")

    def create_silence(
        self, *, actor: str, reason: str, **fields: Unpack[SilenceFields]
    ) -> Silence:
        """Add a silence or a maintenance window; it needs an end unless it is weekly.

        Raises UnknownSourceError, UnknownRuleError, InvalidValueError.
        """
        body = {"actor": actor, "reason": reason, **fields}
        return self._ask(Silence, "POST", _SILENCES, json=body)

    def end_silence(self, silence_id: int, *, actor: str, reason: str | None = None) -> Silence:
        """End a silence now. Raises UnknownSilenceError, SilenceEndedError."""
        path = f"{_SILENCES}/{silence_id}/end"
        return self._ask(Silence, "POST", path, json=_deed(actor, reason))


def _deed(actor: str, reason: str | None) -> dict[str, Any]:
    return given({"actor": actor, "reason": reason})
