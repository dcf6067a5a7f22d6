"""Which encoder the settings get, and on which device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from soundpost.config import Settings
from soundpost.errors import (
    BrokenCheckpointError,
    InvalidValueError,
    ModelNotFoundError,
    NoRerankerError,
    RerankerMismatchError,
    RerankerNotFoundError,
)
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.registry import load_encoder, load_reranker, resolve_device
from soundpost.models.reranker import Candidates, Reranker


def test_the_stand_in_is_named() -> None:
    assert isinstance(load_encoder(Settings(encoder="placeholder:tone")), ToneEncoder)


def test_any_other_name_is_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load_encoder(Settings(encoder=str(tmp_path / "nowhere"), device="cpu"))


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cpu:0", "", "CUDA", "cuda:x"])
def test_an_unknown_device_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidValueError, match="SOUNDPOST_DEVICE is 'auto', 'cpu', 'cuda'"):
        resolve_device(name)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"cuda:99 \(torch sees \d+ GPUs here\)"):
        load_encoder(Settings(encoder="compact", device="cuda:99"))


def test_the_registry_itself_needs_no_torch() -> None:
    code = (
        "import sys; from soundpost.config import Settings;"
        "from soundpost.models.registry import load_encoder;"
        "load_encoder(Settings(encoder='placeholder:tone'));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- rerankers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "told"), [("off", "'off'"), ("auto", "placeholder:tone 1")])
def test_there_may_be_no_reranker(name: str, told: str) -> None:
    with pytest.raises(NoRerankerError, match=told):
        load_reranker(Settings(reranker=name), ToneEncoder())


def test_looking_for_a_reranker_that_fits_needs_no_torch() -> None:
    code = """
import sys
from soundpost.config import Settings
from soundpost.errors import NoRerankerError
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.registry import load_reranker
try:
    load_reranker(Settings(), ToneEncoder())
except NoRerankerError:
    sys.exit("torch" in sys.modules)
sys.exit("there is one")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_is_loaded_for_its_encoder(untrained_reranker: Path) -> None:
    reranker = load_reranker(Settings(reranker=str(untrained_reranker)), ToneEncoder())
    assert isinstance(reranker, Reranker)
    assert (reranker.spec.name, reranker.weight) == ("diffatr", 0.5)
    sounds = np.eye(3, reranker.spec.dimension, dtype=np.float32)
    candidates = Candidates(np.arange(3), sounds, sounds[:, None], np.ones(3, np.int64))
    found = reranker.joint_probability("440 hz", np.zeros(3, np.float32), candidates)
    assert found.sum() == pytest.approx(1.0)


def test_weights_that_give_no_probabilities_are_refused(
    tmp_path: Path, untrained_reranker: Path
) -> None:
    weights = load_file(untrained_reranker / "model.safetensors")
    broken = {name: np.full_like(array, np.nan) for name, array in weights.items()}
    save_file(broken, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((untrained_reranker / "config.json").read_bytes())
    with pytest.raises(BrokenCheckpointError, match="no probabilities"):
        load_reranker(Settings(reranker=str(tmp_path)), ToneEncoder())


def config(**changes: Any) -> dict[str, Any]:
    spec = ToneEncoder().spec
    fitting = {"encoder_name": spec.name, "encoder_revision": spec.revision}
    return {"model_type": "soundpost_diffatr", **fitting, **changes}


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (None, RerankerNotFoundError, "no folder with a config.json"),
        ("{", BrokenCheckpointError, "config.json"),
        ("[]", BrokenCheckpointError, "holds no object"),
        (config(model_type="clap"), BrokenCheckpointError, "of kind clap, known are"),
        (config(encoder_name="compact"), RerankerMismatchError, "it is for compact 1"),
        (config(encoder_revision="2"), RerankerMismatchError, "it is for placeholder:tone 2"),
        (config(), ModelNotFoundError, "model.safetensors is missing"),
    ],
    ids=["nothing", "no JSON", "a list", "kind", "encoder", "revision", "no weights"],
)
def test_a_folder_that_cannot_be_used_says_why(
    tmp_path: Path, content: object, error: type[Exception], told: str
) -> None:
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(error, match=told):
        load_reranker(Settings(reranker=str(tmp_path)), ToneEncoder())
