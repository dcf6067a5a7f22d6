"""Bad input: each kind has its error, nothing hangs, and what can be decoded is kept."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from soundpost.audio.decode import AudioStream, open_audio, probe, read_audio
from soundpost.errors import (
    AudioError,
    BrokenLinkError,
    DecodeError,
    EmptyFileError,
    FileMissingError,
    NoAudioStreamError,
    NoSamplesError,
    NotAFileError,
    NotAudioError,
    TruncatedError,
    UnreadableFileError,
    UnsupportedRateError,
)

RATE_HZ = 48_000
MediaWriter = Callable[..., Path]


@pytest.fixture(scope="module")
def noise() -> NDArray[np.float32]:
    """Two seconds of quiet stereo noise: no codec makes it short."""
    return np.random.default_rng(5).normal(0, 0.1, (2 * RATE_HZ, 2)).astype(np.float32)


def listen(path: Path, **options: float) -> tuple[AudioStream, NDArray[np.float32]]:
    with open_audio(path, **options) as stream:
        pieces = [block.samples for block in stream]
    return stream, np.concatenate([np.zeros(0, np.float32), *pieces])


def codes(stream: AudioStream) -> list[str]:
    return [remark.code for remark in stream.remarks]


# --- paths that are no readable file ----------------------------------------------------------


def test_a_missing_file_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    for path in (tmp_path / "none.wav", tmp_path / "a.wav" / "b.wav"):
        with pytest.raises(FileMissingError):
            open_audio(path)


def test_an_empty_path_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.wav").mkdir()
    for path in (Path(), tmp_path / "x.wav", Path("/dev/null")):
        with pytest.raises(NotAFileError):
            open_audio(path)


def test_a_path_that_no_system_accepts(tmp_path: Path) -> None:
    for path in (tmp_path / "nul\0byte.wav", tmp_path / ("x" * 400)):
        with pytest.raises(UnreadableFileError):
            open_audio(path)


def test_broken_and_circular_links(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name in ("gone.wav", "loop.wav"):
        with pytest.raises(BrokenLinkError):
            open_audio(tmp_path / name)


PIPE = """
import sys
from pathlib import Path
from soundpost.audio.decode import open_audio
from soundpost.errors import AudioError
try:
    open_audio(Path(sys.argv[1]))
except AudioError as error:
    print(error.code)
