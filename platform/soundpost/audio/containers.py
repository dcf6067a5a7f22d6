"""What a container promises of its own length, read from its headers.

Decoders stop early on a truncated file without a word, so the promise has to be compared with the
file. Layouts: RIFF/RF64 (EBU Tech 3306), AIFF, AU, CAF, W64, ISO 14496-12 boxes, Matroska
(RFC 9559), ASF, Ogg (RFC 3533), and the Xing/Info frame of MP3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

# Headers are often some bytes off without any sample missing.
_SLACK_BYTES = 64
# A header walk that needs more steps than this is not a recording's.
_MAX_STEPS = 200_000
_LARGEST_FILE_BYTES = 1 << 43
_OGG_TAIL_BYTES = 1 << 17
_MP3_HEAD_BYTES = 4096
_UNKNOWN_SIZES = frozenset({0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF})
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT_ID = 0x18538067


@dataclass(frozen=True)
class Promise:
    """What the headers say.

    known: the first bytes belong to a known format. missing: what the file lacks, or None.
    samples: how many the header counts, or None. unfinished: the header of a WAV file was never
    completed, or its size field was too small for its length. promised_bytes: what the file should
    have, where it has less.
    """

    known: bool = True
    missing: str | None = None
    samples: int | None = None
    unfinished: bool = False
    promised_bytes: int | None = None


def inspect(file: BinaryIO, size: int) -> Promise:
    """Read the headers of an open file of `size` bytes; its position is left at the start."""
    file.seek(0)
    head = file.read(16)
    check = _find_check(head)
    promise = check(file, size) if check else Promise(known=False)
    file.seek(0)
    return promise


def _find_check(head: bytes) -> Callable[[BinaryIO, int], Promise] | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _wav if head[8:12] == b"WAVE" else _riff
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return _boxes
    if head.startswith(b"ID3") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return _mp3
    if head[:1] == b"\x47":
        return _transport_stream
    for magic, check in _MAGICS.items():
        if head.startswith(magic):
            return check
    return None


def _compare(promised: int, size: int) -> Promise:
    if promised <= size + _SLACK_BYTES:
        return Promise()
    missing = f"the file has {size} of {promised} bytes"
    return Promise(missing=missing, promised_bytes=promised)


def _plain(file: BinaryIO, size: int) -> Promise:
    return Promise()


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Read, and find nothing where a damaged header points outside any file."""
    if not 0 <= offset < _LARGEST_FILE_BYTES:
        return b""
    file.seek(offset)
    return file.read(count)


# --- RIFF and its kin -------------------------------------------------------------------------


def _riff(file: BinaryIO, size: int) -> Promise:
    (length,) = struct.unpack("<I", _read_at(file, 4, 4).ljust(4, b"\0"))
    return Promise() if length in _UNKNOWN_SIZES else _compare(length + 8, size)


