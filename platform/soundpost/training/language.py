"""Train the small language model that explanations are written with, and its words.

It reads captions, differences between recordings as published, and reference texts of our own
pairs (`training.pair_texts`), packed into rows with end-of-text between. Half of the time what is
heard in both recordings comes before what is said of them: so it learns to write of what it was
given, which is what ADIFF's prefix needs of it. Run as:
python -m soundpost.training.language --pairs runs/explain/pairs/train --out runs/explain/language
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2LMHeadModel

from soundpost.config import load_settings
from soundpost.errors import InvalidValueError, OutputExistsError
from soundpost.models.allocator import keep_freed_memory
from soundpost.models.language_model import (
    END,
    LanguageModelDimensions,
    LanguageTokenizer,
    build_language_model,
    save_language_model,
)
from soundpost.training.adiff_rows import adiff_rows
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.data import captions, entailments
from soundpost.training.pair_records import PairRecord
from soundpost.training.pair_store import load_pairs
from soundpost.training.pair_texts import PROMPTS, position_caption, reference

__all__ = ["Corpus", "LanguageOptions", "adiff_rows", "corpus", "train_language"]

_WARM_UP_STEPS = 30
_REPORT_STEPS = 50
_SAVE_STEPS = 100
_TOKENIZER_TEXTS = 12_000
_CAPTION_SHARE = 0.15
_CONTEXT_SHARE = 0.5

# A text drawn anew each time.
Draw = Callable[[np.random.Generator], str]


@dataclass(frozen=True)
class LanguageOptions:
    """How to train.

    rows: of as many tokens as the model has positions, a step. shares: how often a text is a
    reference text of a pair, a published explanation, a caption. half: calculate in bfloat16.
    """

    steps: int = 500
    rows: int = 24
    rate: float = 2e-3
    seed: int = 0
    half: bool = True
    device: str = "cpu"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    dimensions: LanguageModelDimensions = field(default_factory=LanguageModelDimensions)


class TrainedParameters(nn.Module):
    """The parameters of modules that are trained, each once, whatever they are tied to."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        for number, module in enumerate(modules):
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    self.register_parameter(f"{number}/{name.replace('.', '/')}", parameter)


class Corpus:
    """Texts to learn the language from, in three kinds that are drawn by their shares."""

    def __init__(self, draws: Sequence[Draw], shares: Sequence[float]) -> None:
        self.draws, self.shares = list(draws), np.array(shares) / sum(shares)

    def draw(self, rng: np.random.Generator) -> str:
        """Draw a text."""
        return self.draws[int(rng.choice(len(self.draws), p=self.shares))](rng)

    def rows(
        self, rng: np.random.Generator, tokenizer: LanguageTokenizer, count: int, length: int
    ) -> Tensor:
        """Return ids [count, length] of texts with end-of-text before, between and after."""
        ids: list[int] = [tokenizer.end]
        while len(ids) < count * length:
            for text in tokenizer.encode_all([self.draw(rng) for _ in range(32)]):
                ids += [*text, tokenizer.end]
        return torch.tensor(ids[: count * length]).view(count, length)


def corpus(data: Path, records: Sequence[PairRecord], shares: Sequence[float]) -> Corpus:
    """Return what there is to read. Raises DataMissingError."""
    rows = adiff_rows(data, "train")
    explained = [row.answer for row in rows]
    explained += [f"{row.caption_1}\n{row.caption_2}\n{row.answer}" for row in rows]
    spoken = captions(data) + entailments(data)

    def referred(rng: np.random.Generator) -> str:
        return reference_text(records, rng)

    return Corpus([referred, _from(explained), _from(spoken)], shares)


def _from(texts: Sequence[str]) -> Draw:
    return lambda rng: texts[int(rng.integers(len(texts)))]


