"""What explains in this service: loaded at the first question, by one of those who ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soundpost.explain.difference import DifferenceExplainer

LoadExplainer = Callable[[], "DifferenceExplainer"]


class LazyExplainer:
    """Loads an explainer once; others who ask meanwhile wait for it. What fails is tried again."""

    def __init__(self, load: LoadExplainer) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: DifferenceExplainer | None = None

    def __call__(self) -> DifferenceExplainer:
        """Return the explainer. Raises a ModelError where it cannot be loaded."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded
