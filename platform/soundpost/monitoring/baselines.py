"""Baselines: what is normal for a source, from the recordings that say so to p-values of new ones.

A baseline is a list of recordings and a calibration. What is fitted on the recordings is fitted
again wherever it is needed: it follows from them alone, and a recording that was deleted is out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from soundpost.audio.acoustics import THIRD_OCTAVE_CENTRES_HZ
from soundpost.errors import (
    BaselineStateError,
    BrokenCalibrationError,
    InvalidValueError,
    NothingToLearnError,
    SoundpostError,
)
from soundpost.monitoring.budget import Budget
from soundpost.monitoring.calibration import Calibration, calibrate
from soundpost.monitoring.contexts import (
    CONTEXT_KINDS,
    Contexts,
    hour_contexts,
    no_contexts,
    state_contexts,
)
from soundpost.monitoring.novelty import DEFAULT_METHOD, NOVELTY_METHODS, Novelty, fit
from soundpost.monitoring.observations import DoubleArray, IdArray, Observations
from soundpost.monitoring.quality import assess
from soundpost.monitoring.reading import observe
from soundpost.monitoring.yardsticks import Yardstick
from soundpost.store import audit, baselines, models, scores
from soundpost.store.baselines import NewBaseline, Prepared
from soundpost.store.session import Store
from soundpost.store.tables import Source, utc_now
from soundpost.store.watch_tables import Baseline

DEFAULT_BUDGET_S = 30 * 86_400.0
_VERSION = 1
_PROFILED = ("level_dbfs", "a_level_dbfs", "centroid_hz", "flatness", "onsets_per_s")


@dataclass(frozen=True)
class Choice:
    """How the recordings of a baseline are chosen, and what is made of them.

    Either after and before (one may be open), or recordings, or learn_s: everything that arrives
    for so long from now. budget_s: the time between false alarms that is wanted.
    """

    after: datetime | None = None
    before: datetime | None = None
    recordings: tuple[int, ...] = ()
    learn_s: float | None = None
    method: str = DEFAULT_METHOD
    contexts: str = "none"
    budget_s: float = DEFAULT_BUDGET_S

    def __post_init__(self) -> None:
        if self.method not in NOVELTY_METHODS:
            raise InvalidValueError(self.method, f"a method is one of {', '.join(NOVELTY_METHODS)}")
        if self.contexts not in CONTEXT_KINDS:
            raise InvalidValueError(self.contexts, f"contexts are {', '.join(CONTEXT_KINDS)}")
        if not 0.0 < self.budget_s < float("inf"):
            raise InvalidValueError(self.budget_s, "a budget is a time between false alarms")
        ways = (bool(self.recordings), self.learn_s is not None, bool(self.after or self.before))
        if sum(ways) > 1:
            raise InvalidValueError("choice", "choose by time, by recordings, or by learning")
        if self.learn_s is not None and not 0.0 < self.learn_s < float("inf"):
            raise InvalidValueError(self.learn_s, "learning takes some time")

    def to_document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        times = {"after": self.after, "before": self.before}
        shown = {name: time.isoformat() if time else None for name, time in times.items()}
        return asdict(self) | shown | {"recordings": list(self.recordings)}


@dataclass(frozen=True, eq=False)
class Fitted:
    """A baseline ready to score: its reference, what was fitted on it, and its calibration."""

    baseline_id: int
    model_id: int
    reference: Observations
    novelty: Novelty
    contexts: Contexts
    calibration: Calibration

    def score(self, observed: Observations) -> Scored:
        """Score windows [N] against the reference."""
        found = self.novelty.score(observed)
        names = self.contexts.assign(observed)
        return Scored(
            novelty=found.novelty,
            parts=found.parts,
            nearest=found.nearest,
            second=found.second,
            contexts=names,
            p_values=self.yardstick.p_values(found.novelty, names),
        )

    @cached_property
    def yardstick(self) -> Yardstick:
        """How rare novelty is."""
        reference = self.reference
        return Yardstick(self.calibration, reference.durations_s, reference.starts_s)

    def yardstick_of(self, scores: DoubleArray) -> Yardstick:
        """Return how rare another score is, from those of the reference windows [N]."""
        return _yardstick_of(self, np.ascontiguousarray(scores, np.float64).tobytes())

    def budget(self, budget_s: float) -> Budget:
        """Return the thresholds that keep a budget, by the reference's own held-out p-values."""
        return self.yardstick.budget(budget_s)


