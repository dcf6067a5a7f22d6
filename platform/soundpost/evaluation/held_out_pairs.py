"""The pairs that explanations are measured on: of clips held out of training, every kind of edit.

The encoder of held-out figures was trained on all speech and motors: see `KNOWN`.

A pair is its record: the group's seed makes the waves anew, so nothing is kept on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from soundpost.audio.acoustics import measure
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_records import EditKind, PairRecord
from soundpost.training.pairs import Group, Pair, PairPool, is_borne_out, make_group, rendered

FloatArray = NDArray[np.float32]

TWO, DIFFERENT, SAME, AGAIN = "two edits", "different scenes", "same recording", "noise anew"
KINDS = tuple(str(kind) for kind in EditKind)
SLOTS = (*KINDS, TWO, DIFFERENT, SAME, AGAIN)
UNEDITED = (SAME, AGAIN)
# What must be said beside every figure on these pairs (`training.compact`, `training.pair_scenes`).
KNOWN = (
    "The encoder never heard the two folds, but it was trained on these very clips of speech and of the "
    "motor, which the network did not hear; of the speakers of FSDD it heard other takes."
)
# Far from the seeds that training counts up from.
FIRST_SEED = 5_000_000
# Of one group, so that no scene weighs more than its share.
_MOST_OF_A_GROUP = 3
_MOST_GROUPS = 20_000


@dataclass(frozen=True)
class HeldOutPair:
    """A pair: its record, what it is counted as, and the recording that its scene begins with.

    Pairs of one origin are no independent evidence.
    """

    record: PairRecord
    slot: str
    origin: str

    @property
    def edited(self) -> bool:
        """Whether anything audible differs."""
        return bool(self.record.edits)


def slot_of(pair: Pair) -> str:
    """Return what a pair is counted as: its only edit's kind, or one of the other slots."""
    record = pair.record
    if not record.edits:
        return SAME if pair.first == pair.second else AGAIN
    if record.kind == "different":
        return DIFFERENT
    return str(record.edits[0].kind) if len(record.edits) == 1 else TWO


def each_slot(pairs: int) -> dict[str, int]:
    """Return how many of each slot make at least so many edited pairs, and a third as many without."""
    edited = [slot for slot in SLOTS if slot not in UNEDITED]
    each = -(-pairs // len(edited))
    return dict.fromkeys(edited, each) | dict.fromkeys(UNEDITED, max(1, -(-pairs // 6)))


def select(pool: PairPool, wanted: Mapping[str, int], seed: int = 0) -> list[HeldOutPair]:
    """Choose pairs of a pool until every slot has what is wanted, in the order of their groups.

    Which of a group's pairs are taken is drawn; a slot that cannot be filled stays short.
    """
    rng = np.random.default_rng([seed, len(wanted)])
    left = Counter(wanted)
    chosen: list[HeldOutPair] = []
    for number in range(_MOST_GROUPS):
        if not +left:
            break
        group = make_group(pool, FIRST_SEED + seed * _MOST_GROUPS + number, measured=False)
        chosen += _of_group(group, left, rng)
    return chosen


def _of_group(group: Group, left: Counter[str], rng: np.random.Generator) -> Iterator[HeldOutPair]:
    taken = 0
    for place in rng.permutation(len(group.pairs)).tolist():
        pair = group.pairs[place]
        slot = slot_of(pair)
        if left[slot] <= 0:
            continue
        record = _measured(group, pair)
        # As in training: nobody could hear what another edit undoes.
        if not is_borne_out(record):
            continue
        left[slot] -= 1
        taken += 1
        yield HeldOutPair(record, slot, group.origins[0][0])
        if taken == _MOST_OF_A_GROUP:
            return


def _measured(group: Group, pair: Pair) -> PairRecord:
    first, second = (
        measure(group.recordings[place], SAMPLE_RATE_HZ) for place in (pair.first, pair.second)
    )
    return replace(pair.record, rendered=rendered(first, second))


def waves_of(pool: PairPool, pairs: Sequence[HeldOutPair]) -> list[tuple[FloatArray, FloatArray]]:
    """Make both waves [N] at 16 kHz of pairs, each group once where its pairs follow each other."""
    made = []
    for seed, members in groupby(pairs, key=lambda pair: pair.record.seed):
        recordings = make_group(pool, seed, measured=False).recordings
        for pair in members:
            first, second = pair.record.places
            made.append((recordings[first], recordings[second]))
    return made


def groups_of(pairs: Sequence[HeldOutPair]) -> NDArray[np.int64]:
    """Return the number of each pair's origin."""
    return np.unique([pair.origin for pair in pairs], return_inverse=True)[1].astype(np.int64)
