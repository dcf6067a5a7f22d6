"""Media files made on the fly, for tests of audio input."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.container import OutputContainer
from numpy.typing import NDArray

MediaWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_media() -> MediaWriter:
    """write_media(path, samples [N, channels], rate_hz, codec=None, video=None, subtype=None).

    With a codec FFmpeg encodes, otherwise libsndfile.
    """
    return _write_media


def _write_media(
    path: Path,
    samples: NDArray[np.floating],
    rate_hz: int,
    *,
    codec: str | None = None,
    video: str | None = None,
    subtype: str | None = None,
) -> Path:
    if codec is None:
        if path.suffix == ".opus":
            soundfile.write(path, samples, rate_hz, format="OGG", subtype="OPUS")
        else:
            soundfile.write(path, samples, rate_hz, subtype=subtype)
        return path
    # Every stream has to be known before the first packet is written.
    with av.open(path, "w") as container:
        pictures = _add_video_stream(container, video) if video else None
        sound = _add_audio_stream(container, codec, samples.shape[1], rate_hz)
        if pictures:
            _encode_pictures(container, pictures, len(samples) / rate_hz)
        _encode_sound(container, sound, np.asarray(samples, np.float32))
    return path


def _add_video_stream(container: OutputContainer, codec: str) -> av.VideoStream:
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    return stream


def _add_audio_stream(
    container: OutputContainer, codec: str, channels: int, rate_hz: int
) -> av.AudioStream:
    layout = {1: "mono", 2: "stereo"}[channels]
    stream = container.add_stream(codec, rate=rate_hz, layout=layout)
    if not codec.startswith("pcm"):
        stream.bit_rate = 128_000
    return stream


def _encode_pictures(container: OutputContainer, stream: av.VideoStream, duration_s: float) -> None:
    for index in range(max(1, int(duration_s * 10))):
        picture = np.full((64, 64, 3), index % 256, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = index
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _encode_sound(
    container: OutputContainer, stream: av.AudioStream, samples: NDArray[np.float32]
) -> None:
    rate_hz, layout = stream.rate, stream.layout.name
    packed = np.ascontiguousarray(samples.reshape(1, -1))
    whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    whole.rate, whole.pts, whole.time_base = rate_hz, 0, Fraction(1, rate_hz)
    fifo = av.AudioFifo()
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate_hz)
    for frame in resampler.resample(whole) + resampler.resample(None):
        fifo.write(frame)
    size = stream.codec_context.frame_size or 1024
    while frame := fifo.read(size) or fifo.read(0, partial=True):
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
