"""How held-out pairs are chosen and told: nothing is done twice, and nothing comes out otherwise."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.evaluation import adiff_texts, difference
from soundpost.evaluation.adiff_texts import TextSet
from soundpost.evaluation.difference import as_text
from soundpost.evaluation.difference_outcomes import (
    CHECKED,
    MEASURED,
    METHODS,
    UNCHECKED,
    Outcome,
    Way,
    as_told,
)
from soundpost.evaluation.difference_runs import HeardBefore, Teller
from soundpost.evaluation.difference_scores import silent
from soundpost.evaluation.explain_ablations import Run, choose
from soundpost.evaluation.explanation_examples import draw, edit_words, example, heard_words
from soundpost.evaluation.held_out_pairs import (
    FIRST_SEED,
    KNOWN,
    SAME,
    TWO,
    select,
    slot_of,
    waves_of,
)
from soundpost.evaluation.written_before import WrittenBefore
from soundpost.models.adiff_writer import Written, WrittenToken
from soundpost.models.compact import CompactEncoder
from soundpost.models.encoder import AudioEncoding
from soundpost.models.placeholder import ToneEncoder
from soundpost.training.adiff_rows import FILES, AdiffRow, is_held_out
from soundpost.training.compact import kept_clips
from soundpost.training.data import SAMPLE_RATE_HZ, Clip, load_clips
from soundpost.training.pair_records import Edit, EditKind, Heard
from soundpost.training.pair_scenes import PairPool, pair_pool, split_rows
from soundpost.training.pair_store import PairSet
from soundpost.training.pairs import make_group

FloatArray = NDArray[np.float32]

_LOUDER = "Audio 2 is clearly louder than audio 1."
_LABELS = ("dog", "cat", "siren", "rain", "church_bells", "crow")


@pytest.fixture(scope="module")
def pool() -> PairPool:
    """Six sounds of fold 4, two clips each: short bursts and longer tones."""
    clips, waves = [], []
    for number in range(12):
        rng = np.random.default_rng(number)
        label = _LABELS[number % 6]
        clips.append(Clip(f"esc50/{number}.ogg", 2.0, "esc50", 4, label, f"origin{number}"))
        times = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
        tone = np.sin(2 * np.pi * (200 + 150 * (number % 6)) * times)
        tone = tone * (np.sin(2 * np.pi * 2 * times) > 0) + 0.01 * rng.standard_normal(len(times))
        waves.append(np.asarray(8_000 * tone, np.int16))
    return pair_pool(clips, waves, "test")


def test_pairs_are_chosen_by_slot_and_always_the_same(pool: PairPool) -> None:
    wanted = {"added": 2, "softer": 1, SAME: 1}
    pairs = select(pool, wanted)
    assert Counter(pair.slot for pair in pairs) == wanted
    assert pairs == select(pool, wanted)
    assert pairs != select(pool, wanted, seed=1)
    assert all(pair.record.seed >= FIRST_SEED for pair in pairs)
    for pair in pairs:
        assert pair.slot == SAME if not pair.edited else str(pair.record.edits[0].kind)


def test_what_another_edit_undoes_is_not_asked_for(pool: PairPool) -> None:
    """Turned up, but softer without the loudest sound: as in training, nobody could tell."""
    records = [pair.record for pair in select(pool, {TWO: 12})]
    moved = {
        EditKind.LOUDER: lambda found: min(found["level_db"], found["a_level_db"]) > 0.0,
        EditKind.SOFTER: lambda found: max(found["level_db"], found["a_level_db"]) < 0.0,
    }
    whole = [
        (edit, record.rendered)
        for record in records
        for edit in record.edits
        if edit.what is None and edit.kind in moved
    ]
    assert whole
    assert all(moved[edit.kind](rendered) for edit, rendered in whole)


def test_no_scene_weighs_more_than_its_share(pool: PairPool) -> None:
    pairs = select(pool, {"added": 4, "removed": 4})
    assert max(Counter(pair.record.seed for pair in pairs).values()) <= 3


def test_waves_are_those_of_the_record(pool: PairPool) -> None:
    pairs = select(pool, {"louder": 1, "softer": 1, SAME: 1})
    for pair, (first, second) in zip(pairs, waves_of(pool, pairs), strict=True):
        assert len(first) == round(pair.record.duration_1_s * SAMPLE_RATE_HZ)
        measured_db = 20 * np.log10(np.std(second) / np.std(first))
        assert pair.record.rendered["level_db"] == pytest.approx(measured_db, abs=0.1)
        if pair.slot == SAME:
            np.testing.assert_array_equal(first, second)


class CountingWriter:
    """Writes the sums of its vectors and counts what it was asked for."""

    name, revision, audio_width = "counting", "1", 3

    def __init__(self) -> None:
        self.asked = 0
        self.firsts: list[FloatArray] = []

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> list[Written]:
        self.asked += len(tiers)
        self.firsts.append(first)
        texts = [f"{first.sum():.0f} {second.sum():.0f} {tier} {banned} {seed}" for tier in tiers]
        return [Written(text, (WrittenToken(0, len(text), 0.5),)) for text in texts]

    def write_many(self, firsts: FloatArray, seconds: FloatArray, tier: int) -> list[Written]:
        return [self.write(a, b, [tier])[0] for a, b in zip(firsts, seconds, strict=True)]


def test_what_the_encoder_knows_of_the_pairs_is_said(tmp_path: Path) -> None:
    """Its training leaves two folds out: the other clips of the pairs it has heard."""
    rows = [
        ("esc50/4.ogg", "esc50", 4, "dog", "1"),
        ("urbansound8k/3.ogg", "urbansound8k", 3, "siren", "2"),
        ("motor/motor_m1_prop_20pct_000.ogg", "motor", "", "propeller", "m1"),
        *((f"speech_commands/{n}.ogg", "speech_commands", "", "speech", f"{n}") for n in range(9)),
    ]
    lines = "".join(
        f"{path},1.0,{set_},{fold},{label},{of}\n" for path, set_, fold, label, of in rows
    )
    head = "path,seconds,dataset,fold,label,origin\n"
    (tmp_path / "audio.csv").write_text(head + lines, encoding="utf-8")
    clips, kept = load_clips(tmp_path), kept_clips(tmp_path, everything=False, development=False)
    known = {clips[row].dataset for row in split_rows(clips, "test") if kept[row]}
    assert known == {"motor", "speech_commands"}
    assert "these very clips of speech and of the motor" in KNOWN
    assert KNOWN in difference._INTRODUCTION


def test_what_published_texts_are_measured_on_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explanations of one clip of a row are new to the network; its captions are not."""
    monkeypatch.setattr(adiff_texts, "missing", lambda: "Java is not installed")
    row = AdiffRow("AudioCaps/a.wav", "AudioCaps/b.wav", "A dog", "Rain", 1, "Audio 2 has rain.")
    writer = CountingWriter()
    writer.audio_width = ToneEncoder().spec.dimension + 1
    lines = adiff_texts.lines(writer, ToneEncoder(), [TextSet("ACD", 1, (row,))])
    told = "\n".join(lines)
    assert "| ACD, tier 1 | 1 |" in told
    assert "No explanation of one of the two clips was trained on" in told
    assert "have read its captions" in told


