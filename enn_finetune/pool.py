"""The pool regime: rounds over the whole unlabelled pool, re-trained from the pretrained weights.

A round fits a classifier on all the labels bought so far and chooses the next ones by its
predictions for every row that is left. The fit is a closed form where the head has one, and
gradient steps otherwise; nothing of an earlier round's fit is carried over.
"""

import dataclasses
from contextlib import nullcontext
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np

from enn_finetune import asking, train
from enn_finetune.acquisition.candidates import candidate_count
from enn_finetune.acquisition.history import History, begin, reduce, update
from enn_finetune.config import Config
from enn_finetune.costs import Part, Work
from enn_finetune.data.oracle import OracleState
from enn_finetune.fitting import fitter
from enn_finetune.models.classifier import Classifier
from enn_finetune.problem import Problem, new_classifier
from enn_finetune.progress import Display
from enn_finetune.session import Session

BEFORE = 2**19
"""The number of the round before the first: its randomness is no other round's."""


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
    share = config.acquisition.candidates_share
    history = begin(len(problem.pool)) if share < 1 else None
    saved = session.restore(history)
    if saved is None:
        session.ledger.add("encoding", problem.encoding)
    else:
        history = saved[0]
        oracle.restore(cast(PoolState, saved[1])["oracle"])
        number = cast(PoolState, saved[1])["round"]
    with session.charging("encoding") if saved is None else nullcontext():  # else it was
        fit = fitter(problem, config)
    # Rows bought at random need no fit but the one that a run ends with.
    part: Part = "evaluation" if config.acquisition.rule == "random" else "training"
    session.display.begin("buying labels", config.budget.labels)
    with session.interruptible():
        # A head that begins with descriptions of the classes is asked before any label.
        blank = problem.classes is None or config.budget.start > 0
        if saved is None and blank and not len(oracle.bought):  # else they were chosen for this run
            oracle.buy(begun(problem, config, session))
        while True:
            session.stop_if_asked(history, PoolState(oracle=oracle.state(), round=number))
            session.display.advance(len(oracle.bought))
            # A finished run that is resumed has paid for its last fit.
            paid = session.evaluated(number, len(oracle.bought))
            with nullcontext(Work) if paid else session.charging(part) as taken:
                parts = jax.block_until_ready(fit(number))
            if number == 0 or session.due(len(oracle.bought)) or oracle.remaining == 0:
                last = taken() if part == "evaluation" else None
                session.evaluate(problem, parts, number, len(oracle.bought), last)
            if oracle.remaining == 0:
                break
            with session.charging("scoring"):
                rows, history = choose(problem, config, parts, number, session.display, history)
            oracle.buy(rows)
            number += 1
            session.save(history, PoolState(oracle=oracle.state(), round=number))
    session.save(history, PoolState(oracle=oracle.state(), round=number))
    return train.merge(parts), number


def first_rows(rows: int, config: Config) -> np.ndarray:
    """The labels bought before any rule chooses: the same under every rule of one seed."""
    generator = np.random.Generator(np.random.Philox(key=config.seed, counter=[0, 0, 1, 0]))
    return generator.choice(rows, min(config.budget.start, rows), replace=False)


def begun(problem: Problem, config: Config, session: Session) -> np.ndarray:
    """The rows (n,) that the first fit has: `first_rows`, or what a rule says of features alone.

    The latter where budget.start = 0. Of an encoder that is trained they are the features under its
    pretrained weights; the head that the rule is asked through is blank, and adds nothing to them.
    """
    if config.budget.start:
        return first_rows(len(problem.pool), config)
    blank = dataclasses.replace(config, head=dataclasses.replace(config.head, kind="linear"))
    with session.charging("scoring"):
        parts = train.split(new_classifier(problem, blank), config.backbone.embeddings)
        return choose(problem, config, parts, BEFORE, session.display, None)[0]


def choose(
    problem: Problem,
    config: Config,
    parts: train.Parts,
    number: int,
    display: Display,
    history: History | None,
) -> tuple[np.ndarray, History | None]:
    """The rows (n,) that the rule buys in this round, ties by row number, and what is remembered.

    `history` is None where every round scores the whole pool.
    """
    owned = problem.oracle.owned
    left = np.flatnonzero(~owned)
    bought = len(problem.oracle.bought)
    count = min(config.budget.after(bought) - bought, problem.oracle.remaining, len(left))
    if count == 0:
        return left[:0], history
    if config.acquisition.rule == "random":
        generator = np.random.Generator(
            np.random.Philox(key=config.seed, counter=[0, 0, 2, number])
        )
        return generator.choice(left, count, replace=False), history
    key = jax.random.fold_in(jax.random.key(config.seed), 2**20 + number)
    rows = candidates(history, ~owned, config, count, jax.random.fold_in(key, 1))
    free, rule = ~owned[rows], config.acquisition.rule
    places = np.arange(len(rows)) if asking.sees_bought(rule) else np.flatnonzero(free)
    asked = asking.read_rows(parts, problem.pool, rows, places, key, config)
    display.advance(len(problem.oracle.bought), rows=len(places))
    targets = asking.read_targets(parts, problem.targets, key, config)
    size = min(config.budget.programmed(count), int(free.sum()))
    picked = np.asarray(asking.pick(asked.kept, free, key, targets, rule=rule, count=size))[:count]
    if history is not None and asked.scores is not None:
        history = update(
            history, jnp.asarray(rows[places]), jnp.asarray(asked.scores[places]), number
        )
    return rows[picked], history


def candidates(
    history: History | None, free: np.ndarray, config: Config, count: int, key: jax.Array
) -> np.ndarray:
    """The rows (n,) that a round scores, in order: all, or those that past scores name.

    Rules that look at the rows bought are shown those in place of some, so that n leaves room.
    """
    rows = len(free)
    if history is None or not (np.asarray(history.scored) >= 0).any():
        return np.arange(rows)
    known = asking.sees_bought(config.acquisition.rule)
    room = count + (config.budget.labels if known else 0)
    size = candidate_count(rows, config.acquisition.candidates_share, room, first=False)
    return np.asarray(_reduce(history, jnp.asarray(free), size, key, known=known), np.int64)


_reduce = jax.jit(reduce, static_argnums=2, static_argnames="known")