def _chunks(file: BinaryIO, size: int, start: int, layout: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield (id, offset of the payload, its size) of chunks padded to even length."""
    offset, width = start, struct.calcsize(layout)
    for _ in range(_MAX_STEPS):
        header = _read_at(file, offset, width)
        if offset >= size or len(header) < width:
            return
        name, length = struct.unpack(layout, header)
        yield name, offset + width, length
        offset += width + length + length % 2


def _wav(file: BinaryIO, size: int) -> Promise:
    """Compare the data chunk with the file; long recordings wrap its 32 bits or use a ds64."""
    magic = _read_at(file, 0, 4)
    wide_length: int | None = None
    for name, offset, length in _chunks(file, size, 12, ">4sI" if magic == b"RIFX" else "<4sI"):
        if name == b"ds64":
            wide_length = struct.unpack("<Q", _read_at(file, offset + 8, 8).ljust(8, b"\0"))[0]
        if name == b"data":
            if magic in (b"RF64", b"BW64") and wide_length and length == 0xFFFFFFFF:
                return _compare(offset + wide_length, size)
            return _wav_data(file, size, offset, length)
    return Promise(missing="the sample data is missing")


def _wav_data(file: BinaryIO, size: int, offset: int, length: int) -> Promise:
    present = size - offset
    if length == 0:
        return Promise(unfinished=present > 0 and not _only_chunks(file, size, offset))
    if present >= 1 << 32 and abs(present % (1 << 32) - length) <= _SLACK_BYTES:
        return Promise(unfinished=True)
    return Promise() if length in _UNKNOWN_SIZES else _compare(offset + length, size)


def _only_chunks(file: BinaryIO, size: int, start: int) -> bool:
    """Tell whether what follows an empty data chunk is more chunks, and not lost samples."""
    for name, offset, length in _chunks(file, size, start, "<4sI"):
        if not name.isascii() or not name.decode().isprintable() or offset + length > size:
            return False
    return True


def _aiff(file: BinaryIO, size: int) -> Promise:
    (length,) = struct.unpack(">I", _read_at(file, 4, 4).ljust(4, b"\0"))
    return Promise() if length in _UNKNOWN_SIZES else _compare(length + 8, size)


def _au(file: BinaryIO, size: int) -> Promise:
    offset, length = struct.unpack(">II", _read_at(file, 4, 8).ljust(8, b"\0"))
    return Promise() if length in _UNKNOWN_SIZES else _compare(offset + length, size)


def _w64(file: BinaryIO, size: int) -> Promise:
    (length,) = struct.unpack("<Q", _read_at(file, 16, 8).ljust(8, b"\0"))
    return _compare(length, size) if length < 1 << 62 else Promise()


def _caf(file: BinaryIO, size: int) -> Promise:
    offset = 8
    for _ in range(_MAX_STEPS):
        header = _read_at(file, offset, 12)
        if len(header) < 12:
            break
        name, length = struct.unpack(">4sq", header)
        if name == b"data":
            return Promise() if length < 0 else _compare(offset + 12 + length, size)
        if length < 0:
            break
        offset += 12 + length
    return Promise(missing="the sample data is missing")


# --- MP4, Matroska, ASF -----------------------------------------------------------------------


def _boxes(file: BinaryIO, size: int) -> Promise:
    """Walk the top-level boxes; the last one may reach to the end of the file (size 0)."""
    offset, seen = 0, set()
    for _ in range(_MAX_STEPS):
        header = _read_at(file, offset, 16)
        if len(header) < 8:
            break
        length, name = struct.unpack(">I4s", header[:8])
        seen.add(name)
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        if length < 8:
            break
        offset += length
    if offset > size + _SLACK_BYTES:
        return _compare(offset, size)
    return Promise(missing=None if b"moov" in seen else "the index (moov) is missing")


def _matroska(file: BinaryIO, size: int) -> Promise:
    """Compare the length of the segment; live recordings leave it unknown (all ones)."""
    start, length = _ebml_element(file, 4)
    if length is None:
        return Promise()
    offset = start + length
    if int.from_bytes(_read_at(file, offset, 4), "big") != _SEGMENT_ID:
        return Promise(missing="the segment is missing")
    start, length = _ebml_element(file, offset + 4)
    return Promise() if length is None else _compare(start + length, size)


def _ebml_element(file: BinaryIO, offset: int) -> tuple[int, int | None]:
    """Return where an element's payload starts and how long it is, None for unknown."""
    raw = _read_at(file, offset, 8)
    width = 9 - raw[0].bit_length() if raw and raw[0] else 0
    if not width or len(raw) < width:
        return offset, None
    bits = 7 * width
    value = int.from_bytes(raw[:width], "big") & ((1 << bits) - 1)
    return offset + width, None if value == (1 << bits) - 1 else value


def _asf(file: BinaryIO, size: int) -> Promise:
    (header_length,) = struct.unpack("<Q", _read_at(file, 16, 8).ljust(8, b"\0"))
    if header_length >= size:
        return _compare(header_length, size)
    (length,) = struct.unpack("<Q", _read_at(file, header_length + 16, 8).ljust(8, b"\0"))
    return _compare(header_length + length, size)


# --- streams of pages and frames --------------------------------------------------------------


def _ogg(file: BinaryIO, size: int) -> Promise:
    """The last page of a complete Ogg file is whole and carries the end-of-stream mark."""
    start = max(0, size - _OGG_TAIL_BYTES)
    tail = _read_at(file, start, _OGG_TAIL_BYTES)
    at = tail.rfind(b"OggS\0")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return Promise(missing="its last page is cut")
    if len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return Promise(missing="its last page is cut")
    return Promise(missing=None if page[5] & 4 else "its end-of-stream mark is missing")


def _transport_stream(file: BinaryIO, size: int) -> Promise:
    """A transport stream (ISO 13818-1) is whole packets of 188 bytes."""
    if _read_at(file, 188, 1) != b"\x47":
        return Promise(known=False)
    return Promise(missing="its last packet is cut" if size % 188 else None)


def _mp3(file: BinaryIO, size: int) -> Promise:
    """Count the samples that the Xing/Info frame promises, without the encoder's padding.

    Two bytes of frame sync are too little to call anything MP3.
    """
    start = _after_id3(_read_at(file, 0, 10))
    head = _read_at(file, start, _MP3_HEAD_BYTES)
    at = max(head.find(b"Xing", 0, 200), head.find(b"Info", 0, 200))
    known = start > 0
    if at < 4 or len(head) < at + 160 or not head[at + 7] & 1:
        return Promise(known=known)
    (frames,) = struct.unpack(">I", head[at + 8 : at + 12])
    samples = frames * (1152 if head[1] & 8 else 576) - _lame_padding(head, at)
    return Promise(samples=samples if samples > 0 else None)


def _lame_padding(head: bytes, at: int) -> int:
    flags = head[at + 7]
    lame = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    if len(head) < lame + 24 or head[lame : lame + 4] not in (b"LAME", b"Lavc", b"Lavf"):
        return 0
    packed = int.from_bytes(head[lame + 21 : lame + 24], "big")
    return (packed >> 12) + (packed & 0xFFF)


def _after_id3(head: bytes) -> int:
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in head[6:10])
    return 10 + (a << 21 | b << 14 | c << 7 | d)


_MAGICS: dict[bytes, Callable[[BinaryIO, int], Promise]] = {
    b"FORM": _aiff,
    b".snd": _au,
    b"caff": _caf,
    _W64_RIFF: _w64,
    _EBML: _matroska,
    _ASF_HEADER: _asf,
    b"OggS": _ogg,
    b"fLaC": _plain,
    b"wvpk": _plain,
    b"MAC ": _plain,
    b"TTA1": _plain,
    b"#!AMR": _plain,
    b"FLV": _plain,
}
