"""Curves and records with known savings."""

from collections.abc import Callable, Iterable

import numpy as np
from hypothesis import settings

from enn_finetune.records import Record
from enn_finetune.savings import Stack

GRID = np.arange(20.0, 220.0, 20.0)
RANDOM, OWN = "linear / random", "epinet / random"
laws = settings(deadline=None, max_examples=25)


def curves_of(seed: int, speed: float, seeds: int = 6, noise: float = 0.01) -> Stack:
    rng = np.random.default_rng(seed)
    scores = 0.8 - 0.4 * np.exp(-GRID / speed) + noise * rng.normal(size=(seeds, len(GRID)))
    return Stack("arm", tuple(range(seeds)), GRID, scores)


def record(arm: str, seed: int, labels: int, score: float, **more: object) -> Record:
    head, rule = arm.split(" / ")
    made = {
        "arm": arm,
        "head": head,
        "rule": rule,
        "seed": seed,
        "step": labels,
        "labels_bought": labels,
        "split": "test",
        "metrics": {"macro_f1": score, "nll": 2 - score},
        "seconds": 0.1,
    }
    return made | more  # type: ignore[return-value]


def experiment(
    arms: dict[str, Callable[[float], float]], seeds: Iterable[int] = range(4), budget: int = 200
) -> list[Record]:
    """Records of noise-free arms whose seeds differ by a constant, the same for every arm."""
    return [
        record(arm, seed, labels, score(labels) + 0.01 * seed)
        for arm, score in arms.items()
        for seed in seeds
        for labels in range(20, budget + 1, 20)
    ]


def straight(slope: float) -> Callable[[float], float]:
    return lambda labels: 0.3 + slope * labels
