"""Pairs on disk: the vector of every recording, and what differs between which.

Run as: python -m soundpost.training.pair_store --encoder compact --split train --groups 4000 --out runs/explain/pairs/train

A folder is made in chunks of groups, each a file of its own that is complete or not there, so that
an interrupted run goes on where it stopped; at the end they are joined:

    set.json          what it was made of: split, encoder, groups
    vectors.npy       float16 [R, A], a row a recording
    recordings.jsonl  a line a recording: what is heard in it, how long it is, its group
    pairs.jsonl       a line a pair: two rows, the edits, what was measured
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from soundpost.audio.acoustics import Acoustics
from soundpost.config import load_settings
from soundpost.errors import InvalidValueError, PairsMissingError
from soundpost.explain.audio_vector import audio_vector
from soundpost.explain.listening import listen
from soundpost.models.compact import SHIPPED_WEIGHTS, CompactEncoder
from soundpost.models.encoder import AudioTextEncoder
from soundpost.training.data import SAMPLE_RATE_HZ
from soundpost.training.pair_records import Heard, PairRecord, edits_of, heard_of, lean, only_of_one
from soundpost.training.pair_scenes import SPLITS, PairPool, load_pair_pool
from soundpost.training.pairs import Group, Pair, make_group

FloatArray = NDArray[np.float32]
Listen = Callable[[Sequence[FloatArray]], tuple[FloatArray, list[Acoustics]]]

CHUNK_GROUPS = 16
_SET, _VECTORS, _RECORDINGS, _PAIRS = "set.json", "vectors.npy", "recordings.jsonl", "pairs.jsonl"

# Of what is drawn: pairs without a difference, with two edits, of different scenes.
NOTHING_SHARE, TWO_SHARE, DIFFERENT_SHARE = 0.08, 0.12, 0.10


@dataclass(frozen=True)
class SetConfig:
    """What a set was made of; `encoder` is name and revision."""

    split: str
    encoder: str
    groups: int
    first_group: int = 0
    format: int = 1


# --- reading ------------------------------------------------------------------------------------


@dataclass(eq=False)
class PairSet:
    """Vectors [R, A] of recordings, and pairs of them."""

    vectors: NDArray[np.float16]
    pairs: list[Pair]
    _classes: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict, repr=False)

    def draw(self, rng: np.random.Generator, count: int) -> list[Pair]:
        """Draw pairs: the kinds of edit equally often, the other shares as stated above."""
        if not self._classes:
            self._classes = _classes(self.pairs)
        shares = {"nothing": NOTHING_SHARE, "two": TWO_SHARE, "different": DIFFERENT_SHARE}
        weights = [shares.get(name, 1.0 - sum(shares.values())) for name in self._classes]
        names = rng.choice(list(self._classes), count, p=np.array(weights) / sum(weights))
        return [self.pairs[_one_of(self._classes[str(name)], rng)] for name in names]

    def both(self, pairs: Sequence[Pair]) -> tuple[FloatArray, FloatArray]:
        """Return the vectors [B, A] of the first and of the second recordings of pairs."""
        first = self.vectors[[pair.first for pair in pairs]]
        second = self.vectors[[pair.second for pair in pairs]]
        return first.astype(np.float32), second.astype(np.float32)


def _one_of(members: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> int:
    kind = members[int(rng.integers(len(members)))]
    return int(kind[int(rng.integers(len(kind)))])


def _classes(pairs: Sequence[Pair]) -> dict[str, list[NDArray[np.int64]]]:
    """Rows of pairs by class, and within a class by what the edits are."""
    found: dict[str, dict[str, list[int]]] = {}
    for row, pair in enumerate(pairs):
        name, kinds = _class_of(pair.record)
        found.setdefault(name, {}).setdefault(kinds, []).append(row)
    return {
        name: [np.array(rows, np.int64) for rows in kinds.values()]
        for name, kinds in sorted(found.items())
    }


def _class_of(record: PairRecord) -> tuple[str, str]:
    if record.kind == "different":
        return "different", "replaced" if len(record.edits) == 1 else "several"
    if not record.edits:
        return "nothing", "same" if record.places[0] == record.places[1] else "made again"
    first, *others = record.edits
    scope = "whole" if first.what is None else "one"
    # A machine that turns faster sounds higher: one change.
    if all(other.what == first.what for other in others):
        return "one", f"{first.kind} {scope}"
    return "two", scope


def load_pairs(folder: Path) -> PairSet:
    """Read a finished set. Raises PairsMissingError where there is none, or it is not finished."""
    if not (folder / _PAIRS).is_file():
        raise PairsMissingError(folder)
    vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
    recordings = [_recording(json.loads(line)) for line in _lines(folder / _RECORDINGS)]
    pairs = [_pair(json.loads(line), recordings) for line in _lines(folder / _PAIRS)]
    return PairSet(vectors, [pair for pair in pairs if not _is_untold(pair.record)])


def _is_untold(record: PairRecord) -> bool:
    """Say whether two scenes are different ones of the same sounds: nothing is known of how."""
    return record.kind == "different" and not record.edits


def join(sets: Sequence[PairSet]) -> PairSet:
    """Return several sets as one; their vectors are read into memory."""
    if len(sets) == 1:
        return sets[0]
    starts = np.cumsum([0, *(len(one.vectors) for one in sets)])
    pairs = [
        Pair(pair.first + int(start), pair.second + int(start), pair.record)
        for one, start in zip(sets, starts, strict=False)
        for pair in one.pairs
    ]
    return PairSet(np.concatenate([one.vectors for one in sets]), pairs)


def read_config(folder: Path) -> SetConfig:
    """Return what a set was made of. Raises PairsMissingError."""
    if not (folder / _SET).is_file():
        raise PairsMissingError(folder)
    return SetConfig(**json.loads((folder / _SET).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class _Recording:
    heard: tuple[Heard, ...]
    duration_s: float
    origins: tuple[str, ...]
    seed: int
    place: int


def _recording(row: dict[str, Any]) -> _Recording:
    return _Recording(
        heard_of(row["heard"]), row["duration_s"], tuple(row["origins"]), row["group"], row["place"]
    )


def _pair(row: dict[str, Any], recordings: Sequence[_Recording]) -> Pair:
    first, second = recordings[row["first"]], recordings[row["second"]]
    edits = edits_of(row["edits"])
    record = PairRecord(
        # Sets made before hold the sounds of both here, too.
        edits=only_of_one(edits) if row["kind"] == "different" else edits,
        heard_1=first.heard,
        heard_2=second.heard,
        duration_1_s=first.duration_s,
        duration_2_s=second.duration_s,
        rendered=row["rendered"],
        origins=tuple(sorted({*first.origins, *second.origins})),
        seed=first.seed,
        kind=row["kind"],
        places=(first.place, second.place),
    )
    return Pair(row["first"], row["second"], record)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        yield from lines


# --- writing ------------------------------------------------------------------------------------


def listen_with(encoder: AudioTextEncoder) -> Listen:
    """Return what hears waves [N] at 16 kHz: their vectors [R, A] and their acoustics."""

    def hear(waves: Sequence[FloatArray]) -> tuple[FloatArray, list[Acoustics]]:
        heard = listen(encoder, waves, SAMPLE_RATE_HZ)
        return np.stack([audio_vector(one) for one in heard]), [one.acoustics for one in heard]

    return hear


def open_set(folder: Path, config: SetConfig) -> list[Path]:
    """Begin or go on with a set, and return its chunks in order, whether there already or not.

    Raises InvalidValueError where the folder holds another set.
    """
    path = folder / _SET
    if path.is_file() and read_config(folder) != config:
        raise InvalidValueError(str(folder), f"it holds another set: {read_config(folder)}")
    (folder / "chunks").mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
    return [folder / "chunks" / f"{start:06d}.npz" for start in chunk_starts(config)]


def chunk_starts(config: SetConfig) -> range:
    """Return the first group of each chunk."""
    return range(config.first_group, config.first_group + config.groups, CHUNK_GROUPS)


def write_chunk(path: Path, pool: PairPool, config: SetConfig, hear: Listen) -> None:
    """Make the groups of a chunk, hear them, and keep them."""
    start, end = int(path.stem), config.first_group + config.groups
    seeds = range(start, min(start + CHUNK_GROUPS, end))
    groups = [make_group(pool, seed, measured=False) for seed in seeds]
    vectors, acoustics = hear([wave for group in groups for wave in group.recordings])
    recordings: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for group in groups:
        first = len(recordings)
        group = group.measured(acoustics[first : first + len(group.recordings)])
        recordings += _recording_rows(group)
        pairs += [_pair_row(pair, first) for pair in group.pairs]
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.savez(
            file,
            vectors=vectors.astype(np.float16),
            recordings=np.array(json.dumps(recordings)),
            pairs=np.array(json.dumps(pairs)),
        )
    partial_path.replace(path)


def _recording_rows(group: Group) -> list[dict[str, Any]]:
    return [
        {
            "group": group.seed,
            "place": place,
            "duration_s": len(wave) / SAMPLE_RATE_HZ,
            "heard": lean(group.heard[place]),
            "origins": group.origins[place],
        }
        for place, wave in enumerate(group.recordings)
    ]


def _pair_row(pair: Pair, first: int) -> dict[str, Any]:
    return {
        "first": first + pair.first,
        "second": first + pair.second,
        "kind": pair.record.kind,
        "edits": lean(pair.record.edits),
        "rendered": pair.record.rendered,
    }


def join_chunks(folder: Path, chunks: Sequence[Path]) -> None:
    """Write the set's files from all of its chunks; pairs.jsonl comes last and says it is finished."""
    shapes = []
    for chunk in chunks:
        with np.load(chunk, allow_pickle=False) as kept:
            shapes.append(kept["vectors"].shape)
    total = sum(rows for rows, _ in shapes)
    vectors = np.lib.format.open_memmap(
        folder / _VECTORS, mode="w+", dtype=np.float16, shape=(total, shapes[0][1])
    )
    row, partial_path = 0, folder / "pairs.partial"
    with (
        (folder / _RECORDINGS).open("w", encoding="utf-8") as recordings,
        partial_path.open("w", encoding="utf-8") as pairs,
    ):
        for chunk in chunks:
            with np.load(chunk, allow_pickle=False) as kept:
                made = kept["vectors"]
                vectors[row : row + len(made)] = made
                for line in json.loads(str(kept["recordings"])):
                    recordings.write(json.dumps(line) + "\n")
                for line in json.loads(str(kept["pairs"])):
                    moved = {"first": line["first"] + row, "second": line["second"] + row}
                    pairs.write(json.dumps(line | moved) + "\n")
            row += len(made)
    vectors.flush()
    partial_path.replace(folder / _PAIRS)


