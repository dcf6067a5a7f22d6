"""Train ADIFF (arXiv 2502.04476), the network that says what differs between two recordings.

Stage 1 is to take an encoder and a language model (`training.language`, or any of transformers by
`--language`). Stage 2 trains everything between them, the language model frozen; stage 3 trains
all, the language model at a lower rate. The encoder stays as it is: its vectors are on disk. Run as:

python -m soundpost.training.adiff --stage 2 --pairs runs/explain/pairs/train --develop runs/explain/pairs/dev
python -m soundpost.training.adiff --stage 3 --pairs runs/explain/pairs/train --develop runs/explain/pairs/dev
python -m soundpost.training.adiff --ship platform/soundpost/models/weights/adiff

Every step is seeded by its number: a run that was stopped goes on where it was, to the same weights.

[open] in the paper, chosen here: AdamW, rates, steps, the share of position captioning, all in
AdiffOptions. Before stage 2 the projections are taught by heads (`adiff_projection`), and the language
model learns to read a prefix of words (`adiff_words`). Beside the loss of the answer, V is drawn
towards these words, and linear heads say from V which events are in which audio, what was changed and
of what: they make learning faster, and are not shipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from soundpost.config import load_settings
from soundpost.errors import InvalidValueError, ModelNotFoundError
from soundpost.explain.audio_vector import learnt_columns
from soundpost.models.adiff import Adiff, AdiffDimensions, new_adiff
from soundpost.models.adiff_writer import read_adiff
from soundpost.models.allocator import keep_freed_memory
from soundpost.models.encoder import AudioTextEncoder
from soundpost.models.language_model import (
    LanguageModel,
    LanguageTokenizer,
    load_language_model,
    read_tokenizer,
    save_language_model,
)
from soundpost.training.adiff_batches import (
    KINDS,
    AdiffBatches,
    Batch,
    CaptionedRows,
    Shares,
    cut_to,
)
from soundpost.training.adiff_card import write_card
from soundpost.training.adiff_projection import (
    EDIT_KINDS,
    EVENT_KEYS,
    Disturbance,
    ProjectionOptions,
    teach_projections,
)
from soundpost.training.adiff_rows import adiff_rows
from soundpost.training.adiff_words import distance
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.language import TrainedParameters, keep_options, set_rate, take_step
from soundpost.training.pair_store import join, load_encoder, load_pairs, read_config
from soundpost.training.pair_texts import PROMPTS

_WARM_UP_STEPS = 50
_REPORT_STEPS = 25
_SAVE_STEPS = 100
_DEVELOP_STEPS = 250
_DEVELOP_BATCHES = 3
STAGES = (2, 3)
# The logit of what is in about one of twenty.
_RARE = -3.0


@dataclass(frozen=True)
class AdiffOptions:
    """How to train one stage.

    batch: pairs a step of tier 1 (fewer of the longer tiers). rate: of the new parts at its height;
    language_rate: of the language model, in stage 3. auxiliary: the weight of the heads' loss; words:
    of V's distance to the words that it is to say. noise, hidden: how audio vectors are disturbed
    (`Disturbance`). projection_steps: of teaching the projections before stage 2; reading_steps,
    reading_rate: of teaching the language model to read. half: calculate in bfloat16.
    """

    stage: int = 2
    steps: int = 1000
    batch: int = 64
    rate: float = 1e-3
    language_rate: float = 4e-4
    shares: Shares = field(default_factory=Shares)
    auxiliary: float = 0.1
    words: float = 0.5
    noise: float = 0.1
    hidden: float = 0.3
    projection_steps: int = 3000
    reading_steps: int = 500
    reading_rate: float = 1e-3
    seed: int = 0
    half: bool = True
    device: str = "cpu"


class AuxiliaryHeads(nn.Module):
    """Which events are in which audio, what was changed and of what, from V [B, P, W]."""

    def __init__(self, shape: AdiffDimensions) -> None:
        super().__init__()
        self.tokens, self.second = shape.audio_tokens, shape.audio_tokens + int(shape.separator)
        # What was changed is read where both were compared, if there is such a place.
        after = self.second + self.tokens
        there = slice(after, after + shape.contrast_tokens)
        self.compared = there if shape.contrast_tokens else slice(None)
        self.norm = nn.LayerNorm(shape.width)
        self.heard = nn.Linear(shape.width, len(EVENT_KEYS))
        self.edits = nn.Linear(shape.width, len(EDIT_KINDS) + len(EVENT_KEYS))
        for head in (self.heard, self.edits):
            # Few of them are there: let that not be the first thing to learn.
            nn.init.constant_(head.bias, _RARE)

    def forward(self, prefix: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch; 0 where nothing is known of it."""
        mean = self.norm(prefix[:, self.compared].mean(1))
        first = self.norm(prefix[:, : self.tokens].mean(1))
        second = self.norm(prefix[:, self.second : self.second + self.tokens].mean(1))
        return (
            _binary(self.heard(first), batch.heard_1)
            + _binary(self.heard(second), batch.heard_2)
            + _binary(self.edits(mean), batch.edits)
        )


