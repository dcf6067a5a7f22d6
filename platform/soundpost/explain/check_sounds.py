"""Checking levels, bands, rooms and noise."""

from __future__ import annotations

from typing import Final

from soundpost.explain.claims import Claim
from soundpost.explain.compared import Comparison, noise_change_db
from soundpost.explain.judging import Limits, named, not_measurable
from soundpost.explain.nothing import frame_difference
from soundpost.explain.profile import BAND_EDGES_HZ, FLOOR_DBFS
from soundpost.explain.verdict import Checked, Verdict

# Side by side 1 dB is about what people notice.
LEVEL: Final = Limits(clear=1.0, least=0.5, same=1.0)
# Of one sound among others: what else is heard at the time pulls the level either way.
SOUND_LEVEL: Final = Limits(clear=1.5, least=-1.5, same=2.0)
# A band against the other two: other edits move the balance by 4 dB in a quarter of the pairs.
BAND: Final = Limits(clear=3.0, least=0.5, same=2.0)
# Rooms of 0.6 s and more fill the falls behind loud moments by 3 dB and more in nine of ten pairs.
FALLS: Final = Limits(clear=2.5, least=0.5, same=1.0)
# With frames so far apart the sounds themselves are others. A room alone puts them 0.2 to 0.55 apart.
OTHER_SOUNDS: Final = 0.5
# The smaller of: rise of the floor, and its rise against the peaks.
NOISE: Final = Limits(clear=3.0, least=1.0, same=1.5)


def check_level(claim: Claim, compared: Comparison) -> Checked:
    """Check which is louder: the whole, or one sound."""
    first, second = compared.levels_dbfs(claim.what)
    change_db = second - first
    limits = LEVEL if claim.what is None else SOUND_LEVEL
    measurement = {"level_1_dbfs": first, "level_2_dbfs": second, "change_db": change_db}
    reason = (
        f"{named(claim.what)} has an A-weighted level of {_dbfs(first)} in audio 1 "
        f"and of {_dbfs(second)} in audio 2"
    )
    return Checked(claim, limits.verdict(change_db, claim.change), measurement, reason)


def check_band(claim: Claim, compared: Comparison) -> Checked:
    """Check whether a band was raised or cut against the other two."""
    name = claim.what or ""
    if name not in _BANDS:
        return not_measurable(claim, f"the band '{name}' has no edges")
    rise_db, relative_db = compared.band_db(name)
    measurement = {"change_db": rise_db, "change_against_others_db": relative_db}
    reason = (
        f"from audio 1 to audio 2 the band {_BANDS[name]} changes by {rise_db:+.1f} dB, "
        f"by {relative_db:+.1f} dB against the other bands"
    )
    verdict = BAND.verdict(relative_db, claim.change)
    if verdict is Verdict.SUPPORTED and claim.change * rise_db < 0.0:
        # Stronger among the others, yet weaker than it was.
        return not_measurable(claim, reason, **measurement)
    return Checked(claim, verdict, measurement, reason)


def check_reverb(claim: Claim, compared: Comparison) -> Checked:
    """Check whether sounds die away slower: levels fall less behind loud moments."""
    falls = compared.falls_db()
    if falls is None:
        return not_measurable(claim, "the recordings are too short to hear sounds die away")
    if frame_difference(*compared.both) > OTHER_SOUNDS:
        return not_measurable(claim, "other sounds die away in another way")
    first, second = falls
    measurement = {"fall_1_db": first, "fall_2_db": second}
    reason = (
        f"within 0.4 s of loud moments levels fall by {first:.1f} dB in audio 1 "
        f"and by {second:.1f} dB in audio 2"
    )
    return Checked(claim, FALLS.verdict(first - second, claim.change), measurement, reason)


def check_noise(claim: Claim, compared: Comparison) -> Checked:
    """Check whether the quietest moments are louder in all bands, and more so than the loudest."""
    change_db = noise_change_db(*compared.both)
    if change_db is None:
        return not_measurable(claim, "the noise between the sounds cannot be told from them")
    rise_db, relative_db = compared.noise_db()
    measurement = {"floor_change_db": rise_db, "floor_change_against_peaks_db": relative_db}
    reason = (
        f"from audio 1 to audio 2 the noise floor changes by {rise_db:+.1f} dB, "
        f"by {relative_db:+.1f} dB against the loudest moments"
    )
    return Checked(claim, NOISE.verdict(change_db, claim.change), measurement, reason)


def _dbfs(level: float) -> str:
    return "silence" if level <= FLOOR_DBFS else f"{level:.1f} dBFS"


_LOW_HZ, _HIGH_HZ = BAND_EDGES_HZ
_BANDS: Final = {
    "low": f"below {_LOW_HZ:.0f} Hz",
    "middle": f"from {_LOW_HZ:.0f} to {_HIGH_HZ:.0f} Hz",
    "high": f"above {_HIGH_HZ:.0f} Hz",
}
