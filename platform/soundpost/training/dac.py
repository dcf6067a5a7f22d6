"""Train DAC (arXiv 2409.09401) and the autoregressive twin that it is compared with.

Four phases, all on the same captions. latents: the text space, a masked autoencoder of captions;
its lower half is frozen afterwards. twin: the next word, by cross-entropy. Then the twin captions
the sounds of the training set, and DAC learns mostly from those captions (`taught`), the rest from
the captions as they are, told apart by a style: many wordings are true of one sound, and words that are written all
at once mix them, unless each sound has one wording (sequence-level distillation, arXiv 1606.07947,
as non-autoregressive translation uses it, arXiv 1711.02281). DAC also begins with the twin's reader
and attention: hearing is learnt once. dac: x_0 by mean squared error over the places that count
(the valid-token loss), and the words by cross-entropy through the decoder.

Half of the steps are self-conditioned, and half of those on DAC's own way: the first prediction is
made from pure noise and noised again, as sampling does. Every phase is seeded by step, and saved: a
run that was stopped goes on where it was, to the same weights.

Run as: python -m soundpost.training.dac --captions FOLDER... --out runs/explain/dac
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from soundpost.config import load_settings
from soundpost.errors import InvalidValueError
from soundpost.models.caption_condition import Style, conditions
from soundpost.models.caption_twin import TwinConfig, TwinModel, TwinSampling, TwinWriter, twin_of
from soundpost.models.dac import DacConfig, DacDimensions, DacModel, text_latents
from soundpost.models.diffusion import seed_of
from soundpost.models.pretrained import quietly
from soundpost.models.text_latents import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    CaptionVocabulary,
    id_tensor,
    words_of,
)
from soundpost.training.caption_batches import CaptionBatch, CaptionBatches, Reworded, told_ids
from soundpost.training.caption_data import CaptionSource, load_captions
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint

_WARM_UP_STEPS = 100
_REPORT_STEPS = 100
_SAVE_STEPS = 100
_FITTED_TO = 4_096
_TEACHING_BATCH = 32
_STEPS = ("latent_steps", "twin_steps", "dac_steps")
_TAUGHT_NUCLEUS = 0.7

Loss = Callable[[np.random.Generator, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class CaptionOptions:
    """How to train.

    Steps of the phases; batch: captions a step; rate: the learning rate at its height. from_twin:
    whether DAC begins with what the twin has learnt of hearing. texts: the share of batches that are
    texts alone. taught: the share of DAC's that the twin worded; taught_texts: how many texts of a
    source it words; taught_draws: how many other wordings it draws of each sound. noise: the
    deviation, in each dimension, of what is added to the tokens of sounds. dropped: how often DAC
    hears nothing. last: how often the step is the noisiest, where sampling begins; calm: how often it
    then begins without noise. words: weight of the cross-entropy. masked: share of the words that the
    text space has to restore. half: in bfloat16, where that is faster.
    """

    latent_steps: int = 1_500
    twin_steps: int = 3_000
    dac_steps: int = 3_000
    batch: int = 64
    rate: float = 1e-3
    from_twin: bool = True
    texts: float = 0.4
    taught: float = 0.85
    taught_texts: int = 6_000
    taught_draws: int = 3
    noise: float = 0.02
    dropped: float = 0.1
    self_conditioned: float = 0.5
    last: float = 0.6
    calm: float = 0.4
    words: float = 1.0
    masked: float = 0.15
    lengths: str = "predicted"
    vocabulary: int = 3_500
    seed: int = 0
    half: bool = False
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One part of the recipe: a name, its steps, its loss, and what it trains."""

    name: str
    steps: int
    loss: Loss
    model: nn.Module
    rate: float


