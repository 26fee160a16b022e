"""The pool regime: rounds over the whole unlabelled pool, re-trained from the pretrained weights.

A round fits a classifier on all the labels bought so far and chooses the next ones by its
predictions for every row that is left. The fit is a closed form where the head has one, and
gradient steps otherwise; nothing of an earlier round's fit is carried over.
"""

from typing import TypedDict, cast

import jax
import numpy as np

from enn_finetune import train
from enn_finetune.config import Config
from enn_finetune.data.oracle import OracleState
from enn_finetune.fitting import fitter
from enn_finetune.models.classifier import Classifier
from enn_finetune.problem import Problem
from enn_finetune.session import Session


class PoolState(TypedDict):
    """The whole state of a pool run between rounds."""

    oracle: OracleState
    round: int


def run(problem: Problem, config: Config, session: Session) -> tuple[Classifier, int]:
    """Buy and fit until the labels are spent: the last round's classifier, and the rounds.

    Raises:
      RunStoppedError: a signal came; the rounds that are complete are saved.
    """
    oracle, number = problem.oracle, 0
    saved = session.restore(())
    if saved is not None:
        oracle.restore(cast(PoolState, saved[1])["oracle"])
        number = cast(PoolState, saved[1])["round"]
    else:
        oracle.buy(first_rows(len(problem.pool), config))
    fit = fitter(problem, config)
    session.display.begin("buying labels", config.budget.labels)
    with session.interruptible():
        while True:
            session.stop_if_asked((), PoolState(oracle=oracle.state(), round=number))
            session.display.advance(len(oracle.bought))
            parts = fit(number)
            if number == 0 or session.due(len(oracle.bought)) or oracle.remaining == 0:
                session.evaluate(problem, parts, number, len(oracle.bought))
            if oracle.remaining == 0:
                break
            oracle.buy(choose(problem, config, parts, number, session))
            number += 1
            session.save((), PoolState(oracle=oracle.state(), round=number))
    session.save((), PoolState(oracle=oracle.state(), round=number))
    return train.merge(parts), number


def first_rows(rows: int, config: Config) -> np.ndarray:
    """The labels bought before any rule chooses: the same under every rule of one seed."""
    generator = np.random.Generator(np.random.Philox(key=config.seed, counter=[0, 0, 1, 0]))
    return generator.choice(rows, min(config.budget.start, rows), replace=False)


def choose(
    problem: Problem, config: Config, parts: train.Parts, number: int, session: Session
) -> np.ndarray:
    """The rows (n,) to buy in this round: the top of the pool that is left, ties by row number."""
    left = np.setdiff1d(np.arange(len(problem.pool)), problem.oracle.bought)
    bought = len(problem.oracle.bought)
    count = min(config.budget.after(bought) - bought, problem.oracle.remaining, len(left))
    if config.acquisition.rule == "random":
        generator = np.random.Generator(
            np.random.Philox(key=config.seed, counter=[0, 0, 2, number])
        )
        return generator.choice(left, count, replace=False)
    key = jax.random.fold_in(jax.random.key(config.seed), 2**20 + number)
    scores = np.empty(len(left), np.float32)
    for places, inputs in problem.pool.batches(left):
        found = train.priorities(
            parts,
            inputs,
            key,
            indices=config.acquisition.indices,
            rule=config.acquisition.rule,
        )
        scores[places] = np.asarray(found)[: len(places)]
        session.display.advance(len(problem.oracle.bought), rows=len(places))
    return left[np.argsort(-scores, kind="stable")[:count]]
