"""Where the shipped weights of explanations and captions lie, known without loading a network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_WEIGHTS: Final = Path(__file__).parent / "weights"
SHIPPED_ADIFF: Final = _WEIGHTS / "adiff"
SHIPPED_CAPTIONER: Final = _WEIGHTS / "dac"
