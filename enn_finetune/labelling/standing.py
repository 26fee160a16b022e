"""How far labelling has come: a fit for each round, and what the rounds agree on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from enn_finetune import train
from enn_finetune.config import Config
from enn_finetune.evaluating import predict
from enn_finetune.fitting import fitter
from enn_finetune.labelling.rows import NONE, Texts
from enn_finetune.problem import Problem
from enn_finetune.progress import Display

BLOCK = 8192  # rows whose predictions under all indices are held at once
WINDOW, STABLE = 3, 0.99
"""Predictions have settled where the last WINDOW agreements have a mean of STABLE or more: the
intensity and the cutoff of Bloodgood & Vijay-Shanker 2009 (arXiv 1409.5165, section 4)."""
ADDED = 10
"""Labels between two fits that are compared, at least: a fit to one label more agrees anyway."""


class Standing(NamedTuple):
    """What a fit says of all N texts."""

    classes: np.ndarray  # (N,) the likeliest one
    probability: np.ndarray  # (N,) of it
    unsettled: np.ndarray  # (N,) share of the indices whose likeliest class is another


WORDS = "descriptions alone"
"""What stands for a file's name where a fit has no label, only descriptions of the classes."""


class Round(NamedTuple):
    """The fit to all labels up to the end of a file, asked about texts that no file labels."""

    file: str
    labels: int
    expected: float | None  # share of its predictions that the fit expects to be right
    unsettled: float | None  # share of them that one index, drawn at random, sees otherwise
    agreement: float | None  # Cohen's kappa of its predictions of all texts and those of the last
    # fit with ADDED labels fewer; None without one, and where both predict one class


class History(NamedTuple):
    """All rounds, and the last fit; None of it where two classes are not known yet.

    Where the classes are described, the first round is that of the descriptions alone.
    """

    rounds: list[Round]
    parts: train.Parts | None
    standing: Standing | None
    words: tuple[int, int] | None = None  # labels, and how many of them descriptions alone get
    # right, before they have seen any; None where the classes are not described

    @property
    def settled(self) -> bool:
        """True where more labels no longer change predictions."""
        last = self.agreements[-WINDOW:]
        return len(last) == WINDOW and float(np.mean(last)) >= STABLE

    @property
    def agreements(self) -> list[float]:
        """Of rounds that have one."""
        return [one.agreement for one in self.rounds if one.agreement is not None]


def history(
    problem: Problem, texts: Texts, files: Sequence[str], config: Config, display: Display
) -> History:
    """Fit the labels of each round and those before it; the problem's oracle has then sold all."""
    fit, described = fitter(problem, config), problem.classes is not None
    names = [WORDS] if described else []
    names += [files[file] for file in texts.rounds]
    sold = [np.empty(0, np.int64)] if described else []
    sold += [np.flatnonzero(texts.files == file) for file in texts.rounds]
    left = texts.labels == NONE
    found: list[Round] = []
    parts, standing, words = None, None, None
    before: tuple[int, np.ndarray] | None = None  # labels and classes of the last one compared
    display.begin("fitting", len(names), "rounds")
    for number, (name, rows) in enumerate(zip(names, sold, strict=True)):
        if len(rows):
            problem.oracle.buy(rows)
        bought = problem.oracle.bought
        agreement = None
        if described or len(np.unique(texts.labels[bought])) > 1:
            parts = fit(number)
            standing = stand(problem, parts, config)
            words = standing.classes if not len(bought) else words
            # What words alone predict is no round to agree with.
            if len(bought) and (before is None or len(bought) - before[0] >= ADDED):
                if before is not None:
                    agreement = kappa(before[1], standing.classes)
                before = len(bought), standing.classes
        # How sure words alone are tells nothing of whether they are right.
        known = standing is not None and len(bought) > 0 and left.any()
        sure = standing.probability[left].mean() if standing is not None and known else None
        open_ = None if standing is None or not left.any() else standing.unsettled[left].mean()
        found.append(
            Round(
                name,
                len(bought),
                None if sure is None else float(sure),
                None if open_ is None else float(open_),
                agreement,
            )
        )
        display.advance(number + 1)
    bought = problem.oracle.bought
    told = None
    if words is not None:
        told = len(bought), int((words[bought] == texts.labels[bought]).sum())
    return History(found, parts, standing, told)


def stand(problem: Problem, parts: train.Parts, config: Config) -> Standing:
    """What a fit says of all texts, block by block."""
    rows = np.arange(len(problem.pool))
    blocks = []
    for start in range(0, len(rows), BLOCK):
        mean, every = predict(parts, problem.pool, rows[start : start + BLOCK], config)
        likeliest = mean.argmax(1)
        other = (every.argmax(2) != likeliest[None]).mean(0)
        blocks.append(Standing(likeliest, np.exp(mean.max(1)), other))
    return Standing(*map(np.concatenate, zip(*blocks, strict=True)))


def kappa(one: np.ndarray, other: np.ndarray) -> float | None:
    """Cohen's kappa of two labellings (N,): agreement beyond chance; None where both are constant.

    Two fits that know one class agree everywhere, and have settled nothing.
    """
    same = float(np.mean(one == other))
    classes = np.union1d(one, other)
    chance = float(sum(np.mean(one == c) * np.mean(other == c) for c in classes))
    return None if chance == 1.0 else (same - chance) / (1 - chance)
