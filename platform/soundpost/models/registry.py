"""Turn the settings' `encoder` and `reranker` into models, imported only when asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    InvalidValueError,
    NoRerankerError,
    RerankerMismatchError,
    RerankerNotFoundError,
)
from soundpost.models.encoder import AudioTextEncoder, EncoderSpec
from soundpost.models.reranker import Candidates, Reranker

# The first that fits the encoder serves.
SHIPPED_RERANKERS = tuple(
    Path(__file__).parent / "weights" / name for name in ("diffatr", "cross_attention")
)
_CONFIG = "config.json"
_DEVICE = re.compile(r"cpu|cuda(?::\d+)?")


def load_encoder(settings: Settings) -> AudioTextEncoder:
    """Load the encoder that the settings name, on their device.

    "compact" is ours; "placeholder:tone" is the stand-in for tests and demonstrations without a
    model; anything else is a CLAP checkpoint, a folder or a hub name.

    Raises ModelNotFoundError, BrokenCheckpointError, or InvalidValueError for the device.
    """
    load = _BUILT_IN.get(settings.encoder, _load_clap)
    return load(settings)


def load_reranker(settings: Settings, encoder: AudioTextEncoder) -> Reranker:
    """Load the reranker that the settings name, for what this encoder finds.

    "auto" is the shipped one that was made for exactly this encoder, "off" none; anything else is a
    folder, whose config.json says which kind of reranker it holds. It has judged something once
    before it is returned: the first time takes longest.

    Raises NoRerankerError where none is wanted or fits, RerankerNotFoundError and ModelNotFoundError
    for a folder without one, RerankerMismatchError for one of another encoder, BrokenCheckpointError
    for one that cannot be read or gives no probabilities.
    """
    folder = _reranker_folder(settings.reranker, encoder.spec)
    kind = _read_config(folder).get("model_type")
    load = _RERANKERS.get(str(kind))
    if load is None:
        known = ", ".join(sorted(_RERANKERS))
        raise BrokenCheckpointError(folder, f"of kind {kind}, known are: {known}")
    reranker = load(folder, encoder)
    _try_out(reranker, encoder.spec.dimension)
    return reranker


def _reranker_folder(name: str, spec: EncoderSpec) -> Path:
    if name == "off":
        raise NoRerankerError(None, "SOUNDPOST_RERANKER is 'off'")
    if name == "auto":
        fitting = [folder for folder in SHIPPED_RERANKERS if _fits(folder, spec)]
        if not fitting:
            raise NoRerankerError(f"{spec.name} {spec.revision[:12]}")
        return fitting[0]
    folder = Path(name)
    if not (folder / _CONFIG).is_file():
        raise RerankerNotFoundError(name, f"no folder with a {_CONFIG}")
    made_for = _made_for(folder)
    if made_for != (spec.name, spec.revision):
        mine = f"it is for {made_for[0]} {made_for[1][:12]}"
        raise RerankerMismatchError(
            name, f"{mine}, the encoder is {spec.name} {spec.revision[:12]}"
        )
    return folder


def _fits(folder: Path, spec: EncoderSpec) -> bool:
    return (folder / _CONFIG).is_file() and _made_for(folder) == (spec.name, spec.revision)


def _made_for(folder: Path) -> tuple[str, str]:
    """Return name and revision of the encoder that a folder's weights were trained over."""
    config = _read_config(folder)
    return str(config.get("encoder_name")), str(config.get("encoder_revision"))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenCheckpointError(folder, f"{_CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise BrokenCheckpointError(folder, f"{_CONFIG} holds no object")
    return config


def _try_out(reranker: Reranker, dimension: int) -> None:
    """Judge two made-up sounds. Raises BrokenCheckpointError unless that gives probabilities."""
    sounds = np.eye(2, dimension, dtype=np.float32)
    keys, lengths = np.arange(2), np.ones(2, dtype=np.int64)
    candidates = Candidates(keys, sounds, sounds[:, None], lengths)
    found = reranker.joint_probability("a sound", np.zeros(2, np.float32), candidates)
    if found.shape != (2,) or not np.isclose(found.sum(), 1.0, atol=1e-3):
        raise BrokenCheckpointError(reranker.spec.name, f"no probabilities: {found.tolist()}")


def resolve_device(name: str) -> str:
    """Turn "auto" into "cuda" or "cpu", and check that a named device is there.

    Raises InvalidValueError for a name that torch does not know or a GPU that it cannot use.
    """
    import torch  # Takes a second, and the stand-in does without it.

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not _DEVICE.fullmatch(name):
        detail = "SOUNDPOST_DEVICE is 'auto', 'cpu', 'cuda' or 'cuda:N'"
        raise InvalidValueError(name, detail)
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        detail = f"torch sees {torch.cuda.device_count()} GPUs here"
        raise InvalidValueError(name, detail)
    return name


def _load_placeholder(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.placeholder import ToneEncoder

    return ToneEncoder()


def _load_compact(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.compact import CompactEncoder

    return CompactEncoder.load(device=resolve_device(settings.device), threads=settings.threads)


def _load_clap(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.clap import ClapEncoder

    device = resolve_device(settings.device)
    return ClapEncoder.load(settings.encoder, device=device, threads=settings.threads)


_BUILT_IN: dict[str, Callable[[Settings], AudioTextEncoder]] = {
    "compact": _load_compact,
    "placeholder:tone": _load_placeholder,
}


def _load_diffatr(folder: Path, encoder: AudioTextEncoder) -> Reranker:
    from soundpost.models.diffatr import DiffAtrReranker

    return DiffAtrReranker.load(folder, encoder)


def _load_cross_attention(folder: Path, encoder: AudioTextEncoder) -> Reranker:
    from soundpost.models.cross_attention import CrossAttentionReranker

    return CrossAttentionReranker.load(folder, encoder)


_RERANKERS: dict[str, Callable[[Path, AudioTextEncoder], Reranker]] = {
    "soundpost_cross_attention": _load_cross_attention,
    "soundpost_diffatr": _load_diffatr,
}
