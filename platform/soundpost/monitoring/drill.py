"""The drill: would a change be noticed? Known changes in copies of a source's own reference.

The recordings of the active baseline are cut into groups in a row in time. Copies of one group are
judged by a baseline that is fitted, calibrated and given its thresholds on the others alone: it has
never heard them. A part knows less than the whole, and what it knows sets its thresholds: short sounds
are caught by one part and not by another. The result says so, part by part.
Every copy is also judged untouched: what chance alone raises stands beside what was detected.

Evidence does not begin at nothing when something changes: before each copy the detectors hear the
held-out p-values of the other groups, their recordings in an order of the copy's own.

Everything happens in memory: no score, no evidence, no incident, no row is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from soundpost.audio.changes import (
    SOUNDS,
    TREATMENTS,
    Sound,
    Treatment,
    add_sound,
    clips,
    make_sound,
)
from soundpost.errors import (
    BaselineModelError,
    BaselineStateError,
    BaselineTooSmallError,
    InvalidValueError,
    ReferenceAudioGoneError,
)
from soundpost.monitoring import baselines as watching
from soundpost.monitoring.baselines import DEFAULT_BUDGET_S, Fitted
from soundpost.monitoring.drill_copies import Copy, CopyReader, group_recordings, plan_copies
from soundpost.monitoring.drill_results import (
    EVENT,
    LASTING,
    TREATMENT,
    Drilled,
    Part,
    Trial,
    Untouched,
    summarise,
)
from soundpost.monitoring.evidence import Evidence, Thresholds
from soundpost.monitoring.observations import DoubleArray, FloatArray, Observations
from soundpost.monitoring.reading import arrange
from soundpost.store import baselines, rules, scores, sources
from soundpost.store.embeddings import encode_frames, encode_vector
from soundpost.store.files import AudioFiles
from soundpost.store.models import ModelSpec
from soundpost.store.session import Store
from soundpost.store.tables import EncoderModel, Recording, Source
from soundpost.store.watch_tables import Baseline
from soundpost.store.windows import HeardWindow, WindowRow

MIN_RECORDINGS: Final = 4
# Windows that the detectors hear before a copy, at most.
_HISTORY = 2_000
# Below this an active background is as good as digital silence.
_SILENT_DBFS = -90.0
_SOME_CLIPPED = 0.05
_CANNOT_FIRE = 1_000

Wave = tuple[FloatArray, int]
Report = Callable[[int, int], None]


class Embed(Protocol):
    """Hears waves as ingest hears recordings."""

    def __call__(self, waves: Sequence[Wave]) -> list[list[WindowRow]]:
        """Return the windows of each (wave [N], rate in Hz), from its own beginning."""
        ...


@dataclass(frozen=True)
class DrillOptions:
    """How much is tried. levels_db: of the sounds, over the background. budget_s: None: as set.

    copies of copy_s seconds in all; groups: how many parts the reference is cut into.
    """

    copies: int = 12
    copy_s: float = 45.0
    groups: int = 2
    levels_db: tuple[float, ...] = (-20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
    seed: int = 0
    budget_s: float | None = None
    sounds: Sequence[Sound] = SOUNDS
    treatments: Sequence[Treatment] = TREATMENTS

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise InvalidValueError(self.copies, "a drill needs at least one copy")
        if self.groups < 2:
            raise InvalidValueError(self.groups, "a part is held out and another heard: 2 groups")
        if not 5.0 <= self.copy_s <= 3_600.0:
            raise InvalidValueError(self.copy_s, "a copy takes 5 s to an hour")
        if self.seed < 0:
            raise InvalidValueError(self.seed, "a seed is zero or more")
        if self.budget_s is not None and not 0.0 < self.budget_s < float("inf"):
            raise InvalidValueError(self.budget_s, "a budget is a time between false alarms")

    @property
    def trials_a_copy(self) -> int:
        """How many changed versions there are of each copy."""
        return len(self.sounds) * len(self.levels_db) + len(self.treatments)


THOROUGH: Final = DrillOptions(copies=48, copy_s=90.0, groups=4)


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is drilled, read once."""

    source: Source
    baseline: Baseline
    reference: Observations
    recordings: list[Recording]
    dismissed: scores.Dismissed
    budget_s: float


