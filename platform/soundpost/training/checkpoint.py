"""Resumable training: weights, optimizer and progress in one safetensors file, never pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
    """Write model, optimizer state and the number of finished steps, atomically."""
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for index, slots in state.items():
        for slot, value in slots.items():
            tensors[f"optimizer.{index}.{slot}"] = torch.as_tensor(value).contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"progress": json.dumps({"step": step})})
    partial.replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> int:
    """Restore what save_checkpoint wrote; return the finished steps, 0 if there is no file."""
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        step = int(json.loads(file.metadata()["progress"])["step"])
        names = list(file.keys())
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    model.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    )
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return step
