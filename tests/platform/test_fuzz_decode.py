"""A thousand mutated files: no crash, no hang, and nothing but AudioError."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

FORMATS = {
    "wav": None,
    "flac": None,
    "opus": None,
    "mp3": None,
    "m4a": "aac",
    "webm": "libopus",
}
FILES_A_FORMAT = 170
# Of processor time for one file, which a busy machine does not stretch; a batch that waits for
# something that never comes is ended by the clock.
HANG_S = 10
BATCH_TIMEOUT_S = 300

# Prints the name of every file before it is opened, so that the last one printed is to blame.
READ_ALL = """
import resource, sys, time
from pathlib import Path
import numpy as np
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from soundpost.audio.decode import open_audio
from soundpost.errors import AudioError
for line in sys.stdin:
    path = Path(line.strip())
    print(path.name, flush=True)
    start, samples, code = time.process_time(), 0, "whole"
    try:
        with open_audio(path) as stream:
            for block in stream:
                samples += len(block.samples)
                assert np.isfinite(block.samples).all()
        if stream.fault:
            code = stream.fault.code
            assert samples
    except AudioError as error:
        code = error.code
    print(code, samples, time.process_time() - start, flush=True)
# Not getrusage: its peak is inherited from the process that started this one.
lines = Path("/proc/self/status").read_text().splitlines()
print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM")), flush=True)
"""


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, len(data), rng.integers(1, 30)):
        data[at] ^= 1 << int(rng.integers(8))


def spoil_header(data: bytearray, rng: np.random.Generator) -> None:
    """Sizes, rates and counts sit in the first bytes (MP4 keeps them in the last)."""
    head = min(len(data), 200)
    start = 0 if rng.random() < 0.6 else len(data) - head
    for at in start + rng.integers(0, head, rng.integers(1, 6)):
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])


def spoil_field(data: bytearray, rng: np.random.Generator) -> None:
    """Put an extreme number over four bytes of a header."""
    value = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFF00])
    order = "little" if rng.random() < 0.5 else "big"
    at = int(rng.integers(0, min(len(data) - 4, 120)))
    if rng.random() < 0.4:
        at = len(data) - 4 - at
    data[at : at + 4] = int(value).to_bytes(4, order)


def cut_end(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data))) :]


def cut_piece(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(0, len(data)))
    del data[at : at + int(rng.integers(1, 400))]


def double_piece(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(0, len(data)))
    data[at:at] = data[at : at + int(rng.integers(1, 400))]


def fill_piece(data: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 600))
    filling = (
        rng.bytes(length) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255]))]) * length
    )
    data[at : at + length] = filling


def swap_halves(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(1, len(data)))
    data[:] = data[at:] + data[:at]


MUTATIONS = [
    flip_bits,
    spoil_header,
    spoil_header,
    spoil_field,
    spoil_field,
    cut_end,
    cut_piece,
    double_piece,
    fill_piece,
    swap_halves,
]


def mutate(seed: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(seed)
    for _ in range(int(rng.integers(1, 4))):
        if len(data) > 8:
            MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
    return bytes(data)


@pytest.fixture(scope="module")
def mutants(
    tmp_path_factory: pytest.TempPathFactory, write_media: Callable[..., Path]
) -> dict[str, list[Path]]:
    """Mutated files by format, made from a third of a second of sound."""
    folder = tmp_path_factory.mktemp("mutants")
    rng = np.random.default_rng(20_261_101)
    sound = rng.normal(0, 0.1, (4_800, 2)).astype(np.float32)
    made: dict[str, list[Path]] = {}
    for suffix, codec in FORMATS.items():
        seed = write_media(folder / f"seed.{suffix}", sound, 16_000, codec=codec).read_bytes()
        paths = [folder / f"{suffix}-{index}.{suffix}" for index in range(FILES_A_FORMAT)]
        for path in paths:
            path.write_bytes(mutate(seed, rng))
        made[suffix] = paths
    return made


def read_all(paths: list[Path]) -> tuple[int, str, str]:
    """Decode in a process of its own; return its exit status, and what it wrote."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", READ_ALL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    names = io.StringIO("\n".join(map(str, paths))).read()
    try:
        written, errors = process.communicate(names, timeout=BATCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        written, errors = process.communicate()
    return process.returncode, written, errors


def test_mutated_files_never_crash_or_hang(mutants: dict[str, list[Path]]) -> None:
    assert sum(map(len, mutants.values())) >= 1_000
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(mutants, pool.map(read_all, mutants.values()), strict=True))
    outcomes: dict[str, list[str]] = {}
    for suffix, (status, written, errors) in results.items():
        lines = written.splitlines()
        last = lines[-2:]
        assert status == 0, f"{suffix}: exit status {status} after {last}\n{errors[-3_000:]}"
        assert errors == "", f"{suffix}: noise on the terminal\n{errors[-3_000:]}"
        assert int(lines[-1].removeprefix("peak ")) < 400_000, f"{suffix}: {last} kB of memory"
        reports = [line.split() for line in lines[1:-1:2]]
        assert len(reports) == FILES_A_FORMAT
        slowest = max(float(seconds) for _, _, seconds in reports)
        assert slowest < HANG_S, f"{suffix}: {slowest} s for one file"
        outcomes[suffix] = [code for code, _, _ in reports]
    # The mutations reach past the front door, and not all of them are harmless.
    for suffix, found in outcomes.items():
        assert len(set(found)) >= 3, (suffix, set(found))
        assert np.mean([code in ("whole", "truncated") for code in found]) > 0.05, suffix
