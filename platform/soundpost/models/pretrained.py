"""Read saved transformers models: safetensors only, every weight there, nothing on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from soundpost.errors import BrokenCheckpointError

Model = TypeVar("Model", bound=PreTrainedModel)

# Buffers that models compute themselves; older checkpoints hold some of them, newer ones do not.
_COMPUTED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")


def read_pretrained(kind: type[Model], name: str | Path, folder: Path) -> Model:
    """Load a model of this kind from a folder, in float32, ready to compute.

    `name` is what the user called it. Raises BrokenCheckpointError for weights that cannot be
    read, do not fit, or are not all there.
    """
    # Its annotation leaves out that it returns a pair with `output_loading_info`.
    load = cast(Callable[..., tuple[Model, dict[str, Any]]], kind.from_pretrained)
    try:
        with quietly():
            model, report = load(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as cause:
        raise BrokenCheckpointError(name, f"weights: {first_line(cause)}") from cause
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_COMPUTED))
    if missing:
        raise BrokenCheckpointError(
            name, f"missing weights: {len(missing)} tensors, the first is {missing[0]}"
        )
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


def first_line(cause: Exception) -> str:
    """Return the first line of an exception's message, or its name if it has none."""
    return next(iter(str(cause).splitlines()), type(cause).__name__)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and load report: what matters in them is raised here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