def _binary(logits: Tensor, marks: Tensor) -> Tensor:
    """Return the cross-entropy, summed over labels [B, C], a row that is known."""
    known = marks >= 0
    losses = functional.binary_cross_entropy_with_logits(
        logits.float(), marks.clamp(min=0), reduction="none"
    )
    return (losses * known).sum() / known[:, 0].sum().clamp(min=1)


class Course(nn.Module):
    """What a stage trains: ADIFF and the heads beside it."""

    def __init__(self, adiff: Adiff, heads: AuxiliaryHeads) -> None:
        super().__init__()
        self.adiff, self.heads = adiff, heads

    def forward(self, batch: Batch, auxiliary: float, words: float) -> dict[str, Tensor]:
        """Return the losses of a batch, by name; their sum is to be small."""
        prefix = self.adiff.prefix(batch.first, batch.second, batch.prompts)
        losses = {"answer": self.adiff.loss(prefix, batch.answers, batch.lengths)}
        if auxiliary > 0:
            losses["heads"] = auxiliary * self.heads(prefix, batch)
        if words > 0:
            losses["words"] = words * distance(self.adiff, prefix, batch.words)
        return losses

    def reading(self, batch: Batch) -> Tensor:
        """Return the loss of a batch of pairs whose prefix is the words that it is to say."""
        return self.adiff.loss(self.adiff.words(batch.words), batch.answers, batch.lengths)

    def begin(self, stage: int) -> None:
        """Freeze the language model in stage 2, nothing in stage 3."""
        for parameter in self.adiff.language_model.parameters():
            parameter.requires_grad_(stage == STAGES[1])

    def groups(self, options: AdiffOptions) -> list[dict[str, object]]:
        """Return what is trained at what rate."""
        new = [*self.adiff.new_parts(), self.heads]
        groups: list[dict[str, object]] = [
            {"params": [p for part in new for p in part.parameters()], "lr": options.rate}
        ]
        if options.stage == STAGES[1]:
            language = list(self.adiff.language_model.parameters())
            groups.append({"params": language, "lr": options.language_rate})
        return groups


@dataclass(frozen=True)
class TrainedStage:
    """What a stage left in its folder: the loss a token of each kind of answer, seconds a step."""

    folder: Path
    develop: dict[str, float]
    step_s: float


def begin_course(language: LanguageModel, shape: AdiffDimensions, seed: int) -> Course:
    """Return untrained parts around a language model, as stage 1 leaves it."""
    torch.manual_seed(seed)
    prompts = {str(tier): PROMPTS[tier][0] for tier in KINDS[1:]}
    adiff = new_adiff(shape, language.model, prompts)
    return Course(adiff, AuxiliaryHeads(shape))


def stage_folder(out: Path, stage: int) -> Path:
    """Return where a stage's finished model is."""
    return out / f"stage{stage}"


def continue_course(out: Path) -> tuple[Course, LanguageTokenizer]:
    """Read what stage 2 left. Raises ModelNotFoundError where it is not finished."""
    folder = stage_folder(out, STAGES[0])
    if not (folder / "heads.safetensors").is_file():
        raise ModelNotFoundError(folder, "stage 2 has to be finished first")
    adiff = read_adiff(folder)
    heads = AuxiliaryHeads(adiff.shape)
    heads.load_state_dict(load_file(folder / "heads.safetensors"))
    return Course(adiff, heads), read_tokenizer(folder, folder, adiff.end)


