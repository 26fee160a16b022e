"""Every key of a run, its type, its default and what it means: here and nowhere else."""

import dataclasses
import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator
from pydantic.dataclasses import dataclass
from pydantic_core.core_schema import ValidationInfo

from enn_finetune.config.policy import Policy, PriceConfig, ProxyConfig
from enn_finetune.config.rules import RuleName
from enn_finetune.config.task import TaskConfig
from enn_finetune.config.tuning import LEARNING_RATES, WORDS_TRAINED, Embeddings, Projections, Tune
from enn_finetune.config.values import (
    Count,
    Fraction,
    Layers,
    Names,
    NonNegative,
    Positive,
    Rate,
    Seed,
    Share,
    Sizes,
)

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """The pretrained encoder and how much of it is trained."""

    path: Names = ("minilm", "sentence-transformers/all-MiniLM-L6-v2")
    """Places tried in order: a folder in HF layout, `minilm` (of the extra demo), a hub id."""
    tune: Tune = "frozen"
    """What of it is trained. frozen: nothing; last: its last `tune_layers` layers; bitfit: biases;
    lora: low-rank additions; ia3: scales of keys, values and inner activations; full: all of it.
    lora and ia3 are folded into the weights when the classifier is saved."""
    tune_layers: PositiveInt = 1
    """last: how many layers, counted from the last one."""
    rank: PositiveInt = 8
    """lora: the rank of each addition."""
    lora_alpha: Positive = 16.0
    """lora: additions are multiplied by lora_alpha / rank."""
    lora_on: Projections = "query_value"
    """lora: the matrices added to: of queries and values, or all six of every layer."""
    pooling: Literal["auto", "mean", "cls", "pooler"] = "auto"
    """auto reads the folder's 1_Pooling/config.json, and takes the mean without one."""
    layers: Layers = "last"
    """Layers whose pooled states stand side by side as features: last, auto (about four, from the
    middle one to the last) or numbers from 1. Several need tune = frozen."""
    pairs: Literal["auto", "joint", "difference"] = "auto"
    """How two texts a row are read. joint: in one sequence. difference: each by itself, features
    are |u - v| (tune = frozen). auto: difference if frozen, where joint can be at chance."""
    cache: str = ""
    """Folder where features of a frozen encoder are kept between runs, which may be deleted at any
    time; empty is enn_finetune/features in the user's cache folder, none keeps none."""
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 128
    """Longer texts are cut; of a pair in one sequence, the longer text first."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters stay in float32."""
    embeddings: Embeddings = "frozen"
    """The word table under tune = full: fixed, trained on the rows a batch touches, or whole.
    Touched rows are not averaged: evaluation reads them as they are (`train.average`)."""

    @field_validator("embeddings")
    @classmethod
    def _leaves_the_words(cls, value: Embeddings, others: ValidationInfo) -> Embeddings:
        tune = others.data.get("tune")
        if value != "frozen" and tune is not None and tune not in WORDS_TRAINED:
            raise ValueError(
                f"backbone.tune = {tune} does not train the word table; use "
                "backbone.embeddings = frozen, or backbone.tune = full"
            )
        return value


@dataclass(frozen=True, config=_STRICT)
class HeadConfig:
    """What stands on the features; `neuronal` needs a frozen backbone and the pool regime."""

    kind: Literal["linear", "epinet", "neuronal"] = "epinet"
    form: Literal["auto", "mlp", "linear"] = "auto"
    """Epinet: an MLP by gradient steps, or linear in closed form (frozen backbone, pool regime).
    auto takes the closed form where it applies."""
    hidden: Sizes = (50,)
    """MLP epinet: widths of the hidden layers."""
    index_dim: Count = None
    """dim z; none takes 10 for the MLP epinet and 32 for the linear one."""
    prior_scale: NonNegative = 1.0
    """MLP epinet: scale of the fixed prior network."""


@dataclass(frozen=True, config=_STRICT)
class AcquisitionConfig:
    """Which rows are bought."""

    rule: RuleName = "margin"
    """What `acquisition.choose` knows it by."""
    indices: PositiveInt = 32
    """K: epistemic indices a row is scored with."""
    targets: str = ""
    """Rows that predictions should become better for, which config/rules.py says who reads: a file
    (.csv, .tsv, .jsonl) or a filter on the training file (domain=kitchen). Empty: the pool."""
    candidates_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Pool: share of the pool that a round scores, by what earlier rounds scored it; the first
    round scores all. Benchmarks on frozen features take 1 only."""
    candidates: PositiveInt = 4
    """Online: candidate rows scored for each row trained on."""
    source: Literal["whole", "epoch"] = "whole"
    """Online: candidates come from the whole training set, where a bought row costs nothing, or
    from what is left of the epoch."""
    uniform: Share = 0.0
    """Online: share of the rows chosen that is drawn uniformly: a rule alone can end below that."""
    anneal: bool = False
    """Online: the uniform share grows linearly to 1 at the last step (budget.steps)."""
    revisit: Fraction = 0.0
    """Online: share of each batch drawn from the rows bought before, whose labels are paid; the
    rest is chosen, and labels are bought that much more slowly. `bench` has it in its arms
    (epinet/margin+revisit0.5)."""
    threshold: Rate = None
    """Online, rule = neuronal: the candidates are a stream, in which a row is bought where its two
    likeliest classes differ by less than threshold / sqrt(rows seen) and passed by otherwise."""


@dataclass(frozen=True, config=_STRICT)
class BudgetConfig:
    """What may be spent. Steps and labels are separate budgets."""

    labels: PositiveInt = 500
    """Distinct training rows whose label may be read."""
    steps: Count = None
    """Online: gradient steps; none ends the run when the labels are spent."""
    start: NonNegativeInt = 20
    """Labels bought uniformly before the rule chooses; the same rows under every rule. Pool, 0:
    the first `round` rows are chosen too, by a rule that reads features alone, or by any rule where
    the classes are described (`task.describe`): a head is scored and asked before any label then.
    """
    round: PositiveInt = 20
    """Pool: labels bought in a round, at the least."""
    growth: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """Pool: a round ends with at least this many times the labels that it began with."""

    def after(self, labels: int) -> int:
        """Labels bought in all when the pool round that begins with `labels` is over."""
        return min(self.labels, max(labels + self.round, math.ceil(labels * self.growth - 1e-9)))

    def programmed(self, count: int) -> int:
        """How many rows a program chooses for a round of `count`, so that rounds share programs.

        The first rows are the same, however many follow.
        """
        return max(count, self.round) if self.growth == 1 else 1 << (count - 1).bit_length()

    @property
    def rounds(self) -> tuple[int, ...]:
        """Pool: labels bought in all at each fit, from `start` to `labels`.

        A run that begins without a label, with descriptions of the classes, has a fit before these.
        """
        counts = [min(self.start, self.labels) or self.after(0)]
        while counts[-1] < self.labels:
            counts.append(self.after(counts[-1]))
        return tuple(counts)


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """Gradient training: the online regime, and pool rounds without a closed form."""

    batch: PositiveInt = 8
    lr: Rate = None
    """Peak learning rate of the encoder (AdamW); none takes that of `backbone.tune`, see
    `LEARNING_RATES` in config/tuning.py."""
    head_lr: Positive = 1e-3
    probe_steps: NonNegativeInt = 0
    """Linear probe, then fine-tune (arXiv 2202.10054): steps at first that train the head alone, on
    features without dropout; a pool round takes them before its others. Warm-up, decay and the
    weight average begin anew after them."""
    schedule: Literal["constant", "linear"] = "constant"
    """After warm-up: constant, or linear decay to 0 at the last step (which must be known)."""
    warmup: NonNegativeInt = 20
    """Steps."""
    clip: Positive = 1.0
    """Global gradient norm."""
    weight_decay: NonNegative = 0.0
    """AdamW's, on the encoder's matrices (position table included, biases and norms not); the head
    has l2 instead. Priors are never decayed."""
    l2: NonNegative = 1.0
    """lambda of 1/2 lambda |w|^2 of the head on the summed loss: 1/n on the mean loss."""
    indices: PositiveInt = 8
    """Fresh epistemic indices the loss is averaged over at each step."""
    bootstrap: Literal["none", "bernoulli", "exponential"] = "none"
    """Weights of a row by index: none, double-or-nothing, or exponential."""
    average: Fraction = 0.98
    """Decay of the weight average that evaluation uses; 0 evaluates the last weights."""
    epochs: PositiveInt = 10
    """Pool: passes over the labels bought, at every round, from the pretrained weights."""
    min_steps: PositiveInt = 200
    """Pool: gradient steps of a round, at the least."""

    @property
    def peak(self) -> float:
        """`lr`, which must be a number.

        Raises:
          ValueError: it is not; `Config.training` makes it one.
        """
        if self.lr is None:
            raise ValueError("train.lr: found none; take Config.training, or give a rate")
        return self.lr


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """When the evaluation splits are scored."""

    every: PositiveInt = 100
    """Labels between evaluations; once they are spent, steps."""
    indices: PositiveInt = 32
    """K of the mean prediction."""
    batch: PositiveInt = 256
    """Rows scored at once."""


@dataclass(frozen=True, config=_STRICT)
class CheckpointConfig:
    """When a run that may be interrupted is saved."""

    every: PositiveInt = 200
    """Online: steps. A pool run is saved after every round."""


@dataclass(frozen=True, config=_STRICT)
class Config:
    """One run."""

    seed: Seed = 0
    regime: Literal["online", "pool"] = "pool"
    policy: Policy = "standard"
    """Pool, trained encoder: who chooses rows (see `Policy`)."""
    task: TaskConfig = TaskConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    acquisition: AcquisitionConfig = AcquisitionConfig()
    budget: BudgetConfig = BudgetConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    proxy: ProxyConfig = ProxyConfig()
    prices: PriceConfig = PriceConfig()

    @property
    def training(self) -> TrainConfig:
        """`train` with a number as `lr`."""
        if self.train.lr is not None:
            return self.train
        return dataclasses.replace(self.train, lr=LEARNING_RATES[self.backbone.tune])

    @property
    def closed_form(self) -> bool:
        """True where the head is solved for rather than trained by gradient steps."""
        possible = self.backbone.tune == "frozen" and self.regime == "pool"
        return possible and (self.head.kind != "epinet" or self.head.form != "mlp")

    @property
    def head_name(self) -> str:
        """What records call the head: one told what the classes are is another one."""
        if not self.task.describe:
            return self.head.kind
        return "described_epinet" if self.head.kind == "epinet" else "described"

    @property
    def tree(self) -> dict[str, Any]:
        """All keys and values, but for those that came later and are not used.

        What is known by its keys, such as a record, is then known by the same ones as before.
        """
        found = dataclasses.asdict(self)
        for name in ("describe", "rows"):
            if not found["task"][name]:
                del found["task"][name]
        if not found["acquisition"]["revisit"]:
            del found["acquisition"]["revisit"]
        return found

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of `tree` in canonical JSON."""
        text = json.dumps(self.tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