def test_captions_are_embedded_as_they_were_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the shipped encoder, whichever hears the pairs: their spaces are not one."""
    monkeypatch.setenv("SOUNDPOST_DATA", str(tmp_path))
    monkeypatch.setattr(adiff_texts, "missing", lambda: "Java is not installed")
    clip = next(f"{n}.wav" for n in range(99) if is_held_out(f"{n}.wav"))
    head, row = "filepath1,filepath2,caption1,caption2,answer", f"{clip},b.wav,A dog,Rain,It rains."
    (tmp_path / "text" / "adiff").mkdir(parents=True)
    for name, _ in FILES:
        (tmp_path / "text" / "adiff" / name).write_text(f"{head}\n{row}\n", encoding="utf-8")
    encoder = CompactEncoder.load(threads=1)
    writer = CountingWriter()
    writer.audio_width = encoder.spec.dimension + 1
    as_text(Namespace(texts=5, captions="compact"), writer)
    wanted = encoder.embed_text(["A dog"])[0] * np.sqrt(encoder.spec.dimension)
    np.testing.assert_allclose(writer.firsts[0][:-1], wanted, atol=1e-4)


def _vectors() -> tuple[FloatArray, FloatArray]:
    firsts = np.arange(6, dtype=np.float32).reshape(2, 3)
    return firsts, firsts + 10


def test_what_was_written_before_is_not_written_again(tmp_path: Path) -> None:
    writer = CountingWriter()
    firsts, seconds = _vectors()
    known = WrittenBefore(writer, tmp_path / "texts")
    known.prepare(firsts, seconds, tier=1)
    assert writer.asked == 2
    plain = writer.write(firsts[1], seconds[1], [1, 2])
    assert known.write(firsts[1], seconds[1], [1, 2]) == plain
    # Tier 2 alone was new; and other wishes are other texts.
    assert writer.asked == 5
    other = known.write(firsts[1], seconds[1], [1], banned=["dog"], seed=3)
    assert other == writer.write(firsts[1], seconds[1], [1], banned=["dog"], seed=3)
    again = WrittenBefore(CountingWriter(), tmp_path / "texts")
    assert again.write(firsts[1], seconds[1], [2, 1]) == plain[::-1]
    assert again.writer.asked == 0


def test_a_line_cut_short_is_written_again(tmp_path: Path) -> None:
    firsts, seconds = _vectors()
    WrittenBefore(CountingWriter(), tmp_path).prepare(firsts, seconds, tier=1)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_text(encoding="utf-8")
    kept.write_text(whole[:-9], encoding="utf-8")
    again = WrittenBefore(CountingWriter(), tmp_path)
    again.prepare(firsts, seconds, tier=1)
    assert again.writer.asked == 1
    lines = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.iterdir())]
    assert whole.endswith(lines[1])


class CountingEncoder(ToneEncoder):
    """Counts the windows that it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        self.encoded += len(waves)
        return super().encode_audio(waves, lengths)


