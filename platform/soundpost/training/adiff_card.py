"""The card of a shipped ADIFF: what it is, what it was made of, and what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from soundpost.models.adiff_writer import read_adiff


def write_card(folder: Path, out: Path, stages: Sequence[int]) -> None:
    """Write what the shipped model was made of."""
    model = read_adiff(folder)
    taught = _taught_before(out)
    told = [
        f"- Stage {stage}: {facts['steps']} steps, {facts['batch']} pairs a step, rate {facts['rate']}, "
        f"seed {facts['seed']}, position captioning {facts['shares']['captions']:.0%} of the steps, "
        f"texts in place of audio {facts['shares']['texts']:.0%} of the others."
        for stage in stages
        for facts in [json.loads((out / f"stage{stage}.json").read_text(encoding="utf-8"))]
    ]
    size = (folder / "model.safetensors").stat().st_size
    made_by = ", ".join(model.config.encoders) or "not said"
    count = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "# ADIFF",
        "",
        "Says in words what differs between two recordings of up to 10 s (arXiv 2502.04476), in three",
        "tiers. What it says is not measured: `soundpost.explain` checks every claim of it.",
        "",
        f"- {count:,} parameters, {size / 1e6:.1f} MB in half precision.",
        f"- Works over audio vectors of width {model.shape.audio_width}, made by: {made_by}.",
        "- Trained on pairs with a known difference (`soundpost.training.pairs`) and on published",
        "  explanations by their captions, a tenth of those clips held out.",
        *taught,
        *told,
        "- After checking it tells level, noise, reverberation and bands of whole recordings well. In",
        "  recordings that it never heard it names a sound that came or went about once in ten times, one",
        "  that moved or was repeated once in three, another pitch or speed hardly ever. Figures:",
        "  docs/benchmarks.md.",
        "- For academic or non-commercial use, as the recordings and captions it was trained on.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _taught_before(out: Path) -> list[str]:
    """Say what was taught before stage 2."""
    facts = json.loads((out / "stage2.json").read_text(encoding="utf-8"))
    return [
        f"- Before: the projections, {facts['projection_steps']} steps by heads that are thrown away; the",
        f"  language model, {facts['reading_steps']} steps of answering from a prefix of its own words.",
    ]