@dataclass(frozen=True, eq=False)
class Scored:
    """What a baseline says of windows [N]; nearest: rows of the reference; second: in the window."""

    novelty: DoubleArray
    parts: Mapping[str, DoubleArray]
    nearest: IdArray
    second: IdArray
    contexts: tuple[str, ...]
    p_values: DoubleArray


# --- making one -------------------------------------------------------------------------------


def create(session: Session, source: Source, choice: Choice, actor: str) -> Baseline:
    """Add a version that waits to be prepared, or that learns.

    Raises NothingToLearnError where nothing of the source is embedded in what was chosen.
    """
    now = utc_now()
    model = models.serving(session)
    if choice.learn_s is not None and model is not None:
        until = now + timedelta(seconds=choice.learn_s)
        new = NewBaseline(
            source.id, model.id, actor, "learning", choice.to_document(), learn_until=until
        )
        return _noted(session, baselines.add(session, new), actor, "create")
    if model is None:
        raise NothingToLearnError(source.name, "nothing is embedded yet")
    chosen = _choose(session, source, model.id, choice)
    new = NewBaseline(source.id, model.id, actor, "preparing", choice.to_document())
    return _noted(session, baselines.add(session, new, chosen), actor, "create")


def _choose(session: Session, source: Source, model_id: int, choice: Choice) -> list[int]:
    if choice.recordings:
        baselines.check_recordings(session, source.id, choice.recordings)
    embedded = baselines.embedded_recordings(
        session, source.id, model_id, choice.after, choice.before
    )
    wanted = set(choice.recordings)
    missing = sorted(wanted - set(embedded))
    if missing:
        raise NothingToLearnError(f"recordings {missing}", "they are not embedded")
    chosen = [key for key in embedded if key in wanted] if wanted else embedded
    if not chosen:
        raise NothingToLearnError(source.name, "no embedded recording was chosen")
    return chosen


def accept(
    session: Session, source: Source, recording_ids: Sequence[int], actor: str, reason: str | None
) -> Baseline:
    """Add a version that takes further recordings as normal, beside those of the active one.

    Raises BaselineStateError if no baseline is active.
    """
    before = baselines.active(session, source.id)
    if before is None:
        raise BaselineStateError(source.name, "no baseline is active")
    choice = Choice(recordings=tuple(recording_ids))
    accepted = _choose(session, source, before.model_id, choice)
    known = baselines.recording_ids(session, before.id)
    chosen = before.chosen | {"accepted": accepted}
    new = NewBaseline(source.id, before.model_id, actor, "preparing", chosen, parent_id=before.id)
    made = baselines.add(session, new, sorted({*known, *accepted}))
    return _noted(session, made, actor, "accept", reason)


def follow_model(session: Session, baseline: Baseline, model_id: int) -> Baseline:
    """Add a version of the same recordings in another model's space."""
    new = NewBaseline(
        baseline.source_id,
        model_id,
        "soundpost",
        "preparing",
        baseline.chosen,
        parent_id=baseline.id,
    )
    made = baselines.add(session, new, baselines.recording_ids(session, baseline.id))
    return _noted(session, made, "soundpost", "follow-model", "the model has changed")


def end_learning(session: Session, baseline: Baseline) -> None:
    """Take what arrived while a baseline learned; it waits to be prepared then.

    Where nothing arrived it fails, and says so.
    """
    found = baselines.embedded_recordings(
        session,
        baseline.source_id,
        baseline.model_id,
        baseline.created_at,
        baseline.learn_until,
    )
    baselines.refer_to(session, baseline.id, found)
    baseline.state = "preparing"
    session.flush()
    if not found:
        error = NothingToLearnError(baseline.source_id, "nothing arrived while it learned")
        baselines.mark_failed(session, baseline.id, error.code, str(error))