def test_windows_heard_before_are_not_encoded_again() -> None:
    encoder = CountingEncoder()
    heard = HeardBefore(encoder)
    rng = np.random.default_rng(1)
    waves = rng.standard_normal((3, 4 * SAMPLE_RATE_HZ)).astype(np.float32)
    lengths = np.array([64_000, 30_000, 64_000])
    first = heard.encode_audio(waves, lengths)
    plain = ToneEncoder().encode_audio(waves, lengths)
    np.testing.assert_array_equal(first.frames, plain.frames)
    np.testing.assert_array_equal(first.tags, plain.tags)
    again = heard.encode_audio(waves[::-1], lengths[::-1])
    np.testing.assert_array_equal(again.embedding, plain.embedding[::-1])
    assert encoder.encoded == 3
    # The same samples with another length are another window.
    heard.encode_audio(waves[:1], np.array([10_000]))
    assert encoder.encoded == 4


def test_ablations_are_measured_on_every_kind(pool: PairPool) -> None:
    pairs, count = [], 0
    for seed in range(6):
        group = make_group(pool, seed)
        pairs += list(group.pairs)
        count += len(group.recordings)
    chosen = choose(PairSet(np.zeros((count, 4), np.float16), pairs), count=40)
    by_slot = Counter(map(slot_of, chosen))
    assert max(by_slot.values()) <= 7
    assert set(by_slot) == {slot_of(pair) for pair in pairs}
    assert Run.parsed("B, neither=runs/b") == Run("B, neither", Path("runs/b"))


def test_examples_are_drawn_by_seed_and_printed_with_their_claims(pool: PairPool) -> None:
    pairs = select(pool, {"added": 4, SAME: 1})
    told = as_told("Only audio 2 has a dog. No audible difference.")
    ways = {Way("checked", tier): told for tier in (1, 2, 3)}
    outcomes = [Outcome(pair, ways, "2.1 dB louder") for pair in pairs]
    some = [*outcomes, Outcome(pairs[0], {Way(UNCHECKED, 1): told})]
    drawn = draw(some, count=3)
    assert len(drawn) == 3
    assert drawn == draw(some, count=3)
    assert all(Way("checked", 3) in outcome.told for outcome in drawn)
    lines = "\n".join(example(1, Outcome(pairs[0], ways, "Measured: 2.1 dB louder.")))
    assert "> Only audio 2 has a dog." in lines
    assert "| 2 | dog | event: only |" in lines
    assert "- measured: 2.1 dB louder." in lines
    assert lines.count("**Tier") == 3


def test_records_are_said_in_words() -> None:
    assert edit_words(Edit(EditKind.SOFTER, "dog", amount=6.0, unit="dB")) == "dog softer (6 dB)"
    assert edit_words(Edit(EditKind.REPLACED, "dog", "cat")) == "dog replaced by cat"
    heard = Heard("dog", 1.0, 2.04, -20.2, count=2)
    assert heard_words(heard) == "dog 1.0 to 2.0 s, -20 dBFS, 2 times"


class SaysLouder(CountingWriter):
    """Says the same of every pair: audio 2 is louder."""

    def write(
        self,
        first: FloatArray,
        second: FloatArray,
        tiers: Sequence[int],
        *,
        banned: Sequence[str] = (),
        seed: int | None = None,
    ) -> list[Written]:
        self.asked += len(tiers)
        return [Written(_LOUDER, ()) for _ in tiers]


def test_pairs_are_told_in_every_way_and_equal_ones_without_the_network() -> None:
    times = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    loud = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    pairs = [(loud, loud), (loud, 0.05 * loud)]
    teller = Teller(ToneEncoder(), SaysLouder())
    (same, _), (softer, summary) = teller.tell(pairs, [(1,), (1, 3)])
    both = {Way(m, 1, turned) for m in METHODS for turned in (False, True)}
    assert set(same) == both
    assert set(softer) == both | {Way(m, 3) for m in METHODS}
    assert same[Way(UNCHECKED, 1)].text == _LOUDER
    # What cannot be told apart is never put to the network.
    assert same[Way(CHECKED, 1)].attempts == 0
    assert silent([one.claim for one in same[Way(CHECKED, 1)].claims])
    assert softer[Way(CHECKED, 1)].attempts > 0
    assert "dB" in summary
    # It is softer, and the network says nothing else: measurements have the word.
    assert softer[Way(CHECKED, 1)].fell_back
    assert [c.claim.change for c in softer[Way(MEASURED, 1)].claims][:1] == [-1]