def make_set(
    folder: Path, config: SetConfig, pool: PairPool, hear: Listen, *, most_chunks: int | None = None
) -> bool:
    """Make what is missing of a set, at most so many chunks; say whether it is finished."""
    chunks = open_set(folder, config)
    missing = [chunk for chunk in chunks if not chunk.is_file()]
    for chunk in track(missing[:most_chunks], description=f"Pairs of {config.split}"):
        write_chunk(chunk, pool, config, hear)
    return _finish(folder, chunks)


def _finish(folder: Path, chunks: Sequence[Path]) -> bool:
    if not all(chunk.is_file() for chunk in chunks):
        return False
    join_chunks(folder, chunks)
    return True


# --- several processes --------------------------------------------------------------------------

_at_work: dict[str, Callable[[Path], None]] = {}


def load_encoder(name: str) -> CompactEncoder:
    """Load our encoder: "compact" as shipped, else from a folder, on one thread."""
    folder = SHIPPED_WEIGHTS if name == "compact" else Path(name)
    return CompactEncoder.load(folder, threads=1)


def _start(name: str, config: SetConfig, data: Path, cache: Path) -> None:
    pool = load_pair_pool(data, cache, config.split)
    hear = listen_with(load_encoder(name))
    _at_work["write"] = partial(write_chunk, pool=pool, config=config, hear=hear)


