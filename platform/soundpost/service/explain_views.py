"""Explanations and captions as they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soundpost.service import explain_schemas as schemas
from soundpost.store.captions import WindowCaption

if TYPE_CHECKING:
    from soundpost.explain.difference import Explanation


def show_explanation(made: Explanation, took_s: float) -> schemas.Explanation:
    """Show an explanation with its claims."""
    document = made.to_document()
    tiers = [
        {"tier": int(tier), **text} for tier, text in sorted(document["tiers"].items(), key=_tier)
    ]
    shown = {**document, "tiers": tiers, "took_s": round(took_s, 4)}
    return schemas.Explanation.model_validate(shown)


def _tier(item: tuple[str, object]) -> int:
    return int(item[0])


def show_caption(row: WindowCaption) -> schemas.Caption:
    """Show a caption of a recording."""
    return schemas.Caption.model_validate(vars(row))
