"""The texts that audio is contrasted with, as sentence vectors: one bank a class, one for tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from soundpost.models.compact import TextTower
from soundpost.training.ontology import SoundClass
from soundpost.training.text import tokenize
from soundpost.training.wordings import ONTOLOGY_CLASSES, SAME_SOUND, TEMPLATES, WORDINGS

NEAREST_CAPTIONS = 24
# Below this cosine to a class's wordings a caption is about something else.
CAPTION_COSINE = 0.5


def sentence_vectors(tower: TextTower, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Return sentence vectors [N, 384] of texts, in batches of alike length."""
    vectors = torch.empty(len(texts), tower.project.in_features)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    tower.eval()
    with torch.inference_mode():
        for start in range(0, len(order), 256):
            chosen = order[start : start + 256]
            ids, mask = tokenize(tokenizer, [texts[index] for index in chosen])
            vectors[chosen] = tower.sentence(ids, mask)
    return vectors.clone()


@dataclass(frozen=True)
class Bank:
    """Several texts for each of C classes: vectors [N, 384], and the rows of each class."""

    vectors: Tensor
    rows: tuple[tuple[int, ...], ...]

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Return one text a class, [C, 384]."""
        return self.vectors[[rows[int(rng.integers(len(rows)))] for rows in self.rows]]


def build_bank(tower: TextTower, tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> Bank:
    """Embed the texts of each class."""
    flat = [text for group in texts for text in group]
    ends = np.cumsum([len(group) for group in texts])
    rows = tuple(
        tuple(range(int(end) - len(group), int(end)))
        for group, end in zip(texts, ends, strict=True)
    )
    return Bank(sentence_vectors(tower, tokenizer, flat), rows)


def label_texts(
    labels: Sequence[str],
    captions: Sequence[str],
    caption_vectors: Tensor,
    tower: TextTower,
    tokenizer: Tokenizer,
    ontology: Sequence[SoundClass],
) -> list[list[str]]:
    """Return the texts of each label: wordings in templates, the ontology's, nearest captions."""
    texts = []
    known = {item.name: item for item in ontology}
    for label in labels:
        wordings = list(WORDINGS[label])
        centre = sentence_vectors(tower, tokenizer, wordings).mean(0)
        cosines = caption_vectors @ torch.nn.functional.normalize(centre, dim=0)
        best = cosines.topk(NEAREST_CAPTIONS)
        near = [
            captions[int(index)]
            for value, index in zip(best.values, best.indices, strict=True)
            if value > CAPTION_COSINE
        ]
        templated = [template.format(wording) for wording in wordings for template in TEMPLATES]
        classes = [known[name] for name in ONTOLOGY_CLASSES[label] if name in known]
        synonyms = [synonym for item in classes for synonym in item.synonyms]
        described = [text for item in classes for text in item.descriptions]
        # About as many wordings as captions: the label itself must stay a good query.
        texts.append(templated + near + 3 * synonyms + described)
    return texts


def tag_texts(names: Sequence[str], ontology: Sequence[SoundClass]) -> list[list[str]]:
    """Return the texts of each AudioSet class: its name, its synonyms, its descriptions."""
    known = {item.name: item for item in ontology}
    texts = []
    for name in names:
        item = known.get(name, SoundClass(name, ()))
        templated = [t.format(s) for s in item.synonyms for t in TEMPLATES[:6]]
        texts.append([*item.synonyms, *item.synonyms, *templated, *item.descriptions])
    return texts


def same_sound(labels: Sequence[str]) -> Tensor:
    """Return [C, C], true where two labels are no negatives of each other."""
    matrix = torch.eye(len(labels), dtype=torch.bool)
    for group in SAME_SOUND:
        indices = [index for index, label in enumerate(labels) if label in group]
        for first in indices:
            matrix[first, indices] = True
    return matrix
