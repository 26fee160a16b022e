"""The tasks known by name: GLUE and four review domains, as records.

Metrics are GLUE's, the primary one first. GLUE gives MRPC and QQP two, F1 (of class 1) and
accuracy: accuracy comes first here, as in arXiv 2211.01568, because "equivalent" for every row of
MRPC earns an F1 of .81. STS-B has Pearson, then Spearman.
"""

from dataclasses import dataclass
from typing import NamedTuple

from enn_finetune.data.faults import FaultKind
from enn_finetune.data.hub import HubSource
from enn_finetune.data.splits import Labels


class SplitFile(NamedTuple):
    """One split: its name here, its file, and its name on the hub."""

    name: str
    file: str
    hub: str = ""


@dataclass(frozen=True)
class Task:
    """What is read, how labels are written, and what is scored. The first split is for training."""

    name: str
    folder: str  # in a folder of tasks; "" where the files of `splits` are full paths
    splits: tuple[SplitFile, ...]
    text: str  # column names
    pair: str | None
    label: str
    labels: Labels
    metrics: tuple[str, ...]  # the primary one first
    header: tuple[str, ...] | None = None  # column names of files without a header line
    hub: HubSource | None = None
    skip: tuple[FaultKind, ...] = ()  # faults the published files are known to have
    quarter: bool = False  # the one file is split here: a fixed quarter of its rows is for testing

    @property
    def classes(self) -> tuple[str, ...]:
        """C names; for a score, its grid points."""
        return self.labels.classes

    @property
    def values(self) -> tuple[float, ...] | None:
        """Grid of a score, whose prediction is the expected grid value; None for classes."""
        return self.labels.values

    @property
    def evaluation(self) -> tuple[str, ...]:
        """Names of the splits to evaluate on."""
        return tuple(split.name for split in self.splits[1:])


def _glue(
    folder: str,
    labels: Labels,
    metrics: tuple[str, ...],
    *,
    text: str = "sentence1",
    pair: str | None = "sentence2",
    label: str = "label",
    hub: tuple[str, str | None] | None = None,
    evaluation: tuple[str, ...] = ("dev",),
    header: tuple[str, ...] | None = None,
    skip: tuple[FaultKind, ...] = (),
) -> Task:
    """A GLUE record; `hub` has the text columns where the hub renamed them."""
    name = folder.replace("-", "").lower()
    dev = (
        SplitFile(split, f"{split}.tsv", split.replace("dev", "validation")) for split in evaluation
    )
    hub_text, hub_pair = hub or (text, pair)
    return Task(
        name=name,
        folder=folder,
        splits=(SplitFile("train", "train.tsv", "train"), *dev),
        text=text,
        pair=pair,
        label=label,
        labels=labels,
        metrics=metrics,
        header=header,
        hub=HubSource("nyu-mll/glue", name, hub_text, hub_pair),
        skip=skip,
    )


_ENTAILMENT = Labels(("entailment", "not_entailment"), ("entailment", "not_entailment"))
_NLI = Labels(
    ("entailment", "neutral", "contradiction"), ("entailment", "neutral", "contradiction")
)
_SIMILARITY = Labels(tuple("012345"), (), tuple(map(float, range(6))))


def _binary(*classes: str) -> Labels:
    return Labels(classes, ("0", "1"))


# Classes in the hub's order, so that a prediction is the class index that GLUE's tools expect.
GLUE: tuple[Task, ...] = (
    _glue(
        "CoLA",
        _binary("unacceptable", "acceptable"),
        ("mcc", "accuracy"),
        text="sentence",
        pair=None,
        header=("source", "label", "author_mark", "sentence"),
    ),
    _glue("SST-2", _binary("negative", "positive"), ("accuracy",), text="sentence", pair=None),
    _glue(
        "MRPC",
        _binary("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        text="#1 String",
        pair="#2 String",
        label="Quality",
        hub=("sentence1", "sentence2"),
    ),
    _glue(
        "QQP",
        _binary("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        text="question1",
        pair="question2",
        label="is_duplicate",
        skip=("length", "empty"),  # a few rows of the published file lack a question
    ),
    _glue(
        "MNLI",
        _NLI,
        ("accuracy",),
        label="gold_label",
        hub=("premise", "hypothesis"),
        evaluation=("dev_matched", "dev_mismatched"),
    ),
    _glue("QNLI", _ENTAILMENT, ("accuracy",), text="question", pair="sentence"),
    _glue("RTE", _ENTAILMENT, ("accuracy",)),
    _glue("WNLI", _binary("not_entailment", "entailment"), ("accuracy",)),
    _glue("STS-B", _SIMILARITY, ("pearson", "spearman"), label="score"),
)


def _reviews(domain: str) -> Task:
    """One domain of the product reviews of Blitzer, Dredze & Pereira (ACL 2007), in one file."""
    file = f"{domain}.jsonl"
    return Task(
        name=f"reviews-{domain}",
        folder="reviews",
        splits=(SplitFile("train", file), SplitFile("test", file)),
        text="text",
        pair=None,
        label="label",
        labels=_binary("negative", "positive"),
        metrics=("accuracy",),
        quarter=True,
    )


REVIEWS = tuple(_reviews(domain) for domain in ("books", "dvd", "electronics", "kitchen"))