def train_twin(sources: Sequence[CaptionSource], options: CaptionOptions, out: Path) -> Path:
    """Train the twin, or go on training it, and save it in `out`/twin. Returns that folder."""
    vocabulary = vocabulary_of(sources, options, out)
    torch.manual_seed(options.seed)
    shape = twin_of(dimensions_of(sources, vocabulary, options))
    model = TwinModel(TwinConfig(asdict(shape)))
    batches = CaptionBatches(_shared(sources, options), vocabulary, shape.length, options.noise)
    model.reader.mean.copy_(batches.mean(np.random.default_rng(options.seed), _FITTED_TO // 8))

    def loss(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        return {"words": twin_loss(model, batches.draw(rng, options.batch))}

    phase = Phase("twin", options.twin_steps, loss, model, options.rate)
    run_phase(phase, options, out / "twin.checkpoint.safetensors")
    return save_captioner(model, vocabulary, out / "twin")


def twin_loss(model: TwinModel, batch: CaptionBatch) -> Tensor:
    """Return the cross-entropy of each next word, and of the end."""
    size = int(batch.lengths.max()) + 1
    begin = torch.full((len(batch.ids), 1), BEGIN)
    given = torch.cat([begin, batch.ids], dim=1)[:, :size]
    wanted = functional.pad(batch.ids, (0, 1), value=PAD)[:, :size].clone()
    wanted[torch.arange(len(wanted)), batch.lengths] = END
    logits = model(given, model.reader(batch.sounds))
    places = torch.arange(size) <= batch.lengths[:, None]
    return functional.cross_entropy(logits[places].float(), wanted[places])


def train_dac(
    sources: Sequence[CaptionSource], options: CaptionOptions, out: Path, twin: Path | None = None
) -> Path:
    """Train DAC, or go on training it, and save it in `out`/dac. Returns that folder.

    twin: the folder of the trained twin that words a part of the captions; None needs `taught` 0.
    """
    vocabulary = vocabulary_of(sources, options, out)
    shape = dimensions_of(sources, vocabulary, options)
    torch.manual_seed(options.seed + 1)
    model = DacModel(DacConfig(asdict(shape), options.lengths))
    model.latents.load_state_dict(_latents(sources, vocabulary, shape, options, out))
    for part in (model.latents.words, model.latents.positions, model.latents.lower):
        part.requires_grad_(False)
    if twin is not None and options.from_twin:
        begin_as_twin(model, TwinWriter.load(twin).model)
    taught = _taught_sources(sources, options, out, twin)
    batches = CaptionBatches(
        _shared(sources, options, 1.0 - options.taught) + _shared(taught, options, options.taught),
        vocabulary,
        shape.length,
        options.noise,
    )
    if twin is None or not options.from_twin:
        model.reader.mean.copy_(batches.mean(np.random.default_rng(options.seed), _FITTED_TO // 8))

    def loss(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        return dac_loss(model, batches.draw(rng, options.batch), options, generator)

    phase = Phase("dac", options.dac_steps, loss, model, options.rate)
    run_phase(phase, options, out / "dac.checkpoint.safetensors")
    return save_captioner(model, vocabulary, out / "dac")


def begin_as_twin(model: DacModel, twin: TwinModel) -> None:
    """Let DAC hear as its twin does from the start: the reader, and attention in each block."""
    model.reader.load_state_dict(twin.reader.state_dict())
    known = twin.blocks.state_dict()
    kept = {name: known[name] for name in known if ".own" in name or ".sound" in name}
    model.denoiser.blocks.load_state_dict(kept, strict=False)


def dac_loss(
    model: DacModel, batch: CaptionBatch, options: CaptionOptions, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the losses of a batch: x_0 at the places that count, its words, and the length."""
    count, last = len(batch.ids), model.config.shape.steps - 1
    mask, told = model.canvas(batch.lengths)
    ids = batch.ids[:, : mask.shape[1]]
    model.latents.lower.eval()
    with torch.no_grad():
        x_0 = model.latents.encode(ids, mask).float() * mask[..., None]
    draws = torch.rand(5, count, generator=generator)
    steps = torch.randint(last + 1, (count,), generator=generator)
    steps = torch.where(draws[0] < options.last, last, steps)
    dropped = draws[1] < options.dropped
    memory = model.reader(batch.sounds, dropped)
    sound = model.denoiser.keep(memory)
    conditioned = draws[2] < options.self_conditioned
    # On its own way DAC never sees the truth: from pure noise to a guess, and from there on.
    own = conditioned & (draws[3] < 0.5)
    noise = torch.randn(x_0.shape, generator=generator)
    # The likeliest caption begins at the middle of all noise; only there does that give nothing away.
    calm = (draws[4] < options.calm) & (own | (steps == last))
    noise = torch.where(_rows(calm), 0.0, noise)
    x = torch.where(_rows(calm), 0.0, model.schedule.add_noise(x_0, noise, steps))
    guess = torch.zeros_like(x_0)
    if conditioned.any():
        first = torch.where(own, last, steps)
        with torch.no_grad():
            start = model.schedule.add_noise(x_0, noise, first)
            start = torch.where(_rows(calm), 0.0, start)
            made = model.denoiser(start, guess, first, told, sound).float()
        guess = torch.where(_rows(conditioned), made, guess)
        x = torch.where(_rows(own), model.schedule.add_noise(made, noise, steps), x)
    predicted = model.denoiser(x, guess, steps, told, sound)
    logits = model.latents.decode(predicted, mask)
    return {
        **_distances(predicted, x_0, mask, batch.lengths),
        "words": options.words * functional.cross_entropy(logits.float(), ids[mask]),
        **_length_loss(model, memory.states[:, 0], batch.lengths, dropped),
    }


def _rows(chosen: Tensor) -> Tensor:
    """Let a choice of rows [B] apply to latents [B, L, W]."""
    return chosen[:, None, None]


def _distances(x: Tensor, x_0: Tensor, mask: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Return the squared error over the canvas and, where padding is a part of it, over the words."""
    squared = (x.float() - x_0).square().mean(dim=-1)
    losses = {"latents": (squared * mask).sum() / mask.sum()}
    valid = torch.arange(mask.shape[1]) < lengths[:, None]
    if bool((valid != mask).any()):
        losses["valid"] = (squared * valid).sum() / valid.sum()
    return losses


def _length_loss(
    model: DacModel, whole: Tensor, lengths: Tensor, dropped: Tensor
) -> dict[str, Tensor]:
    if not model.predicts_lengths or bool(dropped.all()):
        return {}
    logits = model.length_head(whole)[~dropped].float()
    return {"length": 0.1 * functional.cross_entropy(logits, lengths[~dropped])}


def _latents(
    sources: Sequence[CaptionSource],
    vocabulary: CaptionVocabulary,
    shape: DacDimensions,
    options: CaptionOptions,
    out: Path,
) -> dict[str, Tensor]:
    """Train the text space, or read it where it was already trained; return its weights."""
    kept = out / "latents.safetensors"
    if kept.is_file():
        return load_file(kept)
    torch.manual_seed(options.seed + 2)
    latents = text_latents(shape)
    told = told_ids(sources, vocabulary, shape.length)

    def drawn(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        rows = rng.integers(len(told), size=size)
        ids, lengths = id_tensor([told[row] for row in rows], shape.length)
        if options.lengths == "padded":
            return ids, torch.ones_like(ids, dtype=torch.bool)
        size = int(lengths.max())
        return ids[:, :size], torch.arange(size) < lengths[:, None]

    def loss(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        ids, mask = drawn(rng, 2 * options.batch)
        hidden = torch.rand(ids.shape, generator=generator) < options.masked
        states = latents.raw(torch.where(hidden & mask, UNKNOWN, ids), mask)
        strength = torch.rand(len(ids), 1, 1, generator=generator)
        states = states + strength * torch.randn(states.shape, generator=generator)
        logits = latents.read(states, mask)
        return {"words": functional.cross_entropy(logits.float(), ids[mask])}

    phase = Phase("latents", options.latent_steps, loss, latents, options.rate)
    run_phase(phase, options, out / "latents.checkpoint.safetensors")
    latents.eval()
    with torch.no_grad():
        ids, mask = drawn(np.random.default_rng(options.seed), _FITTED_TO)
        states = latents.raw(ids, mask)[mask]
    latents.mean.copy_(states.mean(dim=0))
    latents.deviation.copy_(states.std(dim=0).clamp(min=1e-3))
    weights = {name: value.contiguous() for name, value in latents.state_dict().items()}
    save_file(weights, kept)
    return weights


def _taught_sources(
    sources: Sequence[CaptionSource], options: CaptionOptions, out: Path, twin: Path | None
) -> list[CaptionSource]:
    """Let the twin word the sources; what it said is kept."""
    if not options.taught:
        return []
    if twin is None:
        raise InvalidValueError(f"a share of {options.taught} taught", "there is no twin to teach")
    writer = TwinWriter.load(twin, TwinSampling(_TAUGHT_NUCLEUS))
    found: list[CaptionSource] = []
    for number, source in enumerate(sources):
        kept = out / f"taught-{number}-{writer.revision}.json"
        if not kept.is_file():
            worded = teach(writer, source, options, number)
            kept.write_text(json.dumps(worded), encoding="utf-8")
        captions = json.loads(kept.read_text(encoding="utf-8"))
        found.append(Reworded(source, tuple(map(tuple, captions))))
    return found


def teach(
    writer: TwinWriter, source: CaptionSource, options: CaptionOptions, number: int
) -> list[list[str]]:
    """Return the twin's captions of the first sounds of a source.

    Of each sound: the likeliest, as often as all others, and drawn ones of other lengths, at most one
    of a length. So sound and length together leave little to choose.
    """
    people = source.style is Style.PEOPLE
    count = min(len(source.captions), options.taught_texts) if people else len(source.captions)
    rng = np.random.default_rng([options.seed, number])
    worded: list[list[str]] = []
    for start in track(range(0, count, _TEACHING_BATCH), "The twin captions"):
        rows = range(start, min(start + _TEACHING_BATCH, count))
        sounds = conditions([source.tokens(row, rng) for row in rows], [source.style] * len(rows))
        likeliest = writer.write(sounds, [0] * len(rows))
        seeds = [4 * row + place for row in rows for place in range(options.taught_draws)]
        drawn = iter(
            writer.write(sounds.repeated(options.taught_draws), seeds, diverse=True)
            if seeds
            else []
        )
        for text in likeliest:
            by_length = {len(words_of(text)): text}
            for other in (next(drawn) for _ in range(options.taught_draws)):
                by_length.setdefault(len(words_of(other)), other)
            others = list(by_length.values())[1:]
            worded.append([text] * max(1, len(others)) + others)
    return worded


def run_phase(phase: Phase, options: CaptionOptions, checkpoint: Path) -> None:
    """Run the steps that are left."""
    trained = [p for p in phase.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.01)
    done = load_checkpoint(checkpoint, phase.model, optimizer)
    phase.model.train()
    for step in track(range(done, phase.steps), phase.name):
        _set_rate(optimizer, phase.rate, step, phase.steps)
        seed = int(np.random.SeedSequence([options.seed, seed_of(phase.name)]).generate_state(1)[0])
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        # Dropout draws from torch's own generator.
        torch.manual_seed(int(rng.integers(2**62)))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.half):
            parts = phase.loss(rng, generator)
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        _report(phase, step, parts)
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 == phase.steps:
            save_checkpoint(checkpoint, phase.model, optimizer, step + 1)
    phase.model.eval()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    warm = min(1.0, (step + 1) / min(_WARM_UP_STEPS, 1 + steps // 10))
    for group in optimizer.param_groups:
        group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))


def _report(phase: Phase, step: int, parts: dict[str, Tensor]) -> None:
    if (step + 1) % _REPORT_STEPS:
        return
    values = " ".join(f"{name} {float(value.detach()):.3f}" for name, value in parts.items())
    sys.stdout.write(f"{phase.name} {step + 1}: {values}\n")
    sys.stdout.flush()


def _shared(
    sources: Sequence[CaptionSource], options: CaptionOptions, total: float = 1.0
) -> list[tuple[CaptionSource, float]]:
    """Give texts and recordings their shares, equal ones within each."""
    people = sum(source.style in (Style.PEOPLE, Style.TAUGHT_PEOPLE) for source in sources)
    heard = len(sources) - people
    shares = []
    for source in sources:
        of_people = source.style in (Style.PEOPLE, Style.TAUGHT_PEOPLE)
        part = options.texts if of_people else 1.0 - options.texts
        whole = part if people and heard else 1.0
        shares.append((source, total * whole / (people if of_people else heard)))
    return [(source, share) for source, share in shares if share > 0]


def vocabulary_of(
    sources: Sequence[CaptionSource], options: CaptionOptions, out: Path
) -> CaptionVocabulary:
    """Return the most frequent words, and all that captions of recordings use.

    What a run began with stays its vocabulary, whatever sources come later.
    """
    if (out / "tokenizer.json").is_file():
        return CaptionVocabulary.load(out)
    told: dict[bool, list[str]] = {True: [], False: []}
    for source in sources:
        told[source.style is Style.PEOPLE] += [text for row in source.captions for text in row]
    vocabulary = CaptionVocabulary.of(told[True], options.vocabulary, told[False])
    out.mkdir(parents=True, exist_ok=True)
    vocabulary.save(out)
    return vocabulary


def dimensions_of(
    sources: Sequence[CaptionSource], vocabulary: CaptionVocabulary, options: CaptionOptions
) -> DacDimensions:
    """Return the dimensions for the encoder of the sources and a vocabulary."""
    dimension = sources[0].tokens(0, np.random.default_rng(0)).shape[1]
    sizes = {"dimension": dimension, **options.sizes, "vocabulary": len(vocabulary)}
    return DacDimensions(**sizes)


def save_captioner(model: DacModel | TwinModel, vocabulary: CaptionVocabulary, out: Path) -> Path:
    """Write weights in half precision, the config and the words; return the folder."""
    state = {name: value.half() for name, value in model.state_dict().items()}
    with quietly():
        model.save_pretrained(out, state_dict=state)
    vocabulary.save(out)
    return out


def main() -> None:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=Path, nargs="+", required=True, help="prepared folders")
    parser.add_argument("--out", type=Path, default=Path("runs/explain/dac"))
    parser.add_argument("--twin", action="store_true", help="train only the twin")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16")
    parser.add_argument("--ship", type=Path, help="write the trained DAC and its card here, too")
    for name in (*_STEPS, "batch", "seed", "taught_texts", "taught_draws"):
        kind = getattr(CaptionOptions, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=kind)
    chosen = vars(parser.parse_args())
    folders, out, ship = chosen.pop("captions"), chosen.pop("out"), chosen.pop("ship")
    only_twin = chosen.pop("twin")
    options = CaptionOptions(**chosen)
    torch.set_flush_denormal(True)
    threads = load_settings().threads
    if threads:
        torch.set_num_threads(threads)
    sources: list[CaptionSource] = [
        load_captions(path)
        for folder in folders
        for name in ("heard", "texts")
        if (path := folder / f"{name}.npz").is_file()
    ]
    twin = train_twin(sources, options, out)
    if only_twin:
        return
    folder = train_dac(sources, options, out, twin)
    if ship:
        ship_captioner(folder, ship, sources, options)


def ship_captioner(
    folder: Path, ship: Path, sources: Sequence[CaptionSource], options: CaptionOptions
) -> None:
    """Copy a trained folder and write its card."""
    ship.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (ship / name).write_bytes((folder / name).read_bytes())
    counts = {
        style: sum(len(source.captions) for source in sources if source.style is style)
        for style in (Style.RECORDS, Style.PEOPLE)
    }
    lines = [
        "# DAC: captions by diffusion",
        "",
        "Writes what is heard in a window of up to 16 s, all words at once (DAC, arXiv 2409.09401).",
        "",
        f"- Trained on {counts[Style.RECORDS]:,} recordings: clips of ESC-50 (CC BY-NC 3.0) and",
        "  UrbanSound8K (CC BY-NC 3.0), alone and composed, captioned from their labels.",
        f"- And on {counts[Style.PEOPLE]:,} texts without audio: captions of AudioCaps, Clotho and",
        "  SoundBible, for academic and non-commercial use.",
        f"- {options.dac_steps:,} steps of {options.batch} captions, {options.taught:.0%} of them in the words of",
        f"  its autoregressive twin ({options.twin_steps:,} steps); seed {options.seed}.",
        "- It begins with the twin's reader and attention; the twin is not shipped.",
        "- Reads frames of the compact encoder; it knows the sounds that the encoder knows, and English.",
        "- Figures, and what it does worse: docs/captions.md and docs/benchmarks.md.",
        "",
    ]
    (ship / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
