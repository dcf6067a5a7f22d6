"""Putting into words by job: what differs in a finding, and what a recording sounds like.

A finding is explained in the same transaction that ends its job. Where its audio is gone, what was
measured when it was found is all that can be said, and the explanation says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from soundpost.archive.relay import Flag
from soundpost.config import Settings
from soundpost.errors import (
    AudioError,
    AudioStoreError,
    ModelError,
    SoundpostError,
    UnknownFindingError,
    UnknownRecordingError,
    UnreadableFileError,
)
from soundpost.store import explanations, jobs, recordings, windows
from soundpost.store.files import AudioFiles
from soundpost.store.jobs import Leased
from soundpost.store.session import Store
from soundpost.store.tables import Recording, utc_now
from soundpost.store.watch_tables import Finding
from soundpost.store.windows import Stretch
from soundpost_workers.leased import Postponed, do_leased

if TYPE_CHECKING:
    from soundpost.explain.between import Part
    from soundpost.explain.caption import Captioner
    from soundpost.explain.difference import DifferenceExplainer, Explanation

# A disk that does not answer or a server that is away: another time it may work.
_PASSING = (AudioStoreError, UnreadableFileError)
# What was asked for right after an upload looks again so long afterwards.
_EMBEDDING_WAIT = timedelta(seconds=10)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExplainTools:
    """What a process puts into words with; models are loaded at their first use."""

    settings: Settings
    store: Store
    files: AudioFiles
    explainer: Callable[[], DifferenceExplainer]
    captioner: Callable[[], Captioner]
    worker: str


# --- findings ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sides:
    """Where a finding was heard and what it is compared with; None where that is gone."""

    reference: Stretch | None
    observed: Stretch | None
    measured: str


def explain(tools: ExplainTools, job_id: int) -> bool:
    """Do a job that explains a finding; return False if it is not this worker's to do.

    Audio that is not there is no failure: the finding then has what was measured alone.
    """
    work = partial(_explain, tools)
    # A model that cannot be loaded will not load the next time either.
    final = (ModelError,)
    return do_leased(tools.store, tools.settings, job_id, tools.worker, work, final=final)


def _explain(tools: ExplainTools, held: Leased) -> None:
    finding_id = int(held.payload["finding"])
    try:
        with tools.store.reading() as session:
            sides = _sides(session, explanations.finding(session, finding_id))
    except UnknownFindingError:
        # Deleted with its incident, which is what someone wanted.
        return
    document, claims = _words(tools, sides)
    with tools.store.session() as session:
        if jobs.complete(session, held):
            explanations.explain_finding(session, finding_id, document, claims)


def _sides(session: Session, finding: Finding) -> _Sides:
    known = windows.stretches(session, [finding.reference_window_id, finding.window_id])
    differences = finding.measurements.get("sentence")
    return _Sides(
        reference=known.get(finding.reference_window_id or 0),
        observed=known.get(finding.window_id or 0),
        measured=str(differences or ""),
    )


def _words(tools: ExplainTools, sides: _Sides) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the document of a finding's explanation, and its claims with their verdicts."""
    from soundpost.explain.between import explain_parts

    try:
        reference, observed = _part(tools, sides.reference), _part(tools, sides.observed)
        made = explain_parts(tools.store, tools.explainer(), reference, observed)
    except _PASSING:
        raise
    except (AudioError, UnknownRecordingError) as error:
        return without_audio(sides.measured, error), []
    heard = {
        "audio_1": _place(sides.reference),
        "audio_2": _place(sides.observed),
    }
    return {**made.to_document(), "heard": heard, "without_audio": None}, claims_of(made)


def _part(tools: ExplainTools, stretch: Stretch | None) -> Part:
    from soundpost.explain.between import Part

    if stretch is None:
        raise UnknownRecordingError(None, "it was deleted")
    with tools.store.reading() as session:
        recording = recordings.get(session, stretch.recording_id)
    path = tools.files.open_local(recording)
    return Part(path, stretch.start_s, stretch.end_s, recording.path)


def _place(stretch: Stretch | None) -> dict[str, Any] | None:
    return None if stretch is None else dict(vars(stretch))


def without_audio(measured: str, error: SoundpostError) -> dict[str, Any]:
    """Return what can be said of a finding whose audio is gone: what was measured before."""
    return {
        "tiers": {},
        "summary": measured,
        "model": None,
        "revision": None,
        "compared": None,
        "heard": None,
        "without_audio": {"code": error.code, "detail": _storable(str(error))},
    }


def _storable(text: str) -> str:
    """Make a text fit for a document: file names are bytes, and messages quote damaged files."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")


def claims_of(explanation: Explanation) -> list[dict[str, Any]]:
    """Return every claim of every tier with its verdict and measurement."""
    return [
        {"tier": tier, **checked.to_document()}
        for tier, text in sorted(explanation.tiers.items())
        for checked in text.claims
    ]


# --- captions ---------------------------------------------------------------------------------


def caption(tools: ExplainTools, job_id: int, stop: Flag) -> bool:
    """Do a job that puts a recording into words; return False if it is not this worker's to do.

    Once stop is set the job is given back, and goes on another time where it was.
    """
    work = partial(_caption, tools, stop)
    return do_leased(tools.store, tools.settings, job_id, tools.worker, work, final=(ModelError,))


def _caption(tools: ExplainTools, stop: Flag, held: Leased) -> None:
    from soundpost.explain.captioning import caption_recording

    recording_id = int(held.payload["recording"])
    if _is_on_its_way(tools.store, recording_id):
        raise Postponed(utc_now() + _EMBEDDING_WAIT)
    n = tools.settings.captions_a_window
    written = caption_recording(tools.store, tools.captioner(), recording_id, n, stop.is_set)
    log.info("wrote %d captions of recording %d", written, recording_id)
    if stop.is_set():
        raise Postponed(utc_now())


def _is_on_its_way(store: Store, recording_id: int) -> bool:
    """Whether a recording is still to be embedded: the windows that it will have are not there."""
    with store.reading() as session:
        recording = session.get(Recording, recording_id)
        return recording is not None and recording.status in ("queued", "embedding")
