"""Find a CLAP checkpoint, read it without surprises, and name what is broken in it.

A checkpoint is a folder as `transformers` saves it: config.json, preprocessor_config.json, a
tokenizer, and weights as safetensors. A hub name is resolved to such a folder, from the local
cache if it is there. Weights saved as pickles are refused: loading one runs whatever it holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from transformers import (
    AutoTokenizer,
    ClapAudioConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    PreTrainedTokenizerBase,
)

from soundpost.errors import BrokenCheckpointError, ModelNotFoundError
from soundpost.models.pretrained import first_line, quietly, read_pretrained

# A cosine of 0.3 between a text and a matching sound, and 0.1 between strangers, is typical of
# the published LAION checkpoints; this puts the midpoint between them. It is a starting point,
# not a calibration: put a measured calibration.json beside the weights.
DEFAULT_SLOPE = 20.0
DEFAULT_OFFSET = -4.0

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_TIMEOUT_S = 10.0
_FILES = ["*.json", "*.txt", "*.safetensors"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Calibration:
    """The logistic that turns a cosine into relevance: 1 / (1 + exp(-(slope * cos + offset)))."""

    slope: float = DEFAULT_SLOPE
    offset: float = DEFAULT_OFFSET


@dataclass(frozen=True)
class Checkpoint:
    """The parts of one CLAP checkpoint, read and complete. `revision` is a short SHA-256."""

    name: str
    revision: str
    model: ClapModel
    extractor: ClapFeatureExtractor
    tokenizer: PreTrainedTokenizerBase
    calibration: Calibration

    @property
    def audio_config(self) -> ClapAudioConfig:
        """The dimensions of the audio tower."""
        return cast(ClapAudioConfig, self.model.config.audio_config)

    @property
    def text_config(self) -> ClapTextConfig:
        """The dimensions of the text tower."""
        return cast(ClapTextConfig, self.model.config.text_config)

    @property
    def text_tokens(self) -> int:
        """The longest text, in tokens; RoBERTa counts positions from past its padding index."""
        config = self.text_config
        return min(config.max_position_embeddings - 2, int(self.tokenizer.model_max_length))


def read_checkpoint(name: str) -> Checkpoint:
    """Read the checkpoint at a folder or under a hub name.

    Raises ModelNotFoundError when there is none, BrokenCheckpointError when it cannot be used.
    """
    folder = find_checkpoint(name)
    weights = _weight_files(name, folder)
    with quietly():
        return Checkpoint(
            name=folder.name if Path(name).expanduser().is_dir() else name,
            revision=_revision([*weights, *_described_by(folder)]),
            model=read_pretrained(ClapModel, name, folder),
            extractor=_read_extractor(name, folder),
            tokenizer=_read_tokenizer(name, folder),
            calibration=read_calibration(name, folder),
        )


def find_checkpoint(name: str) -> Path:
    """Return the folder of a checkpoint; a hub name is downloaded once, then read locally."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(name, folder.resolve())
    if folder.exists():
        raise ModelNotFoundError(name, "a checkpoint is a folder, this is a file")
    if not _HUB_NAME.fullmatch(name):
        raise ModelNotFoundError(name, "no such folder")
    return _checked_folder(name, _download(name))


def _checked_folder(name: str, folder: Path) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelNotFoundError(name, "the folder has no config.json")
    kind = _read_json(name, config).get("model_type")
    if kind != "clap":
        raise BrokenCheckpointError(name, f"config.json describes a model of type {kind!r}")
    return folder


def _download(name: str) -> Path:
    """Return the snapshot folder of a hub name; one in the cache is used without asking the hub."""
    try:
        return _snapshot(name, local_only=True)
    except OSError:
        pass  # not in the cache, or only in part
    try:
        return _snapshot(name, local_only=False)
    except (OSError, ValueError, HTTPError) as cause:
        detail = f"no such folder, and the hub did not give it: {first_line(cause)}"
        raise ModelNotFoundError(name, detail) from cause


def _snapshot(name: str, *, local_only: bool) -> Path:
    folder = snapshot_download(
        name,
        allow_patterns=_FILES,
        etag_timeout=_HUB_TIMEOUT_S,
        local_files_only=local_only,
    )
    return Path(folder)


def _weight_files(name: str, folder: Path) -> list[Path]:
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        return weights
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        detail = (
            f"weights only as a pickle, {pickles[0]}; save it as safetensors where you trust it"
        )
        raise BrokenCheckpointError(name, detail)
    raise BrokenCheckpointError(name, "no weights: no *.safetensors file in the folder")


def _described_by(folder: Path) -> list[Path]:
    """Return the files that decide the vectors beside the weights."""
    kinds = ("config.json", "p*processor_config.json", "tokenizer*.json", "vocab.*", "merges.txt")
    return sorted(path for pattern in kinds for path in folder.glob(pattern))


def _revision(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _read_extractor(name: str, folder: Path) -> ClapFeatureExtractor:
    try:
        return ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as cause:
        raise BrokenCheckpointError(name, f"feature extractor: {first_line(cause)}") from cause


def _read_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise BrokenCheckpointError(name, f"tokenizer: {first_line(cause)}") from cause


def read_calibration(name: str, folder: Path) -> Calibration:
    """Read calibration.json ({"slope": a, "offset": b}) beside the weights, or the default."""
    path = folder / "calibration.json"
    if not path.is_file():
        return Calibration()
    values = _read_json(name, path)
    try:
        calibration = Calibration(float(values["slope"]), float(values["offset"]))
    except (KeyError, TypeError, ValueError) as cause:
        raise BrokenCheckpointError(
            name, "calibration.json: slope and offset must be numbers"
        ) from cause
    if not (0 < calibration.slope < math.inf and math.isfinite(calibration.offset)):
        raise BrokenCheckpointError(name, f"calibration.json: {calibration} is no rising curve")
    return calibration


def _read_json(name: str, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise BrokenCheckpointError(name, f"{path.name} is not JSON: {cause}") from cause
    if not isinstance(document, dict):
        raise BrokenCheckpointError(name, f"{path.name} is not a JSON object")
    return document


def non_finite_weight(model: torch.nn.Module) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, if any."""
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            return name
    return None
