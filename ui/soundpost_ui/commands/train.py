"""`soundpost train`: a second stage for the search, from your own captioned recordings."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundpost.config import Settings, load_settings
from soundpost.errors import ManifestError
from soundpost_ui import terminal
from soundpost_ui.progress import showing_share

if TYPE_CHECKING:
    from soundpost.evaluation.held_out import Figures
    from soundpost.models.encoder import AudioTextEncoder
    from soundpost.models.retrieval_set import RetrievalSet
    from soundpost.training.captioned import HeardClips
    from soundpost.training.manifest import Clip, Manifest

_SHOWN = 10
Steps = Annotated[int | None, typer.Option(min=1, show_default=False)]

train = typer.Typer(
    name="train", help="Train on your own captioned recordings.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(train)


@train.command("diffatr")
def diffatr_command(
    data: Annotated[
        Path,
        typer.Option(help="Captions: the csv of AudioCaps or Clotho, or one of path,caption."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the reranker; a stopped run goes on in it.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the audio files; default: that of the csv.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="'compact', or a CLAP checkpoint; default: SOUNDPOST_ENCODER."),
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Share of the recordings to measure on; as many to choose by.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Another number splits and trains otherwise.")] = 0,
    contrastive_steps: Steps = None,
    joint_steps: Steps = None,
    distil_steps: Steps = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Texts a step.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew where the folder holds another training.")
    ] = False,
) -> None:
    """Train the second stage of the search for an encoder, and measure it on what was held out."""
    wish = Wish(data, audio, out, held_out, seed, force)
    settings = load_settings()
    if encoder is not None:
        settings = settings.model_copy(update={"encoder": encoder})
    steps = {
        "contrastive_steps": contrastive_steps,
        "joint_steps": joint_steps,
        "distil_steps": distil_steps,
        "batch": batch,
    }
    run_training(settings, wish, {name: n for name, n in steps.items() if n is not None})


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    data: Path
    audio: Path | None
    out: Path
    held_out: float
    seed: int
    force: bool


def run_training(settings: Settings, wish: Wish, given: Mapping[str, int]) -> None:
    """Read, embed, train, measure, and say how to use it; given: options that are not the usual."""
    # First of all, so that a bare install says what is missing.
    from soundpost.models.registry import load_encoder, resolve_device
    from soundpost.training.diffatr import DiffAtrOptions, train_diffatr
    from soundpost.training.manifest import split_clips
    from soundpost.training.model_card import Facts, begin_training, write_model_card

    manifest = _read(wish)
    split = split_clips(manifest.clips, wish.seed, wish.held_out, wish.held_out)
    encoder = load_encoder(settings)
    device = resolve_device(settings.device)
    options = DiffAtrOptions(encoder=encoder.spec, seed=wish.seed, device=device)
    options = replace(options, **dict(given))  # type: ignore[arg-type]  # checked by the options
    facts = Facts.of(manifest, split, wish.held_out, options)
    begin_training(wish.out, facts, anew=wish.force)
    heard = _hear(encoder, manifest, wish.out)
    parts = {name: _part(name, heard, clips, encoder) for name, clips in vars(split).items()}
    counts = {name: len(part.clips) for name, part in parts.items()}
    terminal.say(
        f"{counts['train']:,} clips to train with, {counts['develop']:,} to choose by,"
        f" {counts['held_out']:,} held out"
    )
    train_diffatr(parts["train"].data, parts["develop"].data, options, wish.out)
    figures = _measure(wish.out, encoder, parts["held_out"])
    write_model_card(wish.out, facts, counts, _markdown(figures))
    _print(figures)
    _say_how(settings, wish.out, figures)


def _read(wish: Wish) -> Manifest:
    """Read the captions and say what is in them; every line that cannot be used is named."""
    from soundpost.training.manifest import read_manifest

    manifest = read_manifest(wish.data, wish.audio)
    for fault in manifest.faults[:_SHOWN]:
        terminal.print_error(fault)
    if manifest.faults:
        lines = terminal.plural(len(manifest.faults), "line")
        raise ManifestError(wish.data, f"{lines} cannot be used")
    if not manifest.clips:
        first = f"; the first is {manifest.missing[0].wanted}" if manifest.missing else ""
        folder = wish.audio or wish.data.parent
        raise ManifestError(
            wish.data, f"none of its {len(manifest.missing):,} files is in {folder}{first}"
        )
    clips = terminal.plural(len(manifest.clips), "clip")
    captions = terminal.plural(manifest.captions, "caption")
    terminal.say(f"{wish.data.name}: {manifest.kind}, {clips} with {captions}")
    return manifest


def _hear(encoder: AudioTextEncoder, manifest: Manifest, out: Path) -> HeardClips:
    """Embed the audio, and say what was left out."""
    from soundpost.training.captioned import embed_clips

    spec = encoder.spec
    terminal.say(f"encoder: {spec.name}, revision {spec.revision[:12]}, {spec.dimension} wide")
    with showing_share("files embedded") as report:
        heard = embed_clips(encoder, manifest.clips, out / "sounds", report)
    _tell_left_out(manifest, heard, out / "left-out.csv")
    if heard.shortened:
        shortened = terminal.plural(heard.shortened, "clip")
        terminal.say(f"{shortened} longer than 30 s: only the first 30 s were heard")
    return heard


def _tell_left_out(manifest: Manifest, heard: HeardClips, path: Path) -> None:
    """Count what is missing or cannot be heard, show the first, and list all in a file."""
    rows = [(gone.wanted, "file-missing", f"line {gone.line}") for gone in manifest.missing]
    rows += [(str(bad.path), bad.error.code, str(bad.error)) for bad in heard.left_out]
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([("file", "code", "detail"), *rows])
    missing = terminal.plural(len(manifest.missing), "file is", "files are")
    terminal.say(f"{missing} missing, {len(heard.left_out):,} cannot be heard; listed in {path}")
    for name, code, detail in rows[:_SHOWN]:
        terminal.say(f"  {terminal.printable(name)} [{code}] {terminal.printable(detail)}")


@dataclass(frozen=True)
class Part:
    """A part of the split, as far as it could be heard."""

    clips: tuple[Clip, ...]
    data: RetrievalSet


def _part(
    name: str, heard: HeardClips, wanted: tuple[Clip, ...], encoder: AudioTextEncoder
) -> Part:
    from soundpost.training.captioned import captioned_set, select

    clips, sounds = select(heard, wanted)
    if not clips:
        raise ManifestError(None, f"no clip of the part {name} can be heard")
    return Part(clips, captioned_set(clips, sounds, encoder))


def _measure(out: Path, encoder: AudioTextEncoder, part: Part) -> tuple[Figures, ...]:
    from soundpost.evaluation.held_out import measure_held_out
    from soundpost.models.diffatr import DiffAtrReranker

    reranker = DiffAtrReranker.load(out, encoder)
    return measure_held_out(reranker, part.data, [clip.origin for clip in part.clips])


# --- how it is shown --------------------------------------------------------------------------


def _rows(figures: Figures) -> list[tuple[str, ...]]:
    return [
        ("similarity alone", *(f"{100 * value.mean:.1f}" for value in figures.alone)),
        ("reranked", *(f"{100 * value.mean:.1f}" for value in figures.reranked)),
        (
            "gain",
            *(
                f"{100 * g.mean:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]"
                for g in figures.gains
            ),
        ),
    ]


def _title(figures: Figures) -> str:
    return (
        f"{figures.direction}: {figures.queries:,} queries over {figures.candidates:,},"
        " in %, with 95 % intervals over recordings"
    )


def _print(all_figures: tuple[Figures, ...]) -> None:
    from soundpost.evaluation.held_out import MEASURES

    for figures in all_figures:
        terminal.say(f"\n{_title(figures)}")
        terminal.print_rows(("", *MEASURES), _rows(figures))


def _markdown(all_figures: tuple[Figures, ...]) -> list[str]:
    from soundpost.evaluation.held_out import MEASURES

    lines = []
    for figures in all_figures:
        cells = [("", *MEASURES), ("---",) * (1 + len(MEASURES)), *_rows(figures)]
        lines += [_title(figures), "", *(f"| {' | '.join(row)} |" for row in cells), ""]
    return lines[:-1]


def _say_how(settings: Settings, out: Path, figures: tuple[Figures, ...]) -> None:
    """Say which settings use it, or that it is no use."""
    if figures[0].gains[0].mean <= 0:
        terminal.say("\nOn what was held out it does not put more first than similarity alone.")
    terminal.say(f"\nThe reranker is in {out}. To search with it:")
    terminal.say(f"  export SOUNDPOST_ENCODER={shlex.quote(settings.encoder)}")
    terminal.say(f"  export SOUNDPOST_RERANKER={shlex.quote(str(out.resolve()))}")
