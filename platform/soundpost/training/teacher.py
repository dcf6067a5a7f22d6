"""The AudioSet tagger that the compact encoder learns from, and starts from.

YAMNet (Apache-2.0) lies in the data folder as an 8-bit LiteRT file. Its weights are the starting
point of our audio tower (docs/decisions/0007): de-quantised, in our own layout, then trained on.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.audio.features import LogMel, LogMelSpec
from soundpost.errors import DataMissingError
from soundpost.models.compact import AudioTower, SeparableConv

PATCH_FRAMES = 96
PATCH_HOP_FRAMES = 48


class Teacher:
    """YAMNet over its own 0.96 s patches, every 0.48 s."""

    def __init__(self, data: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.path = data / "yamnet" / "yamnet_spectra_in.tflite"
        if not self.path.is_file():
            raise DataMissingError(self.path)
        self._interpreter = Interpreter(str(self.path))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._mel = LogMel(LogMelSpec())

    @staticmethod
    def labels(data: Path) -> list[str]:
        """Return the 521 class names in output order."""
        path = data / "yamnet" / "yamnet_class_map.csv"
        if not path.is_file():
            raise DataMissingError(path)
        with path.open(newline="", encoding="utf-8") as lines:
            return [row["display_name"] for row in csv.DictReader(lines)]

    def probabilities(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities [P, 521] of the patches of one wave [N] at 16 kHz."""
        with torch.inference_mode():
            mel = self._mel(torch.from_numpy(wave)[None])[0].numpy()
        if len(mel) < PATCH_FRAMES:
            silence = np.log(self._mel.spec.log_offset)
            mel = np.pad(mel, ((0, PATCH_FRAMES - len(mel)), (0, 0)), constant_values=silence)
        starts = range(0, len(mel) - PATCH_FRAMES + 1, PATCH_HOP_FRAMES)
        return np.stack([self._patch(mel[start : start + PATCH_FRAMES]) for start in starts])

    def _patch(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, mel[None])
        self._interpreter.invoke()
        return np.array(self._interpreter.get_tensor(self._output)[0], np.float32)

    def weights(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Return (kernel, bias) of every convolution and of the last layer, in order of use."""
        tensors = {t["index"]: t for t in self._interpreter.get_tensor_details()}
        layers = []
        for operation in self._interpreter._get_ops_details():
            if operation["op_name"] in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}:
                layers.append(self._layer(operation, tensors))
        return layers

    def _layer(
        self, operation: dict[str, Any], tensors: dict[int, dict[str, Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """De-quantise one layer; a bias is stored in units of input scale times kernel scale."""
        source, kernel, bias = (tensors[index] for index in operation["inputs"][:3])
        scales = kernel["quantization_parameters"]["scales"]
        axis = kernel["quantization_parameters"]["quantized_dimension"]
        shape = [1] * len(kernel["shape"])
        shape[axis] = -1
        values = self._interpreter.get_tensor(kernel["index"]).astype(np.float32)
        input_scale = source["quantization_parameters"]["scales"][0]
        offsets = self._interpreter.get_tensor(bias["index"]).astype(np.float64)
        return values * scales.reshape(shape), (offsets * input_scale * scales).astype(np.float32)


def start_from_teacher(tower: AudioTower, teacher: Teacher) -> None:
    """Copy the teacher's weights into the body and the tag head of `tower`."""
    layers = iter(teacher.weights())
    convolutions = [tower.body.stem]
    for block in tower.body.blocks:
        separable = cast(SeparableConv, block)
        convolutions += [separable.depthwise, separable.pointwise]
    with torch.no_grad():
        for convolution in convolutions:
            kernel, bias = next(layers)
            convolution.weight.copy_(_as_torch(kernel, convolution.groups > 1))
            cast(Tensor, convolution.bias).copy_(torch.from_numpy(bias))
        kernel, bias = next(layers)
        tower.tags.weight.copy_(torch.from_numpy(kernel))
        tower.tags.bias.copy_(torch.from_numpy(bias))


def _as_torch(kernel: NDArray[np.float32], depthwise: bool) -> Tensor:
    """Turn [out, height, width, in] (depthwise: [1, height, width, channels]) to torch's order."""
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(order)))
