"""The sets that rerankers are trained, chosen and measured on; embedded once, below runs/.

Run alone to make them ready: python -m soundpost.evaluation.retrieval_sets
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.config import load_settings
from soundpost.evaluation.paraphrases import CITY_PARAPHRASES, PARAPHRASES
from soundpost.models.compact import CompactEncoder
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.retrieval_set import (
    RetrievalSet,
    load_retrieval_set,
    read_texts,
    save_retrieval_set,
)
from soundpost.training.claim_gate import ClaimTexts, compose_claim_texts
from soundpost.training.composed import SAME_NAME, Pool
from soundpost.training.composed_sets import (
    DATASETS,
    Composition,
    Embedded,
    Phrases,
    compose_for_measuring,
    compose_for_training,
    embed_scenes,
    embed_waves,
    join_sets,
    join_sounds,
    join_texts,
    joined,
    load_pool,
    part_clips,
    retrieval_set,
)
from soundpost.training.composed_texts import Gap, compose_texts, fit_gap, simple_captions
from soundpost.training.data import captions, load_clips, load_waves, unit_wave
from soundpost.training.ontology import load_ontology
from soundpost.training.sound_phrases import Phrase, draw_phrase
from soundpost.training.wordings import ONTOLOGY_CLASSES, label_prompt

# Families of four scenes, and single sounds, for each kind of training clips.
TRAINING: dict[str, tuple[tuple[str, ...], int, int]] = {
    "esc50": (("esc50",), 1_900, 1_600),
    "urbansound8k": (("urbansound8k",), 800, 800),
    "both": (DATASETS, 1_200, 0),
}
CAPTION_FAMILIES = 2_500
# Families of four scenes, each with one query, and scenes beside them; and the first seed.
MEASURING: dict[str, tuple[int, int, int]] = {
    "develop": (500, 500, 20),
    "test": (1_000, 1_000, 30),
}
# The same of one dataset's clips alone, for what is trained on the other's.
MEASURING_ONE: dict[str, tuple[int, int, int]] = {
    "develop": (250, 0, 40),
    "test": (250, 250, 50),
}


@dataclass(frozen=True)
class Measured:
    """Composed scenes with their queries, as embedded, and as a set of texts and sounds."""

    composition: Composition
    embedded: Embedded
    data: RetrievalSet


@dataclass(frozen=True)
class Sets:
    """Where the encoder, the data and what is kept of both lie.

    part: whose clips are trained on, "train", or "everything" for what is shipped.
    """

    encoder: AudioTextEncoder
    data: Path
    cache: Path
    part: str = "train"

    @property
    def kept(self) -> Path:
        """The folder of what is kept for this very encoder."""
        return self.cache.parent / "retrieval" / self.encoder.spec.revision

    def training(self, *names: str) -> RetrievalSet:
        """Return the training scenes of "esc50", "urbansound8k" and "both" datasets' clips.

        "texts" adds those made of captions alone, which no query of the others is true of.
        """
        data = self.training_composition(*(name for name in names if name != "texts"))[1]
        return join_sets([data, self.texts_only()]) if "texts" in names else data

    def training_composition(self, *names: str) -> tuple[Composition, RetrievalSet]:
        """Return the same with their truth; a query may be true of any of the scenes."""
        parts = [self._one_training(name) for name in names]
        composed = joined([part for part, _ in parts])
        sounds = [data.sounds for _, data in parts]
        texts = join_texts([data.texts for _, data in parts])
        return composed, RetrievalSet(
            texts, join_sounds(sounds), composed.relevant, composed.families
        )

    def _one_training(self, name: str) -> tuple[Composition, RetrievalSet]:
        datasets, families, singles = TRAINING[name]
        pool = load_pool(self.data, self.cache, self.part, datasets)
        seed = 10 + list(TRAINING).index(name)
        composed = compose_for_training(pool, families, singles, seed)
        path = self.kept / f"{self.part}-{name}.npz"
        if not path.is_file():
            sounds = embed_scenes(self.encoder, composed.scenes, pool, self.kept / "pieces")
            save_retrieval_set(path, retrieval_set(composed, sounds, self.encoder))
        return composed, load_retrieval_set(path)

    def texts_only(self) -> RetrievalSet:
        """Return scenes made of captions alone; how audio differs is fitted to training clips."""
        path = self.kept / f"{self.part}-texts.npz"
        if not path.is_file():
            found = simple_captions(captions(self.data))
            save_retrieval_set(
                path, compose_texts(found, CAPTION_FAMILIES, self._gap(), self.encoder, seed=60)
            )
        return load_retrieval_set(path)

    def _gap(self) -> Gap:
        composed, data = self.training_composition("esc50")
        alone = [row for row, scene in enumerate(composed.scenes) if len(scene.events) == 1]
        pairs = [
            (data.texts.vectors[row], frame)
            for row in alone
            for frame in data.sounds.frames[row, : data.sounds.lengths[row]]
        ]
        texts, frames = zip(*pairs, strict=True)
        return fit_gap(np.stack(texts), np.stack(frames))

    @cached_property
    def claim_texts(self) -> ClaimTexts:
        """Texts of which it is known whether they claim order, time or loudness."""
        return compose_claim_texts(simple_captions(captions(self.data)), self.encoder)

    def composition(self, part: str, pool: Pool, dataset: str | None) -> Composition:
        """Return the scenes and queries that "develop" or "test" measure on."""
        families, others, seed = (MEASURING if dataset is None else MEASURING_ONE)[part]
        seed += 0 if dataset is None else DATASETS.index(dataset)
        unseen = paraphrased if part == "test" else partial(from_ontology, synonyms(self.data))
        words: list[tuple[Phrases, bool]] = [(draw_phrase, False), (unseen, part == "test")]
        return compose_for_measuring(pool, families, others, seed, words)

    def measuring(self, part: str, dataset: str | None = None) -> Measured:
        """Return the composed scenes of "develop" or "test", of one dataset's clips or of both."""
        pool = load_pool(self.data, self.cache, part, (dataset,) if dataset else DATASETS)
        composed = self.composition(part, pool, dataset)
        sounds = embed_scenes(self.encoder, composed.scenes, pool, self.kept / "pieces")
        path = self.kept / f"{part}-{dataset or 'both'}.npz"
        if not path.is_file():
            save_retrieval_set(path, retrieval_set(composed, sounds, self.encoder))
        return Measured(composed, sounds, load_retrieval_set(path))

    def clips(self, dataset: str, part: str, wording: str) -> RetrievalSet:
        """Return the clips of a dataset's fold, asked for by "prompts" or by "paraphrases"."""
        path = self.kept / f"clips-{dataset}-{part}-{wording}.npz"
        if not path.is_file():
            save_retrieval_set(path, self._clips(dataset, part, wording))
        return load_retrieval_set(path)

    def _clips(self, dataset: str, part: str, wording: str) -> RetrievalSet:
        clips = load_clips(self.data)
        waves = load_waves(self.data, clips, self.cache)
        rows = part_clips(clips, part, (dataset,))
        sounds = embed_waves(self.encoder, [unit_wave(waves[row]) for row in rows])
        labels = sorted({clips[row].label for row in rows})
        asked = [(text, label) for label in labels for text in self._texts(label, part, wording)]
        relevant = tuple(
            np.flatnonzero([clips[row].label == label for row in rows]) for _, label in asked
        )
        texts = read_texts([text for text, _ in asked], self.encoder)
        return RetrievalSet(texts, sounds.candidates(), relevant)

    def _texts(self, label: str, part: str, wording: str) -> Sequence[str]:
        if wording == "prompts":
            return [label_prompt(label)]
        if part == "test":
            return paraphrases(label)
        return synonyms(self.data).get(SAME_NAME.get(label, label), ())