def drill(
    store: Store,
    files: AudioFiles,
    source_name: str,
    embed: Embed,
    model: ModelSpec,
    options: DrillOptions | None = None,
    report: Report | None = None,
) -> Drilled:
    """Drill the active baseline of a source; the report gets trials done and trials in all.

    Raises BaselineStateError without an active baseline, BaselineModelError where it is of another
    model than embeds now, BaselineTooSmallError with too few recordings to hold some out, and
    ReferenceAudioGoneError where nothing of them can be read.
    """
    options = options or DrillOptions()
    subject = _read(store, source_name, model, options)
    return _Drill(subject, CopyReader(files), embed, options, report or _silent).run()


def _silent(done: int, total: int) -> None:
    """Report to nobody."""


def _read(store: Store, source_name: str, model: ModelSpec, options: DrillOptions) -> _Subject:
    with store.reading() as session:
        source = sources.by_name(session, source_name)
        baseline = baselines.active(session, source.id)
        if baseline is None:
            raise BaselineStateError(source_name, "no baseline is active")
        heard_by = session.get_one(EncoderModel, baseline.model_id)
        if (heard_by.name, heard_by.revision) != (model.name, model.revision):
            raise BaselineModelError(heard_by.name, f"now {model.name} embeds")
        ids = baselines.recording_ids(session, baseline.id)
        recordings = [session.get_one(Recording, key) for key in ids]
        if len(recordings) < max(MIN_RECORDINGS, options.groups):
            detail = f"a drill holds some out and needs {max(MIN_RECORDINGS, options.groups)}"
            raise BaselineTooSmallError(f"{len(recordings)} recordings", detail)
        return _Subject(
            source=source,
            baseline=baseline,
            reference=watching.reference_of(session, baseline),
            recordings=recordings,
            dismissed=scores.dismissed(session, baseline.id),
            budget_s=options.budget_s or _budget_s(rules.for_source(session, source.id), baseline),
        )


def _budget_s(watching_rules: Sequence[Any], baseline: Baseline) -> float:
    """The budget of the rule that fires first; without one, that of the baseline."""
    set_s = [
        float(rule.settings["budget_s"])
        for rule in watching_rules
        if rule.kind == "novelty" and "budget_s" in rule.settings
    ]
    return min(set_s) if set_s else float(baseline.chosen.get("budget_s", DEFAULT_BUDGET_S))


