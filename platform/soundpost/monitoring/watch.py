"""Watching a recording: compared with its source's baseline, then heard by its source's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from soundpost.errors import (
    BaselineTooSmallError,
    NothingToLearnError,
    UnknownRecordingError,
)
from soundpost.monitoring import baselines as making
from soundpost.monitoring import findings, hearing
from soundpost.monitoring.baselines import DEFAULT_BUDGET_S, Fitted, FittedBaselines, Scored
from soundpost.monitoring.evidence import Evidence, Thresholds
from soundpost.monitoring.incidents import Applied, Change, OnChange
from soundpost.monitoring.observations import DoubleArray, Observations
from soundpost.monitoring.reading import began_at, observe
from soundpost.monitoring.rules import EmbedText, Heard, SequentialTest, TestFactory, model_key
from soundpost.monitoring.yardsticks import Yardstick
from soundpost.store import baselines, recordings, rules, scores, sources, windows
from soundpost.store.rules import NewRule
from soundpost.store.scores import NewScore
from soundpost.store.session import Store
from soundpost.store.tables import EncoderModel, Recording, Source, utc_now
from soundpost.store.watch_tables import Baseline, Finding

# Is handed an incident's id and the findings that are new with it, in the same transaction.
OnFindings = Callable[[Session, int, Sequence[Finding]], None]


@dataclass(frozen=True)
class Watched:
    """What came of watching a recording. scored: whether there was a baseline to compare with."""

    recording_id: int
    windows: int
    scored: bool
    applied: Applied = field(default_factory=Applied)


@dataclass(frozen=True, eq=False)
class Reference:
    """The windows of a baseline, as rules compare with them."""

    model: str
    version: int
    fitted: Fitted

    @property
    def vectors(self) -> Any:
        """One a window [N, D]."""
        return self.fitted.reference.vectors

    @property
    def frames(self) -> Any:
        """One a second [F, D]."""
        return self.fitted.reference.frames

    @property
    def frame_windows(self) -> Any:
        """The row of each frame's window [F]."""
        return self.fitted.reference.frame_windows

    def yardstick(self, scores: DoubleArray) -> Yardstick:
        """Return how rare a score is, from the scores [N] of these windows."""
        return self.fitted.yardstick_of(scores)


def begin_watching(
    session: Session, baseline_id: int, actor: str, reason: str | None = None
) -> Baseline:
    """Activate a baseline, and see that a rule listens: a source without any gets the usual ones."""
    now = utc_now()
    baseline = making.activate(session, baseline_id, actor, reason)
    source = session.get_one(Source, baseline.source_id)
    known = {rule.kind for rule in rules.find(session, source_id=source.id, limit=None)}
    budget_s = float(baseline.chosen.get("budget_s", DEFAULT_BUDGET_S))
    usual: dict[str, dict[str, Any]] = {
        "novelty": {"budget_s": budget_s},
        "microphone": {},
        "format": {},
    }
    for kind, settings in usual.items():
        if kind not in known:
            name = _rule_name(session, source, kind)
            rules.add(session, NewRule(name, kind, actor, settings, source.id), now=now)
    return baseline


def _rule_name(session: Session, source: Source, kind: str) -> str:
    """A name that says what the rule is, fits, and is free."""
    name = f"{source.name[:150]}: {kind}"
    return f"{name} ({source.id})" if rules.is_taken(session, name) else name


