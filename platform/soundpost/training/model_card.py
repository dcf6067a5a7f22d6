"""What a reranker was made of, kept beside its weights: for whoever goes on with it, or uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from soundpost.errors import InvalidValueError, OutputExistsError
from soundpost.training.diffatr import DiffAtrOptions
from soundpost.training.manifest import Manifest, Split

_FACTS = "training.json"
_CARD = "README.md"


@dataclass(frozen=True)
class Facts:
    """What decides how a training ends; another run with the same facts goes on with it.

    data: the name of the list of captions, data_sha256: its content. clips: how many of them are in
    each part of the split.
    """

    encoder: str
    encoder_revision: str
    data: str
    data_sha256: str
    data_kind: str
    clips: dict[str, int]
    captions: int
    held_out: float
    options: dict[str, object]

    @classmethod
    def of(
        cls, manifest: Manifest, split: Split, held_out: float, options: DiffAtrOptions
    ) -> Facts:
        """Collect them."""
        chosen = {name: value for name, value in asdict(options).items() if name != "encoder"}
        # The same weights come from any device, but for rounding.
        chosen.pop("device")
        return cls(
            encoder=options.encoder.name,
            encoder_revision=options.encoder.revision,
            data=manifest.path.name,
            data_sha256=sha256(manifest.path.read_bytes()).hexdigest(),
            data_kind=manifest.kind,
            clips={name: len(clips) for name, clips in vars(split).items()},
            captions=manifest.captions,
            held_out=held_out,
            options=chosen,
        )


def begin_training(folder: Path, facts: Facts, *, anew: bool = False) -> None:
    """Make a folder ready for a training, or for going on with one; `anew` forgets what is there.

    Raises OutputExistsError where something else is in it, InvalidValueError where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidValueError(folder, error.strerror or "it cannot be made") from error
    weights = list(folder.glob("*.safetensors"))
    text = json.dumps(asdict(facts), indent=2, sort_keys=True) + "\n"
    known = folder / _FACTS
    before = known.read_text(encoding="utf-8") if known.is_file() else None
    if weights and before != text and not anew:
        raise OutputExistsError(folder, "it holds the training of other data or options")
    if anew:
        for path in weights:
            path.unlink()
    known.write_text(text, encoding="utf-8")


def write_model_card(
    folder: Path, facts: Facts, clips: Mapping[str, int], results: Sequence[str]
) -> Path:
    """Write a card in Markdown and return its path.

    clips: how many of each part could be heard. results: lines on what was measured.
    """
    options = facts.options
    steps = ", ".join(
        f"{options[name]} {name.removesuffix('_steps')}"
        for name in ("contrastive_steps", "joint_steps", "distil_steps")
    )
    lines = [
        "# DiffATR reranker",
        "",
        "Puts the hits of a Soundpost search in order: the joint distribution of a text and its",
        "candidates, by denoising (DiffATR, arXiv 2409.10025).",
        "",
        f"- Works only over the encoder `{facts.encoder}`, revision `{facts.encoder_revision}`.",
        f"- Trained on {clips['train']:,} clips of `{facts.data}` ({facts.data_kind}).",
        f"- Temperature and weight chosen by {clips['develop']:,} others.",
        f"- Measured on another {clips['held_out']:,}; no recording is in two of these parts.",
        f"- Steps: {steps}; seed {options['seed']}.",
        "- Its licence is bound by that of the captions and recordings it was trained on.",
        "",
        "## Measured on what was held out",
        "",
        *results,
        "",
        "It says nothing of recordings that sound otherwise than these, or of other languages.",
        "",
    ]
    path = folder / _CARD
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
