"""A fitted scorer as bytes, in the safetensors format: arrays by name and a JSON header."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from soundpost.errors import BrokenCalibrationError
from soundpost.monitoring.acoustic_distance import AcousticDistance, Groups
from soundpost.monitoring.folds import Folds
from soundpost.monitoring.neighbours import Neighbours
from soundpost.monitoring.novelty import (
    PARTS,
    AcousticPart,
    FramePart,
    Novelty,
    Part,
    Scores,
    Standard,
    WindowPart,
)

_VERSION = 1
_NEIGHBOUR_ARRAYS = ("vectors", "rows", "scale2", "centre", "axes")
_ACOUSTIC_ARRAYS = ("knots", "threshold", "scale", "shape", "vectors")
_GROUP_ARRAYS = ("centre", "spread", "roots", "starts", "members")
_FOLD_ARRAYS = ("unit", "fold", "starts_s", "ends_s")
_SCORE_ARRAYS = ("novelty", "nearest", "second")


def dump(novelty: Novelty) -> bytes:
    """Return a fitted scorer as bytes; `restore` gives one that scores the same."""
    arrays: dict[str, np.ndarray] = {}
    header: dict[str, Any] = {
        "version": _VERSION,
        "method": novelty.method,
        "weights": dict(novelty.weights),
        "standards": {n: [s.mean, s.spread] for n, s in novelty.standards.items()},
        "by_recording": novelty.folds.by_recording,
        "notes": list(novelty.notes),
        "parts": {name: _dump_part(name, part, arrays) for name, part in novelty.parts.items()},
    }
    _put(arrays, "folds", novelty.folds, _FOLD_ARRAYS)
    _put(arrays, "held_out", novelty.held_out, _SCORE_ARRAYS)
    arrays |= {f"held_out.parts.{name}": v for name, v in novelty.held_out.parts.items()}
    flat = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    return save(flat, metadata={"soundpost": json.dumps(header)})


def restore(raw: bytes) -> Novelty:
    """Rebuild what `dump` wrote. Raises BrokenCalibrationError."""
    try:
        header, arrays = _header(raw), load(raw)
        names = list(header["parts"])
        held_out = Scores(
            parts={name: arrays[f"held_out.parts.{name}"] for name in names},
            **_get(arrays, "held_out", _SCORE_ARRAYS),
        )
        return Novelty(
            method=header["method"],
            parts={name: _restore_part(name, header["parts"][name], arrays) for name in names},
            standards={name: Standard(*values) for name, values in header["standards"].items()},
            weights=header["weights"],
            held_out=held_out,
            folds=Folds(by_recording=header["by_recording"], **_get(arrays, "folds", _FOLD_ARRAYS)),
            notes=tuple(header["notes"]),
        )
    except (KeyError, TypeError, ValueError, struct.error, SafetensorError) as error:
        raise BrokenCalibrationError("novelty", f"{type(error).__name__}: {error}") from error


def _dump_part(name: str, part: Part, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if isinstance(part, AcousticPart):
        _put(arrays, name, part.distance, _ACOUSTIC_ARRAYS)
        _put(arrays, f"{name}.groups", part.distance.groups, _GROUP_ARRAYS)
        return {"bands": part.distance.bands, "rarity": part.distance.rarity}
    assert isinstance(part, WindowPart | FramePart)
    _put(arrays, name, part.neighbours, _NEIGHBOUR_ARRAYS)
    if isinstance(part, WindowPart):
        return {"k": part.neighbours.k}
    arrays[f"{name}.owners"] = part.owners
    return {"k": part.neighbours.k, "loudest_seconds": part.loudest_seconds}


def _restore_part(name: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Part:
    if name not in PARTS:
        raise ValueError(f"unknown part {name}")
    if name == "acoustics":
        found = _get(arrays, name, _ACOUSTIC_ARRAYS)
        groups = Groups(**_get(arrays, f"{name}.groups", _GROUP_ARRAYS))
        return AcousticPart(AcousticDistance(groups=groups, **header, **found))
    neighbours = Neighbours(k=header["k"], **_get(arrays, name, _NEIGHBOUR_ARRAYS))
    if name == "windows":
        return WindowPart(neighbours)
    return FramePart(neighbours, arrays[f"{name}.owners"], header["loudest_seconds"])


def _put(arrays: dict[str, np.ndarray], prefix: str, of: object, names: tuple[str, ...]) -> None:
    arrays |= {f"{prefix}.{name}": getattr(of, name) for name in names}


def _get(arrays: dict[str, np.ndarray], prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: arrays[f"{prefix}.{name}"] for name in names}


def _header(raw: bytes) -> dict[str, Any]:
    """The JSON that `dump` put into the metadata, which safetensors' own loader drops."""
    (length,) = struct.unpack_from("<Q", raw)
    header: dict[str, Any] = json.loads(
        json.loads(raw[8 : 8 + length])["__metadata__"]["soundpost"]
    )
    return header
