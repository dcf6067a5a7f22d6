"""Decoding: every format gives the samples that went in, in whole and in pieces."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.audio.decode import AUDIO_SUFFIXES, open_audio, probe, read_audio
from soundpost.errors import InvalidValueError

RATE_HZ = 48_000
LENGTH_S = 1.5
SINE_HZ = 1_000.0
CLICK_AT = 36_000

# name, codec (None: libsndfile), video codec, format in AudioInfo, what the codec adds before and
# behind the recording (samples), how exact a waveform it keeps (None: not its purpose).
FORMATS = [
    ("pcm.wav", None, None, "wav/pcm_16", 0, 0, 1e-4),
    ("pcm.aiff", None, None, "aiff/pcm_16", 0, 0, 1e-4),
    ("pcm.caf", None, None, "caf/pcm_16", 0, 0, 1e-4),
    ("pcm.au", None, None, "au/pcm_16", 0, 0, 1e-4),
    ("pcm.w64", None, None, "w64/pcm_16", 0, 0, 1e-4),
    ("pcm.rf64", None, None, "rf64/pcm_16", 0, 0, 1e-4),
    ("lossless.flac", None, None, "flac/pcm_16", 0, 0, 1e-4),
    ("vorbis.ogg", None, None, "ogg/vorbis", 0, 0, 0.05),
    ("opus.opus", None, None, "ogg/opus", 0, 0, 0.05),
    ("layer3.mp3", None, None, "mp3/mp3", 0, 0, 0.05),
    ("ffmpeg.mp3", "libmp3lame", None, "mp3/mp3", 0, 0, 0.05),
    ("aac.m4a", "aac", None, "mp4/aac", 0, 0, 0.05),
    ("alac.m4a", "alac", None, "mp4/alac", 0, 0, 1e-4),
    ("film.mp4", "aac", "mpeg4", "mp4/aac", 0, 0, 0.05),
    ("film.mov", "pcm_s16le", "mpeg4", "mp4/pcm_s16le", 0, 0, 1e-4),
    ("opus.webm", "libopus", None, "webm/opus", 0, 0, 0.05),
    ("film.mkv", "flac", "mpeg4", "matroska/flac", 0, 0, 1e-4),
    ("adts.aac", "aac", None, "aac/aac", 1024, 1024, 0.05),
    ("dolby.ac3", "ac3", None, "ac3/ac3", 256, 1536, 0.05),
    ("media.wma", "wmav2", None, "asf/wmav2", 0, 4096, None),
    ("film.ts", "aac", "mpeg2video", "mpegts/aac", 1024, 1024, 0.05),
]


@pytest.fixture(scope="session")
def stereo() -> NDArray[np.float32]:
    """A sine of 0.4 on the left, half that on the right, and a click on both."""
    time_s = np.arange(int(RATE_HZ * LENGTH_S)) / RATE_HZ
    wave = 0.4 * np.sin(2 * np.pi * SINE_HZ * time_s)
    left_right = np.stack([wave, 0.5 * wave], axis=1)
    return left_right.astype(np.float32)


@pytest.fixture(scope="session")
def library(
    tmp_path_factory: pytest.TempPathFactory,
    write_media: Callable[..., Path],
    stereo: NDArray[np.float32],
) -> Path:
    """A folder with the same recording in every format."""
    folder = tmp_path_factory.mktemp("library")
    for name, codec, video, *_ in FORMATS:
        write_media(folder / name, stereo, RATE_HZ, codec=codec, video=video)
    return folder


def decode(path: Path, **options: float) -> NDArray[np.float32]:
    with open_audio(path, **options) as stream:
        pieces = [block.samples for block in stream]
    assert stream.fault is None
    return np.concatenate(pieces)


@pytest.mark.parametrize(
    ("name", "form", "delay", "padding", "tolerance"),
    [(name, form, *rest) for name, _, _, form, *rest in FORMATS],
    ids=[entry[0] for entry in FORMATS],
)
def test_every_format_gives_the_mean_of_its_channels_in_time(
    library: Path,
    stereo: NDArray[np.float32],
    name: str,
    form: str,
    delay: int,
    padding: int,
    tolerance: float | None,
) -> None:
    with open_audio(library / name, block_s=0.3) as stream:
        blocks = list(stream)
    mono = np.concatenate([block.samples for block in blocks])
    assert (stream.info.sample_rate_hz, stream.info.channels) == (RATE_HZ, 2)
    assert stream.info.format == form
    assert stream.info.duration_s == pytest.approx(LENGTH_S, abs=0.1)
    assert (stream.fault, stream.remarks) == (None, ())
    assert stream.samples_read == len(mono)
    assert abs(len(mono) - len(stereo)) <= delay + padding
    # The plain mean of 0.4 and 0.2: FFmpeg's own downmix gives 0.42. LAME scales by 0.95.
    middle = mono[RATE_HZ // 2 : RATE_HZ]
    assert np.sqrt(2 * np.mean(np.square(middle, dtype=np.float64))) == pytest.approx(0.3, rel=0.06)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * RATE_HZ / len(middle) == pytest.approx(SINE_HZ, abs=2.0)
    if tolerance is not None:
        expected = stereo.mean(axis=1)[4_000:-4_000]
        found = mono[delay + 4_000 :][: len(expected)]
        assert np.abs(found - expected).max() < tolerance


@pytest.mark.parametrize("name", [entry[0] for entry in FORMATS])
def test_a_piece_equals_the_same_piece_of_the_whole(library: Path, name: str) -> None:
    whole = decode(library / name)
    for start, end in [
        (0, 1),
        (1, 2_400),
        (1_023, 1_025),
        (35_999, 60_001),
        (len(whole) - 7, None),
    ]:
        end_s = None if end is None else end / RATE_HZ
        with open_audio(
            library / name, start_s=start / RATE_HZ, end_s=end_s, block_s=0.1
        ) as stream:
            blocks = list(stream)
        assert blocks[0].start_sample == start
        np.testing.assert_array_equal(
            np.concatenate([block.samples for block in blocks]), whole[start:end]
        )


@pytest.mark.parametrize("name", ["pcm.wav", "lossless.flac", "opus.opus", "aac.m4a"])
@pytest.mark.parametrize("block", [1_000, 4_321, 48_000, 480_000])
def test_blocks_have_the_length_asked_for(library: Path, name: str, block: int) -> None:
    with open_audio(library / name, block_s=block / RATE_HZ) as stream:
        blocks = list(stream)
    lengths = [len(part.samples) for part in blocks]
    assert set(lengths[:-1]) <= {block}
    assert [part.start_sample for part in blocks] == list(np.cumsum([0, *lengths[:-1]]))
    assert all(part.samples.dtype == np.float32 for part in blocks)
    assert all(part.clipped.shape == part.samples.shape for part in blocks)


@pytest.mark.parametrize(
    "name", ["click.wav", "click.flac", "click.ogg", "click.opus", "click.mp3", "click.webm"]
)
def test_a_click_is_where_it_was_put(
    tmp_path: Path, write_media: Callable[..., Path], name: str
) -> None:
    samples = np.zeros((RATE_HZ, 2), np.float32)
    samples[CLICK_AT] = 0.9
    codec = "libopus" if name.endswith("webm") else None
    path = write_media(tmp_path / name, samples, RATE_HZ, codec=codec)
    assert np.argmax(np.abs(decode(path))) == CLICK_AT


SUBTYPES = [
    ("PCM_U8", "wav", 1 / 128),
    ("PCM_S8", "aiff", 1 / 128),
    ("PCM_16", "wav", 2.0**-15),
    ("PCM_24", "wav", 2.0**-23),
    ("PCM_24", "flac", 2.0**-23),
    ("PCM_32", "wav", 2.0**-23),
    ("FLOAT", "wav", 1e-7),
    ("DOUBLE", "wav", 1e-7),
    ("ULAW", "wav", 0.02),
    ("ALAW", "wav", 0.02),
]


@pytest.mark.parametrize(("subtype", "suffix", "step"), SUBTYPES)
@pytest.mark.parametrize("rate_hz", [1_000, 11_025, 384_000])
def test_sample_formats_are_scaled_to_one(
    tmp_path: Path,
    write_media: Callable[..., Path],
    subtype: str,
    suffix: str,
    step: float,
    rate_hz: int,
) -> None:
    wave = np.linspace(-0.5, 0.5, 500, dtype=np.float32)[:, None]
    path = write_media(tmp_path / f"a.{suffix}", wave, rate_hz, subtype=subtype)
    samples, found_hz = read_audio(path)
    assert found_hz == rate_hz
    np.testing.assert_allclose(samples, wave[:, 0], atol=1.01 * step)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f64le"])
def test_ffmpeg_scales_the_same(
    tmp_path: Path, write_media: Callable[..., Path], codec: str
) -> None:
    wave = np.linspace(-0.5, 0.5, 8_000, dtype=np.float32)[:, None].repeat(2, axis=1)
    path = write_media(tmp_path / "a.mkv", wave, 8_000, codec=codec)
    assert probe(path).format == f"matroska/{codec}"
    np.testing.assert_allclose(decode(path), wave[:, 0], atol=1 / 127)
    if codec != "pcm_u8":
        np.testing.assert_allclose(decode(path), wave[:, 0], atol=1 / 32_767)


def test_sixteen_channels_become_their_mean(
    tmp_path: Path, write_media: Callable[..., Path]
) -> None:
    channels = np.random.default_rng(3).uniform(-0.9, 0.9, (4_000, 16)).astype(np.float32)
    path = write_media(tmp_path / "a.wav", channels, 44_100, subtype="FLOAT")
    assert probe(path).channels == 16
    np.testing.assert_allclose(decode(path), channels.mean(axis=1), atol=1e-6)


def test_content_decides_and_not_the_name(library: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "really-aac.wav"
    disguised.write_bytes((library / "aac.m4a").read_bytes())
    bare = tmp_path / "5f3a9c"
    bare.write_bytes((library / "layer3.mp3").read_bytes())
    strange = tmp_path / os.fsdecode(b"\xff\xfe caf\xe9.mp3")
    strange.write_bytes((library / "layer3.mp3").read_bytes())
    assert probe(disguised).format == "mp4/aac"
    assert probe(bare).format == probe(strange).format == "mp3/mp3"


def test_read_audio_resamples_to_the_exact_length(library: Path) -> None:
    samples, rate_hz = read_audio(
        library / "opus.opus", start_s=0.25, end_s=1.25, sample_rate_hz=16_000
    )
    assert (len(samples), rate_hz) == (16_000, 16_000)
    assert np.abs(samples[1_000:-1_000]).max() == pytest.approx(0.3, rel=0.03)


def test_an_impossible_stretch_is_refused(library: Path) -> None:
    path = library / "pcm.wav"
    for options in ({"start_s": -1.0}, {"start_s": 1.0, "end_s": 1.0}, {"block_s": 0.0}):
        with pytest.raises(InvalidValueError):
            open_audio(path, **options)
    with pytest.raises(InvalidValueError, match="ends before"):
        read_audio(path, start_s=99.0)
    with open_audio(path, start_s=99.0) as stream:
        assert list(stream) == []
    assert stream.fault is None


def test_the_suffixes_cover_what_is_decoded() -> None:
    names = {Path(entry[0]).suffix for entry in FORMATS}
    assert names <= AUDIO_SUFFIXES


def test_decoders_say_nothing_on_the_terminal(
    library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("layer3.mp3", "aac.m4a", "vorbis.ogg", "lossless.flac", "film.ts"):
        whole = bytearray((library / name).read_bytes())
        whole[len(whole) // 2 : len(whole) // 2 + 500] = bytes(range(250)) * 2
        damaged = tmp_path / name
        damaged.write_bytes(whole)
        with open_audio(damaged) as stream:
            list(stream)
    assert capfd.readouterr() == ("", "")


def test_a_stream_given_up_half_way_leaves_nothing_open(library: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("pcm.wav", "layer3.mp3", "film.mp4"):
        with open_audio(library / name, block_s=0.1) as stream:
            next(iter(stream))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


STREAM_IT = """
import sys
from pathlib import Path
from soundpost.audio.decode import open_audio
from soundpost.audio.windows import cut_windows
path = Path(sys.argv[1])
def peak_kb():
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
with open_audio(path, end_s=20.0) as stream:
    list(cut_windows(stream, stream.info.sample_rate_hz, 10.0, 5.0))