class _Drill:
    """One drill on its way: groups, their copies, and their trials."""

    def __init__(
        self,
        subject: _Subject,
        reader: CopyReader,
        embed: Embed,
        options: DrillOptions,
        report: Report,
    ) -> None:
        self._subject = subject
        self._reader = reader
        self._embed = embed
        self._options = options
        self._report = report
        self._trials: list[Trial] = []
        self._copies: list[tuple[Copy, int, bool]] = []
        self._notes: list[str] = []
        self._parts: list[Part] = []

    def run(self) -> Drilled:
        """Go through the groups, and say what was found."""
        self._report(0, self._options.copies * self._options.trials_a_copy)
        recordings = group_recordings(self._subject.recordings, self._options.groups)
        for number, group in enumerate(recordings):
            self._group(number, group)
        if not self._copies:
            gone = list(self._reader.gone.values())
            raise ReferenceAudioGoneError(
                ", ".join(one.path for one in gone[:5]), gone[0].detail if gone else ""
            )
        return self._result()

    def _group(self, number: int, group: list[Recording]) -> None:
        """Copy recordings of a group, and judge them by what the others say is normal."""
        options = self._options
        rng = np.random.default_rng([options.seed, number])
        planned = plan_copies(group, options.copy_s, rng)
        wanted = _even(options.copies, options.groups)[number]
        judge: _Judge | None = None
        first_trial, first_copy = len(self._trials), len(self._copies)
        for copy in self._reader.copies(planned, wanted, rng):
            judge = judge or self._judge(group)
            self._copy(judge, copy)
        if judge is not None:
            made, copies = self._trials[first_trial:], len(self._copies) - first_copy
            self._parts.append(self._part(number, copies, judge, made))

    def _part(self, number: int, copies: int, judge: _Judge, made: Sequence[Trial]) -> Part:
        greatest_db = max(self._options.levels_db)
        loudest = [one for one in made if one.kind == EVENT and one.level_db == greatest_db]
        return Part(
            part=number + 1,
            copies=copies,
            fast_threshold=judge.thresholds.fast_s / self._subject.budget_s,
            loudest=len(loudest),
            loudest_found=sum(one.found for one in loudest),
        )

    def _judge(self, group: list[Recording]) -> _Judge:
        subject = self._subject
        held_out = np.isin(subject.reference.recording_ids, [row.id for row in group])
        known = subject.reference.take(~held_out)
        fitted = watching.refit(subject.baseline, subject.source.timezone, known, subject.dismissed)
        budget = fitted.budget(subject.budget_s)
        if budget.fast_windows >= _CANNOT_FIRE:
            self._note("The fast detector cannot fire: a part of the reference knows too little.")
        return _Judge(fitted, budget.thresholds)

    def _copy(self, judge: _Judge, copy: Copy) -> None:
        number = len(self._copies)
        pieces = [(piece.wave, piece.rate_hz) for piece in copy.pieces]
        ear = judge.listen(copy, self._embed(pieces), [self._options.seed, number])
        alarmed = ear.hear(self._embed(pieces[copy.onset_piece :]), _lengths_s(pieces, copy))
        self._copies.append((copy, ear.alarms_before + (alarmed is not None), alarmed is not None))
        if copy.background_dbfs < _SILENT_DBFS:
            self._note(
                "The background of some copies is digital silence: levels over it say little."
            )
        for trials, waves in self._variants(copy, number):
            rows = iter(self._embed([wave for one in waves for wave in one]))
            for trial, one in zip(trials, waves, strict=True):
                alarm = ear.hear([next(rows) for _ in one], _lengths_s(one, copy, changed=True))
                self._trials.append(trial if alarm is None else _found(trial, alarm))
            done = len(self._trials)
            self._report(done, self._options.copies * self._options.trials_a_copy)

    def _variants(self, copy: Copy, number: int) -> Iterator[tuple[list[Trial], list[list[Wave]]]]:
        """Yield the changed pieces of a copy, from the one that a change begins in, by batches."""
        options = self._options
        for place, sound in enumerate(options.sounds):
            kind = LASTING if sound.lasting else EVENT
            made = _sounds(sound, copy, [options.seed, number, place])
            waves = [_with_sound(copy, made, level_db) for level_db in options.levels_db]
            yield (
                [
                    _trial(copy, number, sound.name, kind, level_db, one)
                    for level_db, one in zip(options.levels_db, waves, strict=True)
                ],
                waves,
            )
        for treatment in options.treatments:
            changed = _treated(copy, treatment)
            yield [_trial(copy, number, treatment.name, TREATMENT, None, changed)], [changed]

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _result(self) -> Drilled:
        subject, options = self._subject, self._options
        curves, changes = summarise(self._trials, options.seed)
        copies = [copy for copy, _, _ in self._copies]
        self._count_clipped()
        return Drilled(
            source=subject.source.name,
            version=subject.baseline.version,
            budget_s=subject.budget_s,
            seed=options.seed,
            recordings=len(subject.recordings),
            tested=len({piece.recording_id for copy in copies for piece in copy.pieces}),
            groups=options.groups,
            fitted_share=1.0 - 1.0 / options.groups,
            copy_s=float(np.median([copy.duration_s for copy in copies])),
            heard_after_s=float(np.median([copy.duration_s - copy.onset_s for copy in copies])),
            untouched=Untouched(
                copies=len(copies),
                alarmed=sum(alarmed for _, _, alarmed in self._copies),
                alarms=sum(alarms for _, alarms, _ in self._copies),
                heard_s=sum(copy.duration_s for copy in copies),
            ),
            trials=tuple(self._trials),
            curves=tuple(curves),
            changes=tuple(changes),
            gone=tuple(self._reader.gone.values()),
            notes=tuple(self._notes),
            parts=tuple(self._parts),
        )

    def _count_clipped(self) -> None:
        share = float(np.mean([trial.clipped for trial in self._trials])) if self._trials else 0.0
        if share >= _SOME_CLIPPED:
            self._note(
                f"{share:.0%} of the changed copies reach full scale and clip, as a recorder would."
            )