def train_stage(
    course: Course,
    tokenizer: LanguageTokenizer,
    train: AdiffBatches,
    develop: AdiffBatches | None,
    options: AdiffOptions,
    out: Path,
    encoders: Sequence[str] = (),
    learnt: NDArray[np.bool_] | None = None,
) -> TrainedStage:
    """Train a stage, or go on with it, and save the model in half precision in its folder.

    encoders: names and revisions of what made the audio vectors. learnt: the columns [A] of these
    vectors that an encoder learnt on the same clips, hidden now and then. Raises InvalidValueError for
    options that cannot be, OutputExistsError where `out` holds a stage with other options.
    """
    if options.stage not in STAGES:
        raise InvalidValueError(f"stage {options.stage}", "2 or 3")
    facts = {**asdict(options), "device": "", "dimensions": asdict(course.adiff.shape)}
    keep_options(out, f"stage{options.stage}.json", facts)
    if options.stage == STAGES[0]:
        _teach_projections(course, train, options, out, learnt)
        _teach_reading(course, train, options, out)
    course.begin(options.stage)
    course.to(options.device)
    run = _Run(course, train, develop, options, out, learnt)
    step_s = run.go()
    results = run.measure()
    course.to("cpu")
    course.adiff.config.encoders = list(encoders) or course.adiff.config.encoders
    folder = stage_folder(out, options.stage)
    save_language_model(course.adiff, tokenizer, folder)
    save_file(course.heads.state_dict(), folder / "heads.safetensors")
    return TrainedStage(folder, results, step_s)


def _teach_projections(
    course: Course,
    train: AdiffBatches,
    options: AdiffOptions,
    out: Path,
    learnt: NDArray[np.bool_] | None,
) -> None:
    disturb = Disturbance(options.noise, options.hidden, learnt)
    told = ProjectionOptions(steps=options.projection_steps, seed=options.seed)
    teach_projections(course.adiff, train.pairs, disturb, told, out)


def _teach_reading(course: Course, train: AdiffBatches, options: AdiffOptions, out: Path) -> None:
    """Teach the language model to read words in the places of V, or read what was taught before."""
    path = out / f"reading-{options.reading_steps}-{options.seed}.safetensors"
    language = course.adiff.language_model
    if not path.is_file():
        _read_words(course, train, options)
        # Tied weights are one.
        save_file({name: value.clone() for name, value in language.state_dict().items()}, path)
    language.load_state_dict(load_file(path))


def _read_words(course: Course, train: AdiffBatches, options: AdiffOptions) -> None:
    language: nn.Module = course.adiff.language_model
    language.requires_grad_(True).to(options.device).train()
    trained = TrainedParameters(language)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=options.reading_rate, fused=True)
    shares, recent = replace(options.shares, texts=0.0), list[float]()
    for step in track(range(options.reading_steps), "adiff: reading"):
        set_rate(optimizer, step, options.reading_steps, _WARM_UP_STEPS)
        rng = np.random.default_rng([options.seed, 1, step])
        batch = train.draw(rng, shares)
        # A language model may bring dropout along.
        torch.manual_seed(int(rng.integers(2**62)))
        batch = cut_to(batch, room_of(course)).to(options.device)
        with torch.autocast(
            torch.device(options.device).type, torch.bfloat16, enabled=options.half
        ):
            loss = course.reading(batch)
        take_step(loss, optimizer, trained)
        recent = [*recent[1 - _REPORT_STEPS :], float(loss.detach())]
        if (step + 1) % _REPORT_STEPS == 0:
            sys.stdout.write(f"reading, step {step + 1}: {np.mean(recent):.3f}\n")
            sys.stdout.flush()


def room_of(course: Course) -> int:
    """Return how many tokens of an answer fit behind the prefix."""
    positions = getattr(course.adiff.language_model.config, "max_position_embeddings", None)
    return (positions or 10_000) - course.adiff.shape.prefix_tokens


