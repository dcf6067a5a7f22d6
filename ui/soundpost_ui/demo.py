"""`soundpost demo`: the whole story in the terminal, on an archive that it makes itself.

An evening in a yard and a workshop is synthesised, some real clips are added if the evaluation
data is there, two files are broken on purpose; then everything is ingested and searched.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from soundpost.audio.scenes import Scene

SEED = 2026
REAL_CLIPS = 200
FIRST = datetime(2026, 3, 15, 18, 0, tzinfo=UTC)
EVERY = timedelta(minutes=15)
SAMPLE_RATE_HZ = 32_000


@dataclass(frozen=True)
class Story:
    """What the demo asks of its archive: texts, one without an answer, one of order, one example."""

    texts: tuple[str, ...] = (
        "a dog barking",
        "glass breaking",
        "rain falling",
        "a siren in the distance",
        "someone walking",
    )
    hopeless: str = "a church choir singing"
    in_order: str = "a dog barking before a siren"
    example_kind: str = "pump"


@dataclass(frozen=True)
class Archive:
    """Where the demo's audio lies: folders by source, and real clips as a list of files."""

    yard: Path
    workshop: Path
    real: tuple[Path, ...]
    example: Path


def build_archive(folder: Path, data: Path, story: Story) -> Archive:
    """Write the demo's audio below a folder; nothing is made twice. Needs no model."""
    yard, workshop = folder / "yard", folder / "workshop"
    for place, scenes in ((yard, _yard_scenes()), (workshop, _workshop_scenes())):
        place.mkdir(parents=True, exist_ok=True)
        for number, (name, scene) in enumerate(scenes):
            started = FIRST + number * EVERY
            _write(place / f"{started:%Y%m%d_%H%M%S}Z {name}.wav", scene)
    _write_broken(yard)
    example = next(workshop.glob(f"* {story.example_kind}.wav"))
    return Archive(yard, workshop, tuple(choose_real_clips(data)), example)


def choose_real_clips(data: Path, count: int = REAL_CLIPS) -> list[Path]:
    """Choose clips of the evaluation data, the labels in turn, always the same; [] without it."""
    table = data / "audio.csv"
    if not table.is_file():
        return []
    by_label: dict[str, list[str]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_label[row["label"]].append(row["path"])
    rng = np.random.default_rng(SEED)
    piles = [_shuffled(sorted(by_label[label]), rng) for label in sorted(by_label)]
    chosen = [pile[turn] for turn in range(count) for pile in piles if turn < len(pile)][:count]
    return sorted(data / "audio" / name for name in chosen)


def _shuffled(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [names[place] for place in rng.permutation(len(names))]


def _write(path: Path, scene: Scene) -> None:
    from soundpost.audio.scenes import write_wav

    if not path.exists():
        write_wav(path, scene.render().wave, scene.sample_rate_hz)


def _yard_scenes() -> Iterator[tuple[str, Scene]]:
    """Yield half-minute scenes: weather or traffic all along, and two things that happen in it."""
    from soundpost.audio.scenes import Event, Scene

    rng = np.random.default_rng(SEED)
    beds = ("wind", "rain", "traffic", "stream")
    guests = ("dog", "bird", "cricket", "footsteps", "siren", "bell", "glass", "knock", "engine")
    for number in range(24):
        bed = beds[number % len(beds)]
        pair = [guests[(number * 2 + place) % len(guests)] for place in range(2)]
        onsets_s = rng.uniform((3.0, 17.0), (10.0, 24.0))
        events = [Event(bed, 0.0, 30.0, -38.0)]
        events += [
            Event(guest, float(onset_s), 4.0, -20.0)
            for guest, onset_s in zip(pair, onsets_s, strict=True)
        ]
        yield f"evening {number:02d}", Scene(tuple(events), 30.0, SAMPLE_RATE_HZ, seed=number)


def _workshop_scenes() -> Iterator[tuple[str, Scene]]:
    """Yield one short recording of every kind of sound, and the machines a second time."""
    from soundpost.audio.scenes import KINDS, Event, Scene

    for turn in range(2):
        for number, kind in enumerate(sorted(KINDS)):
            event = Event(kind, 0.5, 8.0, -22.0)
            seed = SEED + 100 * turn + number
            name = kind if turn == 0 else f"{kind} again"
            yield name, Scene((event,), 9.0, SAMPLE_RATE_HZ, seed=seed)


def build_gate(folder: Path) -> Path:
    """Write what a gate hears: two things after each other, each pair in both orders."""
    place = folder / "gate"
    place.mkdir(parents=True, exist_ok=True)
    for number, (first, second) in enumerate(permutations(_AT_THE_GATE, 2)):
        started = FIRST + number * EVERY
        scene = _gate_scene(first, second, number)
        _write(place / f"{started:%Y%m%d_%H%M%S}Z {first}, then {second}.wav", scene)
    return place


_AT_THE_GATE = ("dog", "siren", "glass", "footsteps")


def _gate_scene(first: str, second: str, number: int) -> Scene:
    """Return twelve seconds with one sound, a pause and another."""
    from soundpost.audio.scenes import Event, Scene

    events = (
        Event("wind", 0.0, 12.0, -50.0),
        Event(first, 1.0, 4.0, -22.0),
        Event(second, 7.0, 4.0, -22.0),
    )
    return Scene(events, 12.0, SAMPLE_RATE_HZ, seed=SEED + 1000 + number)


@dataclass(frozen=True)
class PumpRoom:
    """Where the recordings of the pump lie, in the order in which they come in."""

    normal: Path
    quiet: Path
    worn: Path
    mended: Path


def build_pump_room(folder: Path) -> PumpRoom:
    """Write a day of a pump, one recording every half hour: a bearing wears out in the evening."""
    counts = {"normal": 24, "quiet": 4, "worn": 3, "mended": 3}
    number = 0
    for name, count in counts.items():
        place = folder / "pump-3" / name
        place.mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            started = FIRST + number * 2 * EVERY
            _write(place / f"{started:%Y%m%d_%H%M%S}Z.wav", _pump_scene(number, name == "worn"))
            number += 1
    return PumpRoom(*(folder / "pump-3" / name for name in counts))


def _pump_scene(number: int, worn: bool) -> Scene:
    """Return twenty seconds of the same pump, now and then with somebody passing by."""
    from soundpost.audio.scenes import Event, Scene

    rng = np.random.default_rng((SEED, number))
    pump = Event("pump", 0.0, 20.0, -30.0 + float(rng.normal(0.0, 0.3)), {"stroke_hz": 1.6})
    events = [pump, Event("fan", 0.0, 20.0, -42.0, {"speed_hz": 24.0, "blades": 5.0})]
    if number % 5 == 2:
        events.append(Event("footsteps", float(rng.uniform(2.0, 14.0)), 4.0, -44.0))
    if worn:
        events.append(Event("bearing", 0.0, 20.0, -30.0, {"speed_hz": 24.0, "severity": 0.8}))
    return Scene(tuple(events), 20.0, SAMPLE_RATE_HZ, seed=SEED + number)


def _write_broken(folder: Path) -> None:
    """Leave what every archive holds: an empty file and one that is no audio at all."""
    (folder / "transfer failed.wav").touch()
    (folder / "notes.wav").write_text("Microphone moved to the north wall.\n", encoding="utf-8")