def _even(total: int, parts: int) -> list[int]:
    """Split a number into parts that differ by one at most."""
    return [(total * (part + 1)) // parts - (total * part) // parts for part in range(parts)]


# --- changing ---------------------------------------------------------------------------------


def _sounds(sound: Sound, copy: Copy, seed: Sequence[int]) -> list[FloatArray]:
    """Make a sound for the piece it begins in and, where it lasts, for those after it.

    One seed makes the same sound for each piece: a whistle keeps its pitch.
    """
    made = []
    for number, piece in enumerate(copy.pieces[copy.onset_piece :]):
        room = len(piece.wave) - (copy.onset if number == 0 else 0)
        samples = (
            room if sound.length_s is None else min(room, round(sound.length_s * piece.rate_hz))
        )
        made.append(make_sound(sound.kind, samples, piece.rate_hz, seed))
        if not sound.lasting:
            break
    return made


def _with_sound(copy: Copy, made: Sequence[FloatArray], level_db: float) -> list[Wave]:
    level_dbfs = copy.background_dbfs + level_db
    changed = []
    for number, piece in enumerate(copy.pieces[copy.onset_piece :]):
        at = copy.onset if number == 0 else 0
        wave = piece.wave
        if number < len(made):
            wave = add_sound(wave, made[number], at, level_dbfs)
        changed.append((wave, piece.rate_hz))
    return changed


def _treated(copy: Copy, treatment: Treatment) -> list[Wave]:
    changed = []
    for number, piece in enumerate(copy.pieces[copy.onset_piece :]):
        at = copy.onset if number == 0 else 0
        lasts = number == 0 or treatment.length_s is None
        wave = treatment.treat(piece.wave, piece.rate_hz, at) if lasts else piece.wave
        changed.append((wave, piece.rate_hz))
    return changed


def _trial(
    copy: Copy, number: int, name: str, kind: str, level_db: float | None, waves: Sequence[Wave]
) -> Trial:
    before = any(clips(piece.wave) for piece in copy.pieces[copy.onset_piece :])
    clipped = not before and any(clips(wave) for wave, _ in waves)
    return Trial(number, copy.recording_id, name, kind, level_db, clipped=clipped)


def _found(trial: Trial, alarm: _Noticed) -> Trial:
    return Trial(
        trial.copy,
        trial.recording_id,
        trial.change,
        trial.kind,
        trial.level_db,
        alarm.delay_s,
        alarm.windows,
        alarm.detector,
        trial.clipped,
    )


def _lengths_s(waves: Sequence[Wave], copy: Copy, *, changed: bool = False) -> list[float]:
    """How long the pieces are, from the one that the change begins in."""
    first = 0 if changed else copy.onset_piece
    return [len(wave) / rate_hz for wave, rate_hz in waves[first:]]


# --- judging ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Noticed:
    delay_s: float
    windows: int
    detector: str


class _Judge:
    """A baseline fitted without a group, and what its detectors heard before a copy."""

    def __init__(self, fitted: Fitted, thresholds: Thresholds) -> None:
        self._fitted = fitted
        self.thresholds = thresholds
        reference = fitted.reference
        p_values = fitted.calibration.held_out()[: len(reference)]
        self._history = [
            (p_values[own], reference.take(own).steps_s())
            for key in np.unique(reference.recording_ids).tolist()
            for own in [reference.recording_ids == key]
        ]

    def listen(self, copy: Copy, rows: Sequence[list[WindowRow]], seed: Sequence[int]) -> _Ear:
        """Hear the past in an order of the copy's own, then the copy until its change begins."""
        evidence = Evidence(self.thresholds)
        drawn = np.random.default_rng(list(seed)).permutation(len(self._history))
        past = [self._history[k] for k in drawn.tolist()]
        p_values = np.concatenate([p for p, _ in past])[-_HISTORY:]
        steps_s = np.concatenate([s for _, s in past])[-_HISTORY:]
        _hear_past(evidence, p_values, steps_s)
        ear = _Ear(self._fitted, self.thresholds, copy)
        for number, one in enumerate(rows[: copy.onset_piece + 1]):
            p_values, steps_s, ends_s = ear.judged(one, number)
            if number == copy.onset_piece:
                before = ends_s <= ear.onset_s
                p_values, steps_s = p_values[before], steps_s[before]
            ear.alarms_before += _hear_past(evidence, p_values, steps_s)
        ear.evidence = evidence.to_document()
        return ear


def _hear_past(evidence: Evidence, p_values: DoubleArray, steps_s: DoubleArray) -> int:
    """Gather evidence; each alarm is resolved. Return how many there were."""
    alarms = 0
    for p_value, step_s in zip(p_values.tolist(), steps_s.tolist(), strict=True):
        if evidence.step(p_value, step_s):
            evidence.resolve()
            alarms += 1
    return alarms


class _Ear:
    """Hears what may follow in a copy, each time from the same state."""

    def __init__(self, fitted: Fitted, thresholds: Thresholds, copy: Copy) -> None:
        self.evidence: dict[str, Any] = {}
        self.alarms_before = 0
        self.onset_s = copy.onset / copy.pieces[copy.onset_piece].rate_hz
        self._fitted = fitted
        self._thresholds = thresholds
        self._copy = copy

    def judged(
        self, rows: Sequence[WindowRow], number: int
    ) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return p-values, new seconds, and ends in the piece [N each] of a piece's windows."""
        if not rows:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        observed = _observed(rows, self._copy.pieces[number].began_s)
        ends_s = np.array([row.end_s for row in rows])
        return self._fitted.score(observed).p_values, observed.steps_s(), ends_s

    def hear(self, rows: Sequence[list[WindowRow]], lengths_s: Sequence[float]) -> _Noticed | None:
        """Hear the pieces from the one that the change begins in; return the first alarm."""
        evidence = Evidence.from_document(self.evidence, self._thresholds)
        windows, passed_s = 0, -self.onset_s
        for offset, (one, length_s) in enumerate(zip(rows, lengths_s, strict=True)):
            p_values, steps_s, ends_s = self.judged(one, self._copy.onset_piece + offset)
            for p_value, step_s, end_s in zip(
                p_values.tolist(), steps_s.tolist(), ends_s.tolist(), strict=True
            ):
                if passed_s + end_s <= 0.0:
                    continue
                windows += 1
                alarm = evidence.step(p_value, step_s)
                if alarm is not None:
                    return _Noticed(passed_s + end_s, windows, alarm.detector)
            passed_s += length_s
        return None


def _observed(rows: Sequence[WindowRow], began_s: float) -> Observations:
    """Lay rows out as they would come back from the database."""
    heard = [
        HeardWindow(
            number,
            0,
            row.start_s,
            row.end_s,
            row.acoustics,
            encode_vector(row.vector),
            encode_frames(row.frames),
        )
        for number, row in enumerate(rows)
    ]
    return arrange(heard, {0: began_s}, len(rows[0].vector))
