"""Measure what Soundpost costs, each figure beside an alternative in the same run.

    python benchmarks/run.py                 # everything, writes docs/benchmarks.md
    python benchmarks/run.py --only encode ingest

Reads the data folder (SOUNDPOST_DATA) where there is one; without it the ingest is of scenes.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import index as index_benchmark
import numpy as np
import pipeline as pipeline_benchmark
import service as service_benchmark
import soundfile
import torch
from numpy.typing import NDArray

from soundpost.archive.discover import Selection, find_files
from soundpost.archive.ingest import ingest
from soundpost.archive.plan import IngestOptions
from soundpost.archive.summary import Summary
from soundpost.audio.acoustics import measure
from soundpost.audio.decode import open_audio
from soundpost.audio.features import LogMel, LogMelSpec
from soundpost.audio.scenes import synthesise, write_wav
from soundpost.config import load_settings
from soundpost.models.compact import CompactEncoder
from soundpost_indexer.exact import ExactIndex
from soundpost_migrations.upgrade import upgrade

RATE_HZ = 16_000
FORMATS = {"wav": None, "flac": None, "ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}


@dataclass(frozen=True)
class Row:
    """A line of a results table."""

    what: str
    value: str
    beside: str = ""


def best_s(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest of several runs: the one least disturbed."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def noise(rows: int, seconds: float) -> NDArray[np.float32]:
    """Return white noise [rows, seconds at 16 kHz] at -20 dBFS."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, round(seconds * RATE_HZ)), dtype=np.float32) * 0.1