def _write(path: Path) -> None:
    _at_work["write"](path)


def _make_with_processes(
    folder: Path, config: SetConfig, name: str, data: Path, cache: Path, processes: int
) -> bool:
    # What the processes inherit: one compute thread each.
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    chunks = open_set(folder, config)
    missing = [chunk for chunk in chunks if not chunk.is_file()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (name, config, data, cache)) as workers:
        made = workers.imap_unordered(_write, missing)
        for _ in track(made, description=f"Pairs of {config.split}", total=len(missing)):
            pass
    return _finish(folder, chunks)


def main(argv: Sequence[str] | None = None) -> int:
    """Make a set of pairs from the command line."""
    parser = argparse.ArgumentParser(description="Make pairs with a known difference.")
    parser.add_argument("--encoder", default="compact", help="compact, or a folder of its kind")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--first-group", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args(argv)
    data = load_settings().data
    encoder = load_encoder(args.encoder)
    named = f"{encoder.spec.name} {encoder.spec.revision}"
    config = SetConfig(args.split, named, args.groups, args.first_group)
    if args.processes > 1:
        _make_with_processes(args.out, config, args.encoder, data, args.cache, args.processes)
    else:
        pool = load_pair_pool(data, args.cache, args.split)
        make_set(args.out, config, pool, listen_with(encoder))
    made = load_pairs(args.out)
    sys.stdout.write(f"{len(made.vectors)} recordings, {len(made.pairs)} pairs\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