def paraphrases(sound: str) -> tuple[str, ...]:
    """Return the five wordings of a sound that nothing was trained on."""
    sound = SAME_NAME.get(sound, sound)
    return PARAPHRASES[sound] if sound in PARAPHRASES else CITY_PARAPHRASES[sound]


def paraphrased(sound: str, rng: np.random.Generator) -> Phrase:
    """Draw one of them."""
    return Phrase(str(rng.choice(paraphrases(sound))))


def synonyms(data: Path) -> dict[str, tuple[str, ...]]:
    """Return other names of sounds: unseen wordings that choices are made on."""
    known = {item.name: item for item in load_ontology(data)}
    found = {}
    for label, names in ONTOLOGY_CLASSES.items():
        words = [word for name in names if name in known for word in known[name].synonyms]
        other = tuple(dict.fromkeys(w for w in words if w != label_prompt(label).lower()))
        if other:
            found[label] = other
    return found


def from_ontology(
    names: dict[str, tuple[str, ...]], sound: str, rng: np.random.Generator
) -> Phrase:
    """Draw another name of a sound, or a usual one where it has none."""
    if sound not in names:
        return draw_phrase(sound, rng)
    return Phrase(str(rng.choice(names[sound])))


def unseen_words(count: int) -> NDArray[np.bool_]:
    """Say which of the queries of a measured composition word their sounds in unseen ways."""
    return np.asarray(np.arange(count) % 2 == 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Embed everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/measured"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    options = parser.parse_args(arguments)
    encoder = CompactEncoder.load(options.model, threads=1)
    sets = Sets(encoder, load_settings().data, options.cache)
    for part in ("develop", "test"):
        for dataset in DATASETS:
            for wording in ("prompts", "paraphrases"):
                sets.clips(dataset, part, wording)
        sets.measuring(part)
    for name in TRAINING:
        sets.training(name)
    for part in ("develop", "test"):
        for dataset in DATASETS:
            sets.measuring(part, dataset)


if __name__ == "__main__":
    main()
