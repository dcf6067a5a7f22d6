"""Watching: baselines, rules, incidents, silences."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


class MonitoringError(SoundpostError):
    """Watching cannot go on."""

    code = "monitoring"


class UnknownBaselineError(MonitoringError):
    """No baseline has this version."""

    code = "unknown-baseline"
    remedy = "List the versions with: soundpost baseline list"


class BaselineStateError(MonitoringError):
    """The baseline is not in a state for this."""

    code = "baseline-state"
    remedy = "See how it stands with: soundpost baseline show"


class NothingToLearnError(MonitoringError):
    """There are no recordings to make a baseline of."""

    code = "nothing-to-learn"
    remedy = "Ingest recordings of this source first, or widen --from and --to."


class BaselineTooSmallError(MonitoringError):
    """The baseline holds too little to compare with."""

    code = "baseline-too-small"
    remedy = "Record more of the normal sound, best in several recordings, and make it again."


class BrokenCalibrationError(MonitoringError):
    """What a baseline stored about itself cannot be read."""

    code = "broken-calibration"
    remedy = "Make the baseline again from its recordings."


class BaselineModelError(MonitoringError):
    """The baseline was made by another model than the one in use."""

    code = "baseline-model"
    remedy = "Set SOUNDPOST_ENCODER as it was, or make the baseline again with this one."


class ReferenceAudioGoneError(MonitoringError):
    """None of the reference recordings can be read."""

    code = "reference-audio-gone"
    remedy = "Bring the files back to where they were, or make a baseline of others."


class RuleError(SoundpostError):
    """The rule cannot be used."""

    code = "rule"


class UnknownRuleError(RuleError):
    """There is no such rule."""

    code = "unknown-rule"
    remedy = "List them: soundpost rules"


class RuleNameTakenError(RuleError):
    """There is a rule of this name already."""

    code = "rule-name-taken"
    remedy = "Choose another name, or remove that rule first."


class RuleSettingsError(RuleError):
    """The rule's settings make no sense."""

    code = "rule-settings"
    remedy = "See what this kind of rule takes: soundpost rules add --help"


class RawSimilarityError(RuleSettingsError):
    """A similarity is no threshold: what it means differs from source to source."""

    code = "raw-similarity"
    remedy = "Leave it out, and say with budget_s how rarely a false alarm may come."


class IncidentError(SoundpostError):
    """The incident cannot be handled."""

    code = "incident"


class UnknownIncidentError(IncidentError):
    """There is no such incident."""

    code = "unknown-incident"
    remedy = "List them: soundpost incidents"


class IncidentStateError(IncidentError):
    """The incident is in another state."""

    code = "incident-state"
    remedy = "Only open incidents are acknowledged, only closed ones are reopened."


class UnknownFindingError(IncidentError):
    """No finding has this id."""

    code = "unknown-finding"
    remedy = "See the findings of an incident with: soundpost incidents show N"


class UnknownSilenceError(IncidentError):
    """There is no such silence."""

    code = "unknown-silence"
    remedy = "List them: soundpost silence list"


class SilenceEndedError(IncidentError):
    """The silence is over already."""

    code = "silence-ended"
    remedy = "Add another one if it should go on: soundpost silence add"