def activate(session: Session, baseline_id: int, actor: str, reason: str | None = None) -> Baseline:
    """Watch by a prepared version from now on; an older one brings back what it knew."""
    return _noted(session, baselines.activate(session, baseline_id), actor, "activate", reason)


def retire(session: Session, baseline_id: int, actor: str, reason: str | None = None) -> Baseline:
    """Stop comparing a source with this version. Raises BaselineStateError if it is not active."""
    baseline = baselines.get(session, baseline_id)
    if baseline.state != "active":
        raise BaselineStateError(f"version {baseline.version}", f"it is {baseline.state}")
    retired = baselines.retire(session, baseline.source_id)
    return _noted(session, retired, actor, "retire", reason)


def _noted(
    session: Session, baseline: Baseline, actor: str, action: str, reason: str | None = None
) -> Baseline:
    audit.note(
        session,
        actor,
        f"baseline-{action}",
        "baseline",
        baseline.id,
        reason=reason,
        detail={"source": baseline.source_id, "version": baseline.version},
    )
    return baseline


# --- preparing --------------------------------------------------------------------------------


def prepare(store: Store, baseline_id: int) -> Baseline:
    """Fit, calibrate and judge a baseline; what was found is kept with it.

    Raises what cannot be mended by another try (MonitoringError), noted with the baseline too.
    """
    try:
        with store.reading() as session:
            baseline = baselines.get(session, baseline_id)
            source = session.get_one(Source, baseline.source_id)
            reference = reference_of(session, baseline)
            dismissed = scores.dismissed(session, baseline_id)
        prepared = _prepare(baseline, source.timezone, reference, dismissed)
    except SoundpostError as error:
        with store.session() as session:
            baselines.mark_failed(session, baseline_id, error.code, str(error))
        raise
    with store.session() as session:
        baselines.save(session, baseline_id, prepared)
        return baselines.get(session, baseline_id)


def reference_of(session: Session, baseline: Baseline) -> Observations:
    """Read the windows of a baseline that are still there. Raises NothingToLearnError."""
    ids = baselines.recording_ids(session, baseline.id)
    reference = observe(session, ids, baseline.model_id)
    if not len(reference):
        raise NothingToLearnError(f"version {baseline.version}", "its recordings are gone")
    return reference


def _prepare(
    baseline: Baseline,
    timezone: str,
    reference: Observations,
    dismissed: scores.Dismissed,
) -> Prepared:
    fitted = refit(baseline, timezone, reference, dismissed)
    novelty, calibration = fitted.novelty, fitted.calibration
    budget = fitted.budget(float(baseline.chosen.get("budget_s", DEFAULT_BUDGET_S)))
    document = {
        "version": _VERSION,
        "contexts": fitted.contexts.to_document(),
        "calibration": calibration.to_document(),
        "budgets": [budget.to_document()],
    }
    quality = [asdict(finding) for finding in assess(reference, novelty, timezone, budget)]
    return Prepared(
        json.dumps(document).encode(), quality, _summary(reference, novelty, budget, calibration)
    )


def refit(
    baseline: Baseline, timezone: str, reference: Observations, dismissed: scores.Dismissed
) -> Fitted:
    """Fit and calibrate as a baseline was chosen, on its reference or on a part of it.

    Raises BaselineTooSmallError.
    """
    novelty = fit(reference, str(baseline.chosen.get("method", DEFAULT_METHOD)))
    contexts = _contexts(str(baseline.chosen.get("contexts", "none")), reference, timezone)
    calibration = _calibrate(reference, novelty, contexts, dismissed)
    return Fitted(baseline.id, baseline.model_id, reference, novelty, contexts, calibration)


def _contexts(kind: str, reference: Observations, timezone: str) -> Contexts:
    if kind == "hours":
        return hour_contexts(timezone)
    return state_contexts(reference) if kind == "states" else no_contexts()