class Watcher:
    """Watches recordings, one at a time and in one transaction each."""

    def __init__(
        self,
        store: Store,
        on_change: OnChange | None = None,
        embed_text: EmbedText | None = None,
        on_findings: OnFindings | None = None,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._on_findings = on_findings
        self._embed_text = embed_text
        self._fitted = FittedBaselines()

    def warm(self, source_id: int) -> None:
        """Fit what the source is compared with, which may take seconds, outside of any writing."""
        with self._store.reading() as session:
            baseline = baselines.active(session, source_id)
            if baseline is None:
                return
            fitted = self._fit(session, baseline)
            if fitted is None:
                return
            for rule in rules.for_source(session, source_id):
                if "budget_s" in rule.settings:
                    fitted.budget(float(rule.settings["budget_s"]))

    def watch(self, session: Session, recording_id: int, now: datetime) -> Watched:
        """Score a recording and let the rules of its source hear it, in the caller's transaction.

        A recording that was deleted, or of which nothing is embedded, leads to nothing.
        """
        try:
            recording = recordings.get(session, recording_id)
        except UnknownRecordingError:
            return Watched(recording_id, 0, scored=False)
        source = sources.hold(session, recording.source_id)
        baseline = baselines.active(session, source.id)
        model = _model_of(session, recording_id, baseline)
        if model is None:
            return Watched(recording_id, 0, scored=False)
        observed = observe(session, [recording_id], model.id)
        fitted = self._fitting(session, baseline, model)
        scored = fitted.score(observed) if fitted is not None else None
        if fitted is not None and scored is not None:
            _save(session, fitted, observed, scored)
        heard = _heard(session, source, recording, model, observed, baseline, fitted, scored, now)
        applied = hearing.hear(
            session, heard, _tests(fitted), self._on_change, embed_text=self._embed_text
        )
        evidence = findings.Evidence(model.id, observed, fitted, scored)
        for carried in applied.carried:
            firing = carried.firing
            made = findings.record(
                session, carried.incident_id, firing.rule_id, firing.window_ids, evidence
            )
            if made and self._on_findings is not None:
                self._on_findings(session, carried.incident_id, made)
        return Watched(recording_id, len(observed), scored is not None, applied)

    def tick(self, session: Session, now: datetime) -> list[Change]:
        """Let time pass: sources that say nothing, incidents that are over."""
        return hearing.tick(session, now, _tests(None), self._on_change)

    def _fitting(
        self, session: Session, baseline: Baseline | None, model: EncoderModel
    ) -> Fitted | None:
        """The fitted baseline, unless it is of another model's space or too little is left of it.

        The latter is noted with the baseline, and the other rules go on hearing.
        """
        if baseline is None or baseline.model_id != model.id:
            return None
        fitted = self._fit(session, baseline)
        if fitted is None:
            detail = "too many of its recordings were deleted; make another one"
            baselines.mark_failed(session, baseline.id, NothingToLearnError.code, detail)
        return fitted

    def _fit(self, session: Session, baseline: Baseline) -> Fitted | None:
        try:
            return self._fitted.of(session, baseline)
        except (NothingToLearnError, BaselineTooSmallError):
            return None


def _model_of(
    session: Session, recording_id: int, baseline: Baseline | None
) -> EncoderModel | None:
    """The model of the baseline if it has heard the recording, else the newest that has."""
    heard_by = windows.models_of(session, recording_id)
    if baseline is not None and baseline.model_id in heard_by:
        return session.get_one(EncoderModel, baseline.model_id)
    return session.get_one(EncoderModel, max(heard_by)) if heard_by else None


def _save(session: Session, fitted: Fitted, observed: Observations, scored: Scored) -> None:
    rows = [
        NewScore(
            window_id=int(observed.window_ids[row]),
            novelty=float(scored.novelty[row]),
            p_value=float(scored.p_values[row]),
            context=scored.contexts[row],
            parts={name: round(float(values[row]), 5) for name, values in scored.parts.items()},
        )
        for row in range(len(observed))
    ]
    scores.save(session, fitted.baseline_id, rows)


def _heard(
    session: Session,
    source: Source,
    recording: Recording,
    model: EncoderModel,
    observed: Observations,
    baseline: Baseline | None,
    fitted: Fitted | None,
    scored: Scored | None,
    now: datetime,
) -> Heard:
    started_at = began_at(recording.started_at, recording.created_at)
    duration_s = recording.duration_s or float(observed.durations_s.sum())
    seen_until = rules.seen_until(session, source.id)
    key = model_key(model.name, model.revision)
    reference = None
    if fitted is not None and baseline is not None:
        reference = Reference(key, baseline.version, fitted)
    return Heard(
        source_id=source.id,
        source_name=source.name,
        timezone=source.timezone,
        recording_id=recording.id,
        started_at=started_at,
        duration_s=duration_s,
        sample_rate_hz=recording.sample_rate_hz,
        channels=recording.channels,
        remarks=tuple(recording.remarks),
        observations=observed,
        tags=tuple(windows.tags_of(session, observed.window_ids.tolist(), model.id)),
        p_values=scored.p_values if scored is not None else None,
        novelty=scored.novelty if scored is not None else None,
        now=now,
        late=seen_until is not None and started_at + timedelta(seconds=duration_s) <= seen_until,
        model=key,
        reference=reference,
        cadence_s=source.cadence_s or sources.estimate_cadence_s(session, source.id),
        previous_at=recordings.previous_at(session, recording),
    )


def _tests(fitted: Fitted | None) -> TestFactory:
    """How sequential tests are made: by the baseline's own calibration where there is one."""

    def make(budget_s: float, document: Mapping[str, Any] | None) -> SequentialTest:
        if fitted is not None:
            return fitted.yardstick.make_test(budget_s, document)
        thresholds = Thresholds.for_budget(budget_s)
        return (
            Evidence(thresholds)
            if document is None
            else Evidence.from_document(document, thresholds)
        )

    return make