before = peak_kb()
with open_audio(path) as stream:
    windows = sum(1 for _ in cut_windows(stream, stream.info.sample_rate_hz, 10.0, 5.0))
print(stream.samples_read, windows, peak_kb() - before)
"""


def write_sparse_wav(path: Path, rate_hz: int, channels: int, seconds: int) -> None:
    """A 16-bit WAV file of silence that takes no room on the disk."""
    head = io.BytesIO()
    soundfile.write(head, np.zeros((1, channels), np.int16), rate_hz, format="WAV")
    size = seconds * rate_hz * channels * 2
    fields = bytearray(head.getvalue()[:44])
    fields[4:8] = (36 + size).to_bytes(4, "little")
    fields[40:44] = size.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(fields)
        file.truncate(44 + size)


def write_long_m4a(path: Path, write_media: Callable[..., Path]) -> None:
    write_media(path, np.zeros((8_000 * 1_800, 1), np.float32), 8_000, codec="aac")


@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_a_long_recording_takes_little_memory(
    tmp_path: Path, write_media: Callable[..., Path], kind: str
) -> None:
    path = tmp_path / f"long.{kind}"
    seconds = 36_000 if kind == "wav" else 1_800
    if kind == "wav":
        write_sparse_wav(path, 8_000, 1, seconds)
    else:
        write_long_m4a(path, write_media)
    done = subprocess.run(
        [sys.executable, "-c", STREAM_IT, path], capture_output=True, text=True, check=True
    )
    samples, windows, growth_kb = map(int, done.stdout.split())
    assert samples == seconds * 8_000
    assert windows == seconds // 5 - 1
    # The whole recording would be 1.1 GB and 58 MB as float32.
    assert growth_kb < (100_000 if kind == "wav" else 30_000)