def decode_rows() -> list[Row]:
    """Decode five minutes of each format; beside it, soundfile reading the whole file at once."""
    rows = []
    wave = noise(1, 300)[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, subtype in FORMATS.items():
            container = "OGG" if name == "opus" else name.upper()
            path = Path(folder) / f"noise.{name}"
            with soundfile.SoundFile(path, "w", RATE_HZ, 1, subtype, format=container) as file:
                # libsndfile overflows its stack when an Ogg file is written in one long piece.
                for start in range(0, len(wave), RATE_HZ):
                    file.write(wave[start : start + RATE_HZ])
            ours = best_s(lambda path=path: _drain(path), 3)
            whole = best_s(lambda path=path: soundfile.read(path, dtype="float32"), 3)
            rows.append(
                Row(
                    f"decode {name}",
                    f"{300 / ours:,.0f} x real time",
                    f"{ours / whole:.2f} x the time of a whole read",
                )
            )
    return rows


def _drain(path: Path) -> None:
    with open_audio(path) as stream:
        for _ in stream:
            pass


def feature_rows() -> list[Row]:
    """Cost of the front end and of the acoustics for one 10 s window."""
    mel, wave = LogMel(LogMelSpec()), noise(8, 10)
    tensor = torch.from_numpy(wave)
    with torch.inference_mode():
        front_s = best_s(lambda: mel(tensor)) / 8
    acoustics_s = best_s(lambda: measure(wave[0], RATE_HZ))
    wide = noise(1, 30)[0]
    wide_s = best_s(lambda: measure(wide, 48_000))
    return [
        Row("log-mel, a 10 s window", f"{1e3 * front_s:.2f} ms", "one core, batch of 8"),
        Row(
            "acoustics, a 10 s window at 16 kHz",
            f"{1e3 * acoustics_s:.2f} ms",
            f"{acoustics_s / front_s:.2f} x the log-mel",
        ),
        Row(
            "acoustics, a 10 s window at 48 kHz",
            f"{1e3 * wide_s:.2f} ms",
            f"{wide_s / front_s:.2f} x the log-mel",
        ),
    ]


def encode_rows() -> list[Row]:
    """Cost of encoding 10 s on one core, features included, batch of 8."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder = CompactEncoder.load()
        wave = noise(8, 10)
        encoder.encode_audio(wave)
        batch_s = best_s(lambda: encoder.encode_audio(wave)) / 8
        single_s = best_s(lambda: encoder.encode_audio(wave[:1]))
        texts = ["a dog barks in the distance"]
        text_s = best_s(lambda: encoder.embed_text(texts), 20)
    finally:
        torch.set_num_threads(threads)
    return [
        Row("encode 10 s, batch of 8, one core", f"{1e3 * batch_s:.1f} ms", "goal: at most 30 ms"),
        Row(
            "encode 10 s, alone, one core",
            f"{1e3 * single_s:.1f} ms",
            f"{single_s / batch_s:.2f} x the batch's",
        ),
        Row("embed a query, one core", f"{1e3 * text_s:.1f} ms"),
    ]


def ingest_rows(data: Path) -> list[Row]:
    """Ingest the esc50 files (or as many seconds of scenes), with every row and vector written."""
    with tempfile.TemporaryDirectory() as folder:
        files = _some_files(data, Path(folder))
        warm = _ingest(files, Path(folder) / "warm.db", limit=64)
        summary = _ingest(files, Path(folder) / "all.db")
        del warm
    encode_s = summary.stages.get("encode", 0.0)
    return [
        Row(
            "ingest",
            f"{summary.ingested / summary.wall_s:.1f} files a second",
            f"{summary.ingested} files of 5 s, {summary.audio_s / summary.wall_s:,.0f} x real time",
        ),
        Row(
            "ingest, share of time outside the encoder",
            f"{100 * summary.outside_encoder_share:.1f} %",
            "goal: at most 15 %",
        ),
        Row(
            "ingest against the encoder alone",
            f"{summary.wall_s / max(encode_s, 1e-9):.2f} x",
            f"{encode_s:.1f} s of {summary.wall_s:.1f} s; "
            + ", ".join(f"{n} {t:.1f} s" for n, t in summary.stages.items() if n != "encode"),
        ),
    ]


def _make_scenes(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        wave = synthesise("rain", 5.0, RATE_HZ, np.random.default_rng(number))
        write_wav(folder / f"{number}.wav", wave, RATE_HZ)


def _ingest(files: Path, database: Path, limit: int | None = None) -> Summary:
    from soundpost.store.session import open_store

    found = find_files([files], Selection())
    found.files = found.files[:limit]
    url = f"sqlite:///{database}"
    upgrade(url)
    store, encoder = open_store(url), CompactEncoder.load()
    try:
        return ingest(found, IngestOptions(), store, encoder, ExactIndex(encoder.spec.dimension))
    finally:
        store.close()


def search_rows(sizes: Sequence[int], dimension: int) -> list[Row]:
    """Time one query at a time, Flat against HNSW, for audio and for text queries."""
    results = index_benchmark.run(sizes=sizes, dimension=dimension)
    rows = []
    for size, layouts in results["sizes"].items():
        for layout, values in layouts.items():
            for kind in ("audio", "text"):
                found = values[kind]
                times = f"{found['p50_ms']:.2f} / {found['p95_ms']:.2f} / {found['p99_ms']:.2f} ms"
                beside = f"recall@10 {found['recall_at_10']:.3f}, built in {values['build_s']:.0f} s, {values['bytes'] / 1e6:,.0f} MB"
                rows.append(
                    Row(
                        f"search {int(size):,} x {dimension}, {layout}, {kind} query, p50 / p95 / p99",
                        times,
                        beside,
                    )
                )
    return rows


def broker_rows() -> list[Row]:
    """Empty tasks through each broker, and what is lost with a killed worker without our table."""
    return [
        Row(
            f"empty tasks, {result.name}",
            f"{result.tasks_per_s:,.1f} a second",
            f"{result.lost} of 20 not run within 8 s after a kill, without the table of jobs",
        )
        for result in pipeline_benchmark.brokers()
    ]


def worker_rows(data: Path) -> list[Row]:
    """Audio through one and two worker processes, on one core and on two."""
    with tempfile.TemporaryDirectory() as folder:
        files = _some_files(data, Path(folder))
        results = list(pipeline_benchmark.scaling(files, 400))
    alone = results[0].audio_s_per_s
    return [
        Row(
            f"{result.processes} worker process(es) on {result.cores} core(s)",
            f"{result.audio_s_per_s:,.0f} s of audio a second",
            f"{result.audio_s_per_s / alone:.2f} x one on one core"
            + ("; goal: at least 1.6 x" if result.processes > 1 else ", 400 files of 5 s"),
        )
        for result in results
    ]


def service_rows(data: Path) -> list[Row]:
    """Searches over HTTP, and how long a new recording takes to be found."""
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(_some_files(data, Path(folder)).iterdir())[:600]
        result = service_benchmark.measure(files)
    idle = {found.what: found for found in result.latencies}["50 clients"]
    rows = [
        Row(
            f"search over HTTP, {found.what}, p50 / p95 / p99",
            f"{found.p50_ms:.0f} / {found.p95_ms:.0f} / {found.p99_ms:.0f} ms",
            f"{found.a_second:,.0f} searches a second, p95 {found.p95_ms / idle.p95_ms:.2f} x that of 50 clients",
        )
        for found in result.latencies
    ]
    p50_s, p95_s = np.quantile(result.searchable_s, [0.5, 0.95])
    waits = f"p50 {p50_s:.2f} s, p95 {p95_s:.2f} s"
    return [*rows, Row("from commit to searchable", waits, "20 uploads; goal: p95 below 1 s")]


def _some_files(data: Path, folder: Path) -> Path:
    files = data / "audio" / "esc50"
    if not files.is_dir():
        files = folder / "scenes"
        _make_scenes(files, 600)
    return files


def machine() -> str:
    """Describe what the figures were measured on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def table(title: str, rows: Sequence[Row]) -> str:
    """Lay rows out as a Markdown table."""
    lines = [f"## {title}", "", "| what | figure | beside it |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.value} | {row.beside} |" for row in rows]
    return "\n".join(lines) + "\n"


def sections(path: Path) -> dict[str, str]:
    """Return the tables of an earlier run by their titles: what is not run again stays."""
    if not path.is_file():
        return {}
    _, *parts = path.read_text(encoding="utf-8").split("\n## ")
    return {f"## {part.split(chr(10), 1)[0]}": f"## {part.rstrip()}\n" for part in parts}


def main() -> None:
    """Run the chosen benchmarks and put their tables into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = ("decode", "features", "encode", "ingest", "search", "brokers", "workers", "service")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    dimension = CompactEncoder.load().spec.dimension
    benchmarks: dict[str, Callable[[], list[Row]]] = {
        "decode": decode_rows,
        "features": feature_rows,
        "encode": encode_rows,
        "ingest": lambda: ingest_rows(load_settings().data),
        "search": lambda: search_rows(options.sizes, dimension),
        "brokers": broker_rows,
        "workers": lambda: worker_rows(load_settings().data),
        "service": lambda: service_rows(load_settings().data),
    }
    parts = [
        f"# Benchmarks\n\nWritten by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.\n"
    ]
    for name in options.only:
        gc.collect()
        parts.append(table(name.capitalize(), benchmarks[name]()))
        sys.stdout.write(parts[-1] + "\n")
        sys.stdout.flush()
    keep = sections(options.out)
    keep |= {part.split("\n", 1)[0]: part for part in parts[1:]}
    titles = [f"## {name.capitalize()}" for name in names]
    # What others wrote (watching) follows as it is.
    titles += [title for title in keep if title not in titles]
    ordered = [keep[title] for title in titles if title in keep]
    options.out.write_text("\n".join([parts[0], *ordered]), encoding="utf-8")


if __name__ == "__main__":
    main()
