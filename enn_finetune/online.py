"""The online regime: Algorithm 1 of arXiv 2211.01568, one warm model, a candidate batch a step.

With `acquisition.threshold` the candidates are a stream instead (NeurONAL-S, arXiv 2404.12522).
"""

from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np

from enn_finetune import asking, train
from enn_finetune.acquisition import neuronal
from enn_finetune.config import Config
from enn_finetune.data.oracle import OracleState
from enn_finetune.loader import PrioritisedLoader
from enn_finetune.loader_state import LoaderState
from enn_finetune.models.classifier import Classifier
from enn_finetune.problem import Problem, batch_of, new_classifier
from enn_finetune.session import Session


class OnlineState(TypedDict):
    """The JSON half of a checkpoint; the arrays are the train state."""

    loader: LoaderState
    oracle: OracleState


def loader_of(problem: Problem, config: Config) -> PrioritisedLoader:
    """The loader that a config describes."""
    rows = len(problem.pool)
    return PrioritisedLoader(
        rows,
        batch=min(config.train.batch, rows),
        candidates=min(config.train.batch * config.acquisition.candidates, rows),
        labels=config.budget.labels,
        start=config.budget.start,
        steps=config.budget.steps,
        source=config.acquisition.source,
        seed=config.seed,
        uniform=config.acquisition.uniform,
        anneal=config.acquisition.anneal,
        revisit=config.acquisition.revisit,
    )


def run(problem: Problem, config: Config, session: Session) -> tuple[Classifier, int]:
    """Train until a budget is spent: the classifier with averaged weights, and the steps taken.

    Raises:
      RunStoppedError: a signal came; everything is saved and the run can go on, bit for bit.
    """
    parts = train.split(new_classifier(problem, config), config.backbone.embeddings)
    recipe = config.training
    state = train.begin(parts, recipe, config.backbone.embeddings)
    loader, key = loader_of(problem, config), jax.random.key(config.seed)
    saved = session.restore(state)
    if saved is None:
        session.ledger.add("encoding", problem.encoding)
    else:
        state, regime = saved
        loader.restore(cast(OnlineState, regime)["loader"])
        problem.oracle.restore(cast(OnlineState, regime)["oracle"])

    def regime_state() -> OnlineState:
        return {"loader": loader.state(), "oracle": problem.oracle.state()}

    session.display.begin("fine-tuning", config.budget.labels)
    loss = jnp.float32(0)

    def settle() -> None:
        """Wait for the step under way: its time is training's."""
        with session.charging("training"):
            loss.block_until_ready()

    with session.interruptible():
        while not loader.finished:
            session.stop_if_asked(state, regime_state())
            candidates = loader.candidates()
            scores, wanted, scored = None, None, 0
            if config.acquisition.rule != "random" and loader.reads_priorities:
                settle()
                with session.charging("scoring"):
                    now = train.view(parts, state, averaged=False)
                    scores, wanted = score(
                        problem, config, now, candidates, key, loader.step, loader.offered
                    )
                scored = len(candidates)
            rows = loader.choose(candidates, scores, wanted)
            if len(rows):  # of a stream, a step may ask about none
                with session.charging("training"):
                    batch = batch_of(problem, rows, min(config.train.batch, len(problem.pool)))
                    loss.block_until_ready()  # the host is one batch ahead, no more
                    state, loss = train.train_step(
                        parts.graph,
                        parts.fixed,
                        state,
                        batch,
                        key,
                        config=recipe,
                        total=jnp.float32(config.budget.steps or 0),
                        probe=loader.step <= recipe.probe_steps,
                    )
            bought = len(problem.oracle.bought)
            session.display.advance(bought, rows=len(rows) + scored)
            spent = loader.labels_left == 0 and loader.step % config.evaluation.every == 0
            if session.due(bought) or spent:
                settle()
                averaged = train.view(parts, state, averaged=True)
                session.evaluate(problem, averaged, loader.step, bought)
            if loader.step % config.checkpoint.every == 0:
                session.save(state, regime_state())
    settle()
    averaged = train.view(parts, state, averaged=True)
    session.evaluate(problem, averaged, loader.step, len(problem.oracle.bought))
    session.save(state, regime_state())
    return train.merge(averaged), loader.step


def score(
    problem: Problem,
    config: Config,
    parts: train.Parts,
    candidates: np.ndarray,
    key: jax.Array,
    step: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Priorities (N,) of at most `size` candidate rows, and which are wanted at all (None: any).

    Under the current weights and fresh indices. Priorities are places, counted from the last one;
    a rule that chooses rows together gives them to a step's rows, and the others have 0. Rows whose
    predictions are not finite have nan, which the loader refuses by their numbers.
    """
    rule = config.acquisition.rule
    inputs = problem.pool.take(candidates, size)
    key, count = jax.random.fold_in(key, 2**20 + step), len(candidates)
    asked = asking.read(parts, inputs, key, indices=config.acquisition.indices, rule=rule)
    targets = asking.read_targets(parts, problem.targets, key, config)
    shown = most = size
    if asking.sees_bought(rule):  # it would take rows that only fill up for rows bought
        shown, most = count, min(config.train.batch, count)
    kept = jax.tree.map(lambda leaf: leaf[:shown], asked.kept)
    places, wanted = np.zeros(count, np.float32), None
    if config.acquisition.threshold is None:
        free = jnp.arange(shown) < count
        picked = np.asarray(asking.pick(kept, free, key, targets, rule=rule, count=most))[:count]
        places[picked] = np.arange(len(picked), 0, -1)
    else:  # a stream: rows are asked about as they come, or not at all
        wanted = neuronal.asked_in_stream(kept, config.acquisition.threshold, seen=step * size)
    for leaf in jax.tree.leaves(kept):
        places[~np.isfinite(leaf[:count]).reshape(count, -1).all(axis=1)] = np.nan
    return places, wanted
