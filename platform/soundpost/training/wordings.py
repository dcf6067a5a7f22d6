"""Which labels of the training clips name one sound, and how a label stands in a text.

The words themselves are those of `soundpost.explain.sound_words`.
"""

from __future__ import annotations

from soundpost.explain.sound_words import ONTOLOGY_CLASSES, WORDINGS

__all__ = [
    "ONTOLOGY_CLASSES",
    "SAME_SOUND",
    "TEMPLATES",
    "WORDINGS",
    "clip_label",
    "label_prompt",
]

# Labels that name the same sound: neither is a wrong answer for the other.
SAME_SOUND: tuple[frozenset[str], ...] = (
    frozenset({"dog", "dog_bark"}),
    frozenset({"engine", "engine_idling"}),
    frozenset({"engine", "motor"}),
    frozenset({"drone", "uav", "motor"}),
    frozenset({"rooster", "hen"}),
    frozenset({"rain", "thunderstorm"}),
    frozenset({"crickets", "insects"}),
    frozenset({"laughing", "children_playing"}),
    frozenset({"speech", "children_playing"}),
    frozenset({"drilling", "jackhammer"}),
)

TEMPLATES: tuple[str, ...] = (
    "{}",
    "{}",
    "the sound of {}",
    "a recording of {}",
    "{} can be heard",
    "{} in the background",
    "this is a sound of {}",
    "{} nearby",
    "I hear {}",
    "audio of {}",
)


def label_prompt(label: str) -> str:
    """Return the one text prompt by which the evaluation names a label."""
    return WORDINGS[label][0]


def clip_label(dataset: str, label: str) -> str:
    """Name what a clip sounds like: some datasets label a state, not a sound."""
    return dataset if dataset in {"uav", "motor"} else label