class _Run:
    """The steps of one stage."""

    def __init__(
        self,
        course: Course,
        train: AdiffBatches,
        develop: AdiffBatches | None,
        options: AdiffOptions,
        out: Path,
        learnt: NDArray[np.bool_] | None = None,
    ) -> None:
        self.course, self.train, self.develop, self.options = course, train, develop, options
        self.disturb = Disturbance(options.noise, options.hidden, learnt)
        self.checkpoint = out / f"stage{options.stage}.safetensors"
        self.log = out / f"stage{options.stage}.jsonl"
        self.room = room_of(course)

    def go(self) -> float:
        """Go the steps that are left; return seconds a step."""
        options = self.options
        trained = TrainedParameters(self.course)
        optimizer = torch.optim.AdamW(
            self.course.groups(options), betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        done = load_checkpoint(self.checkpoint, trained, optimizer)
        begun = time.perf_counter()
        recent: list[dict[str, float]] = []
        for step in track(range(done, options.steps), f"adiff: stage {options.stage}"):
            set_rate(optimizer, step, options.steps, _WARM_UP_STEPS)
            recent.append(self._step(step, optimizer, trained))
            if (step + 1) % _SAVE_STEPS == 0 or step + 1 == options.steps:
                save_checkpoint(self.checkpoint, trained, optimizer, step + 1)
            if (step + 1) % _REPORT_STEPS == 0:
                self._report(step + 1, _mean(recent))
                recent.clear()
            if (step + 1) % _DEVELOP_STEPS == 0 and step + 1 < options.steps:
                self._report(step + 1, self.measure())
        return (time.perf_counter() - begun) / max(1, options.steps - done)

    def _step(
        self, step: int, optimizer: torch.optim.Optimizer, trained: TrainedParameters
    ) -> dict[str, float]:
        options = self.options
        rng = np.random.default_rng([options.seed, options.stage, step])
        # The network's dropout draws from torch's own generator.
        torch.manual_seed(int(rng.integers(2**62)))
        self._set_mode()
        batch = self.train.draw(rng, options.shares, self.disturb)
        losses = self._losses(batch)
        take_step(torch.stack(list(losses.values())).sum(), optimizer, trained)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _set_mode(self) -> None:
        self.course.train()
        if self.options.stage == STAGES[0]:
            nn.Module.eval(self.course.adiff.language_model)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        device = self.options.device
        batch = cut_to(batch, self.room).to(device)
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.options.half):
            losses: dict[str, Tensor] = self.course(
                batch, self.options.auxiliary, self.options.words
            )
        return losses

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the loss a token on the development pairs, of each kind of answer."""
        if self.develop is None:
            return {}
        self.course.eval()
        found = {}
        for kind in KINDS:
            rng = np.random.default_rng([0, kind])
            batches = [self.develop.of_pairs(kind, rng) for _ in range(_DEVELOP_BATCHES)]
            losses = [float(self._losses(batch)["answer"]) for batch in batches]
            found[f"develop tier {kind}" if kind else "develop captions"] = float(np.mean(losses))
        return found

    def _report(self, step: int, values: dict[str, float]) -> None:
        told = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        sys.stdout.write(f"stage {self.options.stage}, step {step}: {told}\n")
        sys.stdout.flush()
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in values])) for name in values[0]}


def shipped_shape(audio_width: int, width: int, **changed: Any) -> AdiffDimensions:
    """Return the dimensions of the shipped form over vectors and a language model of these widths."""
    dimensions: dict[str, Any] = {
        "audio_hidden": 512,
        "audio_tokens": 10,
        "prompt_tokens": 16,
        "text_tokens": 10,
        "contrast_tokens": 10,
        "mapper_layers": 2,
        "mapper_heads": 4,
        "cross_layers": 3,
        "cross_heads": 4,
        "dropout": 0.2,
    }
    try:
        return AdiffDimensions(audio_width=audio_width, width=width, **{**dimensions, **changed})
    except TypeError as cause:
        raise InvalidValueError("dimensions", str(cause)) from cause


def read_captions(data: Path, encoder: AudioTextEncoder, cache: Path) -> CaptionedRows:
    """Return the published explanations to train on, their captions embedded, kept in `cache`."""
    rows = adiff_rows(data, "train")
    texts = sorted({text for row in rows for text in (row.caption_1, row.caption_2)})
    path = cache / f"captions-{encoder.spec.revision}-{len(texts)}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        parts = range(0, len(texts), 256)
        embedded = [encoder.embed_text(texts[at : at + 256]) for at in track(parts, "captions")]
        np.save(path, np.concatenate(embedded), allow_pickle=False)
    vectors = np.load(path, allow_pickle=False)
    place = {text: row for row, text in enumerate(texts)}
    first, second = (
        vectors[[place[text] for text in side]]
        for side in ([row.caption_1 for row in rows], [row.caption_2 for row in rows])
    )
    return CaptionedRows(rows, first, second)


def ship(out: Path, folder: Path) -> Path:
    """Copy the last finished stage to a folder, with a card; return the folder.

    Raises ModelNotFoundError where no stage is finished.
    """
    finished = [
        stage for stage in STAGES if (stage_folder(out, stage) / "tokenizer.json").is_file()
    ]
    if not finished:
        raise ModelNotFoundError(out, "no stage is finished")
    source = stage_folder(out, finished[-1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(source / name, folder / name)
    write_card(folder, out, finished)
    return folder


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default, shares = AdiffOptions(), Shares()
    parser.add_argument("--out", type=Path, default=Path("runs/explain/adiff"))
    parser.add_argument("--stage", type=int, choices=STAGES)
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="copy the last stage there")
    parser.add_argument("--pairs", type=Path, nargs="+", default=[], help="folders of pairs")
    parser.add_argument("--develop", type=Path, nargs="+", default=[], help="pairs to measure on")
    parser.add_argument("--language", default="runs/explain/language", help="folder or hub name")
    parser.add_argument("--encoder", default="compact", help="what embeds captions")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument("--rate", type=float, default=default.rate)
    parser.add_argument("--language-rate", type=float, default=default.language_rate)
    parser.add_argument("--captions", type=float, default=shares.captions)
    parser.add_argument("--texts", type=float, help="0.3 in stage 2, 0.1 in stage 3")
    parser.add_argument("--tiers", type=float, nargs=3, default=shares.tiers)
    parser.add_argument("--auxiliary", type=float, default=default.auxiliary)
    parser.add_argument("--noise", type=float, default=default.noise)
    parser.add_argument("--hidden", type=float, default=default.hidden)
    parser.add_argument("--words", type=float, default=default.words)
    parser.add_argument("--projection-steps", type=int, default=default.projection_steps)
    parser.add_argument("--reading-steps", type=int, default=default.reading_steps)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--full-precision", action="store_true", help="float32 instead of bfloat16")
    parser.add_argument("--without-contrast", action="store_true", help="as in the paper")
    parser.add_argument("--without-cross-projection", action="store_true")
    parser.add_argument("--without-separator", action="store_true")
    parser.add_argument("--without-position-captioning", action="store_true")
    parser.add_argument("--size", type=json.loads, default={}, help="dimensions, as JSON")
    return parser.parse_args(arguments)


def options_of(given: argparse.Namespace) -> AdiffOptions:
    """Return the options of a command line."""
    first = given.stage == STAGES[0]
    texts = (0.3 if first else 0.1) if given.texts is None else given.texts
    captions = 0.0 if given.without_position_captioning else given.captions
    return AdiffOptions(
        stage=given.stage,
        steps=given.steps,
        batch=given.batch,
        rate=given.rate,
        language_rate=given.language_rate,
        shares=Shares(captions, tuple(given.tiers), texts),
        auxiliary=given.auxiliary,
        noise=given.noise,
        hidden=given.hidden,
        projection_steps=given.projection_steps,
        reading_steps=given.reading_steps,
        words=given.words,
        seed=given.seed,
        half=not given.full_precision,
        device=given.device,
    )


def _started(given: argparse.Namespace, audio_width: int) -> tuple[Course, LanguageTokenizer]:
    """Return what the stage of a command line begins with."""
    if given.stage != STAGES[0]:
        return continue_course(given.out)
    language = load_language_model(given.language)
    switches: dict[str, Any] = {
        **({"contrast_tokens": 0} if given.without_contrast else {}),
        "separator": not given.without_separator,
        "cross_projection": not given.without_cross_projection,
    }
    shape = shipped_shape(audio_width, language.width, **{**switches, **given.size})
    return begin_course(language, shape, given.seed), language.tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a stage, or go on with it, or ship what was trained."""
    given = _arguments(arguments)
    if given.ship:
        sys.stdout.write(f"{ship(given.out, given.ship)}\n")
        return
    if not given.stage or not given.pairs:
        raise InvalidValueError("no --stage or no --pairs", "both are needed, or --ship")
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    options, pairs = options_of(given), join([load_pairs(folder) for folder in given.pairs])
    course, tokenizer = _started(given, pairs.vectors.shape[1])
    shape = course.adiff.shape
    captioned, encoder = None, load_encoder(given.encoder)
    if options.shares.texts > 0:
        captioned = read_captions(load_settings().data, encoder, given.out)
    learnt = learnt_columns(encoder.spec.dimension, len(encoder.spec.tag_labels))
    train = AdiffBatches(pairs, captioned, tokenizer, shape, options.batch)
    develop = None
    if given.develop:
        apart = join([load_pairs(folder) for folder in given.develop])
        develop = AdiffBatches(apart, None, tokenizer, shape, options.batch)
    encoders = sorted({read_config(folder).encoder for folder in given.pairs})
    done = train_stage(course, tokenizer, train, develop, options, given.out, encoders, learnt)
    told = " ".join(f"{name} {value:.3f}" for name, value in done.develop.items())
    sys.stdout.write(f"{done.folder}: {done.step_s:.2f} s a step {told}\n")


if __name__ == "__main__":
    main()