def reference_text(records: Sequence[PairRecord], rng: np.random.Generator) -> str:
    """Draw a record, which audio is the first, and what is said of it, half of the time with more."""
    record = records[int(rng.integers(len(records)))]
    record = record.reversed() if rng.random() < 0.5 else record
    if rng.random() < _CAPTION_SHARE:
        return position_caption(record, int(rng.integers(1, 4)), rng)[1]
    tiers = rng.permutation(3)[: int(rng.integers(1, 3))] + 1
    parts = [reference(record, int(tier), rng) for tier in tiers]
    if rng.random() < _CONTEXT_SHARE:
        parts.insert(0, position_caption(record, 3, rng)[1])
    return "\n".join(parts)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> LanguageTokenizer:
    """Learn byte-level words from texts; end-of-text is id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return LanguageTokenizer(tokenizer, 0)


def train_language(texts: Corpus, options: LanguageOptions, out: Path) -> float:
    """Train, or go on training, and save the model in `out`; return the loss of the last steps.

    Raises OutputExistsError where `out` holds the training of other options.
    """
    keep_options(out, "options.json", {**asdict(options), "device": ""})
    torch.manual_seed(options.seed)
    tokenizer = _tokenizer(texts, options, out)
    model = build_language_model(options.dimensions, tokenizer.end)
    nn.Module.to(model, options.device)
    loss = _run(model, tokenizer, texts, options, out / "checkpoint.safetensors")
    save_language_model(nn.Module.to(model, "cpu"), tokenizer, out)
    return loss


def keep_options(folder: Path, name: str, options: dict[str, object]) -> None:
    """Write what a training is made of. Raises OutputExistsError where another was begun there."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(options, indent=2, sort_keys=True) + "\n"
    path = folder / name
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise OutputExistsError(folder, f"{name} there is of a training with other options")
    path.write_text(text, encoding="utf-8")


def _tokenizer(texts: Corpus, options: LanguageOptions, out: Path) -> LanguageTokenizer:
    path = out / "tokenizer.json"
    if path.is_file():
        return LanguageTokenizer(Tokenizer.from_file(str(path)), 0)
    rng = np.random.default_rng([options.seed, 0])
    prompts = [prompt for tier in PROMPTS for prompt in PROMPTS[tier]]
    read = [*prompts, *(texts.draw(rng) for _ in range(_TOKENIZER_TEXTS))]
    tokenizer = train_tokenizer(read, options.dimensions.vocabulary)
    tokenizer.tokenizer.save(str(path))
    return tokenizer


def _run(
    model: GPT2LMHeadModel,
    tokenizer: LanguageTokenizer,
    texts: Corpus,
    options: LanguageOptions,
    checkpoint: Path,
) -> float:
    trained = TrainedParameters(model)
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    done = load_checkpoint(checkpoint, trained, optimizer)
    nn.Module.train(model)
    recent: list[float] = []
    for step in track(range(done, options.steps), "language model"):
        set_rate(optimizer, step, options.steps, _WARM_UP_STEPS)
        rng = np.random.default_rng([options.seed, 1, step])
        ids = texts.rows(rng, tokenizer, options.rows, options.dimensions.positions)
        loss = language_loss(model, ids.to(options.device), half=options.half)
        take_step(loss, optimizer, trained)
        recent = [*recent[1 - _REPORT_STEPS :], float(loss.detach())]
        if (step + 1) % _REPORT_STEPS == 0:
            sys.stdout.write(f"language model {step + 1}: {np.mean(recent):.3f}\n")
            sys.stdout.flush()
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 == options.steps:
            save_checkpoint(checkpoint, trained, optimizer, step + 1)
    return float(np.mean(recent)) if recent else float("nan")


def language_loss(model: GPT2LMHeadModel, ids: Tensor, *, half: bool) -> Tensor:
    """Return the loss a token of rows of ids [B, T]."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=half):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def take_step(loss: Tensor, optimizer: torch.optim.Optimizer, trained: nn.Module) -> None:
    """Go one step down the loss, gradients clipped."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    optimizer.step()


def set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, warm_up: int) -> None:
    """Set rates for a step: a warm-up, then down along a cosine; a group's `base` is its height."""
    factor = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + np.cos(np.pi * step / steps))
    for group in optimizer.param_groups:
        group.setdefault("base", group["lr"])
        group["lr"] = group["base"] * factor


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = LanguageOptions()
    parser.add_argument("--out", type=Path, default=Path("runs/explain/language"))
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="folders of pairs")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--rows", type=int, default=default.rows)
    parser.add_argument("--rate", type=float, default=default.rate)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--full-precision", action="store_true", help="float32 instead of bfloat16")
    parser.add_argument("--size", type=json.loads, default={}, help="dimensions, as JSON")
    given = parser.parse_args(arguments)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        size = LanguageModelDimensions(**given.size)
    except TypeError as cause:
        raise InvalidValueError("--size", str(cause)) from cause
    options = LanguageOptions(
        steps=given.steps,
        rows=given.rows,
        rate=given.rate,
        seed=given.seed,
        half=not given.full_precision,
        device=given.device,
        dimensions=size,
    )
    records = [pair.record for folder in given.pairs for pair in load_pairs(folder).pairs]
    texts = corpus(load_settings().data, records, options.shares)
    train_language(texts, options, given.out)


if __name__ == "__main__":
    main()
