"""Which encoder the settings get, and on which device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from soundpost.config import Settings
from soundpost.errors import InvalidValueError, ModelNotFoundError
from soundpost.models.placeholder import ToneEncoder
from soundpost.models.registry import load_encoder, resolve_device


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
