"""The section `task` of a config: which rows, and where they are read from."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from enn_finetune.config.values import Carve, Count, Entries, Names

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class TaskConfig:
    """Which rows, and where they are read from."""

    name: str = "messages"
    """A GLUE task, `reviews-books` and its like, `messages` (bundled); with `train` any name."""
    data: Names = ("hub",)
    """Places tried in order: folders of the original TSV files, or the word hub."""
    train: str = ""
    """Custom: CSV or JSON-lines file of training rows. Where it is given and `name` is not, the
    task is called after this file."""
    test: str = ""
    """Custom: file of test rows."""
    text: str = "text"
    """Custom: column of the text."""
    pair: str = ""
    """Custom: column of the second text, if any."""
    label: str = "label"
    """Custom: column of the label."""
    metric: Literal["accuracy", "macro_f1", "mcc", "f1"] = "accuracy"
    """Custom: the score."""
    pool: Literal["plain", "rare", "repeated"] = "plain"
    """rare: the second of two classes is thinned out everywhere, and its F1 is the score.
    repeated: every row of the pool stands `repeats` times, and each copy costs a label."""
    rare_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the rare class in the pool and in each evaluation split."""
    repeats: Annotated[int, Field(ge=2)] = 5
    carve: Carve = 0
    """Training rows that leave the pool and are scored as the split `held`: a number, or auto
    (min(5000, N // 4) where no evaluation split has 2,000 rows)."""
    rows: Count = None
    """Rows of the pool, at most: drawn at random, the same for every seed, of what carving leaves,
    before they are thinned or repeated; none takes all."""
    describe: Entries = ()
    """What each class is, in words: entries `CLASS: a sentence`, on a command line divided by |; of
    a class with several the features' mean counts. A frozen encoder reads them too, and the head's
    prior begins with what they say (models/class_prior.py)."""
    develop: bool = False
    """Score nothing but `develop`, another min(5000, N // 4) rows carved from the pool: for making
    choices, which must not see the evaluation splits."""