def _calibrate(
    reference: Observations,
    novelty: Novelty,
    contexts: Contexts,
    dismissed: scores.Dismissed,
) -> Calibration:
    """Held-out scores of the reference, and those of what people have said were false alarms."""
    held_out = novelty.leave_one_out()
    return calibrate(
        np.concatenate([held_out.novelty, dismissed.novelty]),
        # A recording that was dismissed is no recording of the reference.
        np.concatenate([novelty.folds.unit, -1 - dismissed.recording_ids]),
        (*contexts.assign(reference), *dismissed.contexts),
    )


def _summary(
    reference: Observations, novelty: Novelty, budget: Budget, calibration: Calibration
) -> dict[str, Any]:
    return {
        "prepared_at": utc_now().isoformat(),
        "windows": len(reference),
        "recordings": len(np.unique(reference.recording_ids)),
        "audio_s": round(float(reference.durations_s.sum()), 3),
        "method": novelty.method,
        "notes": list(novelty.notes),
        "thin_contexts": list(calibration.thin_contexts()),
        "dismissed_windows": len(calibration.scores) - len(reference),
        "budget": budget.to_document(),
        "profile": profile(reference),
    }


def profile(reference: Observations) -> dict[str, Any]:
    """Return what is usual: the 5th, 50th and 95th percentile of each measure, levels by band."""
    measured = {
        name: [float(row[name]) for row in reference.acoustics if name in row] for name in _PROFILED
    }
    usual: dict[str, Any] = {
        name: _percentiles(values) for name, values in measured.items() if values
    }
    widths = [len(row.get("third_octave_dbfs", ())) for row in reference.acoustics]
    bands = min(widths, default=0)
    levels = np.array([row["third_octave_dbfs"][:bands] for row in reference.acoustics if bands])
    usual["third_octave_dbfs"] = {
        f"{THIRD_OCTAVE_CENTRES_HZ[band]:.0f}": _percentiles(levels[:, band].tolist())
        for band in range(bands)
    }
    return usual


def _percentiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, [5, 50, 95])]


# --- using ------------------------------------------------------------------------------------

# What was fitted, by baseline and state of its preparation; a process watches a few sources.
_CACHED = 8


class FittedBaselines:
    """Fits baselines when they are needed and keeps the latest few in memory."""

    def __init__(self, capacity: int = _CACHED) -> None:
        self._capacity = capacity
        self._known: dict[tuple[int, str, int], Fitted] = {}

    def of(self, session: Session, baseline: Baseline) -> Fitted:
        """Return a prepared baseline, fitted. Raises BaselineStateError, BrokenCalibrationError."""
        count = len(baselines.recording_ids(session, baseline.id))
        key = (baseline.id, str(baseline.summary.get("prepared_at")), count)
        if key not in self._known:
            self._known[key] = load(session, baseline.id)
            while len(self._known) > self._capacity:
                self._known.pop(next(iter(self._known)))
        return self._known[key]


def load(session: Session, baseline_id: int) -> Fitted:
    """Fit a prepared baseline anew. Raises BaselineStateError if it was never prepared."""
    baseline = baselines.get(session, baseline_id)
    if baseline.calibration is None:
        raise BaselineStateError(f"version {baseline.version}", f"it is {baseline.state}")
    document = _document(baseline.calibration)
    reference = reference_of(session, baseline)
    novelty = fit(reference, str(baseline.chosen.get("method", DEFAULT_METHOD)))
    return Fitted(
        baseline.id,
        baseline.model_id,
        reference,
        novelty,
        Contexts.from_document(document["contexts"]),
        Calibration.from_document(document["calibration"]),
    )


def _document(calibration: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(calibration)
    except ValueError as error:
        raise BrokenCalibrationError("baseline", str(error)) from error
    if document.get("version") != _VERSION:
        raise BrokenCalibrationError("baseline", f"version {document.get('version')}")
    return document


@lru_cache(maxsize=64)
def _yardstick_of(fitted: Fitted, scores: bytes) -> Yardstick:
    calibration = calibrate(np.frombuffer(scores), fitted.novelty.folds.unit)
    reference = fitted.reference
    return Yardstick(calibration, reference.durations_s, reference.starts_s)
