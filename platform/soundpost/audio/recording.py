"""What decoding hands on: the description of a recording, its blocks and its findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

# What soxr resamples well; a header that says otherwise is damaged or no recording.
MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000


@dataclass(frozen=True)
class AudioInfo:
    """What a file says it is; duration_s is None where the container does not know it."""

    sample_rate_hz: int
    channels: int
    duration_s: float | None
    format: str


@dataclass(frozen=True)
class Remark:
    """A finding that does not stop a recording, under a stable code.

    Codes: clipped, silent, channels-cancel, non-finite-samples, gap, unfinished-header.
    """

    code: str
    detail: str

    def to_document(self) -> dict[str, str]:
        """Return it JSON-ready."""
        return {"code": self.code, "detail": self.detail}


@dataclass(frozen=True)
class Block:
    """A stretch of a recording at its own rate.

    start_sample: from the beginning of the file. samples: [N] mono, the plain mean of the
    channels. clipped: [N], true where any channel is at full scale.
    """

    start_sample: int
    samples: FloatArray
    clipped: BoolArray


@dataclass(frozen=True)
class Damage:
    """Something that is wrong with a file at a sample position; `ends`: nothing comes after it."""

    at_sample: int
    text: str
    ends: bool = False