"""


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    done = subprocess.run(
        [sys.executable, "-c", PIPE, tmp_path / "pipe.wav"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == NotAFileError.code


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    soundfile.write(path, np.zeros(100), 8_000)
    path.chmod(0)
    if os.geteuid() == 0:
        code = _code_seen_by_nobody(path)
    else:
        with pytest.raises(UnreadableFileError) as caught:
            open_audio(path)
        code = caught.value.code
    assert code == UnreadableFileError.code


def _code_seen_by_nobody(path: Path) -> str:
    """Root reads everything, so a forked child gives up its rights before it opens the file."""
    for folder in path.parents:
        if not folder.stat().st_mode & stat.S_IXOTH and folder.owner() == "root":
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)
        try:
            open_audio(path)
        except AudioError as error:
            os.write(writing, error.code.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


# --- files that are no recording --------------------------------------------------------------


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyFileError):
        open_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "content",
    [
        b"Meeting notes, nothing to hear.\n" * 200,
        b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 20,
        b'{"kind": "recording"}',
        b"\0" * 5_000,
        b"x",
        np.random.default_rng(1).bytes(5_000),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["text", "subtitles", "json", "zeros", "byte", "random", "picture"],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg"])
def test_something_else_under_an_audio_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(NotAudioError):
        open_audio(path)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8_000)
    (tmp_path / "list.wav").write_text("ffconcat version 1.0\nfile 'a.wav'\n")
    (tmp_path / "hls.wav").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n"
    )
    for name in ("list.wav", "hls.wav"):
        with pytest.raises(NotAudioError):
            open_audio(tmp_path / name)


def test_a_film_without_sound(tmp_path: Path) -> None:
    import av

    path = tmp_path / "silent-film.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(NoAudioStreamError):
        open_audio(path)


def test_a_header_without_samples(tmp_path: Path, write_media: MediaWriter) -> None:
    for suffix in ("wav", "aiff", "caf"):
        path = write_media(tmp_path / f"a.{suffix}", np.zeros((0, 2), np.float32), RATE_HZ)
        with pytest.raises(NoSamplesError):
            open_audio(path)
    promising = tmp_path / "promising.wav"
    promising.write_bytes(wav_bytes(np.ones(800, np.int16))[:44])
    with pytest.raises(NoSamplesError, match="44 of 1644 bytes"):
        open_audio(promising)


@pytest.mark.parametrize("rate_hz", [0, 999, 1_000_000, 0xFFFFFFFF])
def test_a_rate_that_no_recorder_has(tmp_path: Path, rate_hz: int) -> None:
    content = bytearray(wav_bytes(np.ones(800, np.int16)))
    content[24:28] = struct.pack("<I", rate_hz)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises((UnsupportedRateError, DecodeError, NotAudioError)):
        open_audio(path)


def test_a_broken_header_is_a_known_format(tmp_path: Path) -> None:
    for content in (b"RIFF", b"fLaC", wav_bytes(np.ones(800, np.int16))[:30]):
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        with pytest.raises((DecodeError, TruncatedError)):
            open_audio(path)


# --- cut and damaged recordings ---------------------------------------------------------------

CUT = [
    ("a.wav", None, None),
    ("a.aiff", None, None),
    ("a.caf", None, None),
    ("a.au", None, None),
    ("a.w64", None, None),
    ("a.rf64", None, None),
    ("a.flac", None, None),
    ("a.ogg", None, None),
    ("a.opus", None, None),
    ("a.mp3", None, None),
    ("a.webm", "libopus", None),
    ("a.mkv", "aac", "mpeg4"),
    ("a.avi", "libmp3lame", "mpeg4"),
    ("a.ts", "aac", "mpeg2video"),
    ("a.wma", "wmav2", None),
    ("a.aac", "aac", None),
]


@pytest.mark.parametrize(("name", "codec", "video"), CUT, ids=[entry[0] for entry in CUT])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_what_comes_before_the_cut_is_kept(
    tmp_path: Path,
    write_media: MediaWriter,
    noise: NDArray[np.float32],
    name: str,
    codec: str | None,
    video: str | None,
    share: float,
) -> None:
    path = write_media(tmp_path / name, noise, RATE_HZ, codec=codec, video=video)
    _, whole = listen(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    stream, kept = listen(path)
    assert isinstance(stream.fault, TruncatedError)
    assert str(path) in str(stream.fault)
    # Ogg loses a whole page of up to a second.
    assert (share - 0.55) * len(whole) < len(kept) <= (share + 0.05) * len(whole)
    sure = max(0, len(kept) - 8_192)
    np.testing.assert_array_equal(kept[:sure], whole[:sure])
    # A stretch before the cut has no fault, one behind it has nothing else.
    early, _ = listen(path, end_s=0.02)
    assert early.fault is None
    if len(kept) < 1.98 * RATE_HZ:
        with pytest.raises(TruncatedError):
            read_audio(path, start_s=1.99)


def test_an_mp4_without_its_index_says_so(
    tmp_path: Path, write_media: MediaWriter, noise: NDArray[np.float32]
) -> None:
    path = write_media(tmp_path / "a.m4a", noise, RATE_HZ, codec="aac")
    content = path.read_bytes()
    for kept in (content[: len(content) // 2], content[: content.rindex(b"moov") - 4]):
        path.write_bytes(kept)
        with pytest.raises(TruncatedError):
            open_audio(path)


DAMAGED = [
    ("a.flac", None),
    ("a.ogg", None),
    ("a.opus", None),
    ("a.mp3", None),
    ("a.m4a", "aac"),
    ("a.mka", "flac"),
    ("a.ts", "aac"),
]


@pytest.mark.parametrize(("name", "codec"), DAMAGED, ids=[entry[0] for entry in DAMAGED])
def test_damage_in_the_middle_costs_only_the_middle(
    tmp_path: Path,
    write_media: MediaWriter,
    name: str,
    codec: str | None,
) -> None:
    rng = np.random.default_rng(8)
    long = rng.normal(0, 0.1, (8 * RATE_HZ, 1)).astype(np.float32)
    path = write_media(tmp_path / name, long, RATE_HZ, codec=codec)
    _, whole = listen(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2_000] = rng.bytes(2_000)
    path.write_bytes(content)
    stream, kept = listen(path)
    assert isinstance(stream.fault, TruncatedError)
    where_s = float(stream.fault.detail.split()[1])
    assert 2.5 < where_s < 5
    before = int((where_s - 0.1) * RATE_HZ)
    np.testing.assert_array_equal(kept[:before], whole[:before])
    # What was lost is silence, so the last second is still where it was. A demuxer cannot know
    # how many frames of MP3 are missing, and Matroska loses the rest of its cluster.
    if name not in ("a.mp3", "a.mka"):
        np.testing.assert_allclose(kept[7 * RATE_HZ :], whole[7 * RATE_HZ :], atol=2e-3)
    elif name == "a.mp3":
        assert len(whole) - len(kept) < RATE_HZ // 2


def test_damage_outside_the_stretch_is_no_fault(
    tmp_path: Path, write_media: MediaWriter, noise: NDArray[np.float32]
) -> None:
    path = write_media(tmp_path / "a.flac", noise, RATE_HZ)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    path.write_bytes(content)
    assert listen(path)[0].fault is not None
    for start_s, end_s in ((0.0, 0.8), (1.3, 2.0)):
        stream, samples = listen(path, start_s=start_s, end_s=end_s)
        assert stream.fault is None
        expected = noise[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)].mean(axis=1)
        np.testing.assert_allclose(samples, expected, atol=1e-4)


# --- headers that were never finished ---------------------------------------------------------


def wav_bytes(samples: NDArray[np.int16], size: int | None = None, extra: bytes = b"") -> bytes:
    """A mono 8 kHz file; `size` replaces what its data chunk says of its length."""
    data = samples.tobytes()
    length = len(data) if size is None else size
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16)
    return head + b"data" + struct.pack("<I", length) + data + extra


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_streamed_wav_is_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.full(8_000, 8_192, np.int16), size))
    stream, samples = listen(path)
    assert stream.fault is None
    np.testing.assert_array_equal(samples, np.full(8_000, 0.25, np.float32))
    assert codes(stream) == (["unfinished-header"] if size == 0 else [])
    np.testing.assert_array_equal(read_audio(path, start_s=0.5)[0], samples[4_000:])


def test_an_empty_data_chunk_before_others_holds_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.zeros(0, np.int16), extra=b"LIST\x04\0\0\0INFO"))
    with pytest.raises(NoSamplesError):
        open_audio(path)


def test_a_wav_longer_than_its_size_field_can_say(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    size = 5 * 2**30
    path.write_bytes(wav_bytes(np.full(8_000, 8_192, np.int16), size % 2**32))
    with path.open("r+b") as file:
        file.truncate(44 + size)
    stream, samples = listen(path, start_s=0.5, end_s=1.5)
    assert samples[0] == 0.25 and samples[-1] == 0.0
    assert stream.fault is None
    assert codes(stream) == ["unfinished-header"]


# --- samples that need a remark ---------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_what_is_no_number_becomes_silence(
    tmp_path: Path, write_media: MediaWriter, subtype: str
) -> None:
    samples = np.full((1_000, 2), 0.25)
    samples[10, 0], samples[20, 1], samples[30] = np.nan, np.inf, -np.inf
    samples[40] = 1e300 if subtype == "DOUBLE" else 1e30
    path = write_media(tmp_path / "a.wav", samples, RATE_HZ, subtype=subtype)
    stream, found = listen(path)
    expected = np.full(1_000, 0.25, np.float32)
    expected[[10, 20]], expected[[30, 40]] = 0.125, 0.0
    np.testing.assert_array_equal(found, expected)
    assert stream.remarks[0].code == "non-finite-samples"
    assert stream.remarks[0].detail.startswith("6 ")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a"])
def test_silence_is_remarked(tmp_path: Path, write_media: MediaWriter, name: str) -> None:
    codec = "aac" if name.endswith("m4a") else None
    silence = np.zeros((RATE_HZ, 2), np.float32)
    stream, samples = listen(write_media(tmp_path / name, silence, RATE_HZ, codec=codec))
    assert codes(stream) == ["silent"]
    assert len(samples) == RATE_HZ


def test_the_dither_of_silence_is_silent_and_a_whisper_is_not(
    tmp_path: Path, write_media: MediaWriter
) -> None:
    dither = np.random.default_rng(2).integers(-1, 2, (RATE_HZ, 1)).astype(np.int16)
    assert codes(listen(write_media(tmp_path / "a.wav", dither, RATE_HZ))[0]) == ["silent"]
    whisper = dither * 4
    assert codes(listen(write_media(tmp_path / "b.wav", whisper, RATE_HZ))[0]) == []


def test_channels_that_cancel_are_remarked(
    tmp_path: Path, write_media: MediaWriter, noise: NDArray[np.float32]
) -> None:
    opposed = np.stack([noise[:, 0], -noise[:, 0]], axis=1)
    path = write_media(tmp_path / "a.wav", opposed, RATE_HZ, subtype="FLOAT")
    assert codes(listen(path)[0]) == ["channels-cancel"]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_clipping_is_found_in_every_sample_format(
    tmp_path: Path, write_media: MediaWriter, subtype: str
) -> None:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    loud = np.clip(2 * np.sin(2 * np.pi * 100 * time_s), -1, 1)
    stereo = np.stack([0.1 * loud, loud], axis=1)
    path = write_media(tmp_path / "a.wav", stereo, RATE_HZ, subtype=subtype)
    with open_audio(path) as stream:
        clipped = np.concatenate([block.clipped for block in stream])
    assert clipped[np.abs(loud) >= 1].all()
    assert not clipped[np.abs(loud) < 0.98].any()
    # |2 sin| >= 1 during two thirds of a period.
    assert codes(stream) == ["clipped"]
    share = float(stream.remarks[0].detail.split("%")[0])
    assert share == pytest.approx(100 * 2 / 3, abs=1.5)
    path = write_media(tmp_path / "b.wav", stereo * 0.98, RATE_HZ, subtype=subtype)
    assert codes(listen(path)[0]) == []


def test_a_peak_that_just_touches_full_scale_is_not_clipped(
    tmp_path: Path, write_media: MediaWriter, noise: NDArray[np.float32]
) -> None:
    normalised = noise / np.abs(noise).max()
    stream, _ = listen(write_media(tmp_path / "a.wav", normalised, RATE_HZ))
    assert codes(stream) == []


def test_every_fault_has_a_code_a_remedy_and_the_path(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError) as caught:
        probe(tmp_path / "a.wav")
    assert caught.value.code == "empty-file"
    assert str(tmp_path / "a.wav") in str(caught.value)
    assert caught.value.remedy
