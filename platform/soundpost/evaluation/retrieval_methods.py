"""The second stages that are compared, and how each is trained: same data, same steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soundpost.evaluation.retrieval_sets import Sets
from soundpost.models.cross_attention import CrossAttentionReranker
from soundpost.models.diffatr import DiffAtrReranker
from soundpost.models.encoder import EncoderSpec
from soundpost.training.composed_sets import DATASETS
from soundpost.training.diffatr import DiffAtrOptions, train_diffatr
from soundpost.training.ranking import Case, Reading, choose_reading
from soundpost.training.retrieval_tasks import Bench, Task, TwoWay

EVERYTHING = ("esc50", "urbansound8k", "both")
# As many candidates as search lets a second stage judge, if it is not told.
USUAL_LENGTH = 64
LENGTHS = (16, 32, 64, 128)
STEPS = (50, 10, 4, 1)
_DEVELOPMENT_SOUNDS = 150


@dataclass(frozen=True)
class Recipe:
    """What is trained on what: `kind` and `losses` as DiffAtrOptions names them."""

    name: str
    kind: str = "diffatr"
    losses: str = "both"
    training: tuple[str, ...] = EVERYTHING


DIFFATR = Recipe("diffatr")
PLAIN = Recipe("cross-attention", kind="cross_attention")
GENERATION = Recipe("generation-only", losses="generation")
CONTRASTIVE = Recipe("contrastive-only", losses="contrastive")
ON_ONE = {name: Recipe(f"diffatr-on-{name}", training=(name,)) for name in DATASETS}
RECIPES = (DIFFATR, PLAIN, GENERATION, CONTRASTIVE, *ON_ONE.values())


@dataclass(frozen=True)
class Effort:
    """How long everything is trained: steps of the three phases, texts a step, the rate.

    Families hold the hard sounds already, and 18,000 scenes are too many to be known by heart.
    """

    contrastive_steps: int = 900
    joint_steps: int = 400
    distil_steps: int = 80
    batch: int = 48
    extra_sounds: int = 0
    rate: float = 1e-3
    noise: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        return "-".join(f"{value:g}" for value in vars(self).values())

    def options(self, encoder: EncoderSpec, kind: str, losses: str) -> DiffAtrOptions:
        """Return how a recipe is trained over an encoder."""
        return DiffAtrOptions(encoder, kind=kind, losses=losses, **vars(self))


@dataclass(frozen=True)
class Method:
    """A trained second stage in a number of steps, over lists of a length."""

    recipe: Recipe
    reranker: TwoWay
    steps: int
    length: int


@dataclass(frozen=True)
class Workshop:
    """Trains recipes once and keeps them below runs/; lets them judge, and chooses how to read."""

    sets: Sets
    effort: Effort

    def folder(self, recipe: Recipe) -> Path:
        """Return where a recipe's weights lie."""
        return self.sets.kept / "models" / str(self.effort) / recipe.name

    def trained(self, recipe: Recipe) -> Path:
        """Train a recipe, or go on, and return its folder."""
        folder = self.folder(recipe)
        if not (folder / "model.safetensors").is_file():
            options = self.effort.options(self.sets.encoder.spec, recipe.kind, recipe.losses)
            train = self.sets.training(*recipe.training)
            train_diffatr(train, None, options, folder, self.sets.claim_texts)
        return folder

    def load(self, recipe: Recipe, steps: int = 1) -> TwoWay:
        """Load a recipe, trained first if it is not."""
        folder = self.trained(recipe)
        if recipe.kind == "cross_attention":
            return CrossAttentionReranker.load(folder, self.sets.encoder)
        return DiffAtrReranker.load(folder, self.sets.encoder, steps=steps)

    def method(self, recipe: Recipe, steps: int = 1, length: int = USUAL_LENGTH) -> Method:
        """Return a second stage, trained first if it is not."""
        return Method(recipe, self.load(recipe, steps), steps, length)

    def reading(self, method: Method, to_texts: bool) -> Reading:
        """Choose how a method is read, on the development sets."""
        main, *others = self.development(method.recipe, to_texts)
        return choose_reading(self.case(main, method), [self.case(task, method) for task in others])

    def case(self, task: Task, method: Method) -> Case:
        """Let a method judge a task, or remember what it said."""
        bench = Bench(self.sets.kept / "judged")
        return bench.case(task, method.reranker, f"{method.steps}-steps", method.length)

    def development(self, recipe: Recipe, to_texts: bool) -> list[Task]:
        """Return the tasks that a recipe is chosen on: composed scenes first, then clips.

        What is trained on one dataset knows nothing of the other, not even here.
        """
        one = next((name for name in DATASETS if recipe.training == (name,)), None)
        composed = self.sets.measuring("develop", one).data
        most = _DEVELOPMENT_SOUNDS if to_texts else None
        twice = 2 * most if most else None
        tasks = [Task(f"develop-{one or 'both'}", composed, to_texts, most=twice)]
        for dataset in (one,) if one else DATASETS:
            for wording in ("prompts", "paraphrases"):
                data = self.sets.clips(dataset, "develop", wording)
                tasks.append(Task(f"develop-{dataset}-{wording}", data, to_texts, most=most))
        return tasks
