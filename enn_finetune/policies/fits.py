"""The fits of a policy: heads solved for on features, and encoders trained on tokens."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from enn_finetune import train
from enn_finetune.compiling import encoder_jit
from enn_finetune.config import Config
from enn_finetune.config.tuning import WORDS_TRAINED, Tune
from enn_finetune.data.oracle import Oracle
from enn_finetune.evaluating import predict
from enn_finetune.fitting import by_gradient
from enn_finetune.models.backbone import BertBackbone, Identity
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.laplace import bucket
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes
from enn_finetune.models.solvers import SOLVERS
from enn_finetune.models.transferability import logme_ped
from enn_finetune.policies.beside import Beside
from enn_finetune.policies.encoders import Features, FineTuned
from enn_finetune.problem import Problem, batch_of


def owning(problem: Problem, rows: np.ndarray) -> Problem:
    """The problem as it was when these rows (n,), all of them bought by now, had been bought."""
    if problem.oracle.cost(rows):
        raise ValueError("expected rows whose labels are paid for")
    earlier = problem.oracle.fresh()
    earlier.buy(rows)
    return problem._replace(oracle=earlier)


class Proxy:
    """The pool as features, and the head solved for on what was bought of it."""

    def __init__(
        self,
        problem: Problem,
        features: Features,
        config: Config,
        *,
        beside: FineTuned | None = None,
        shapes: ShapedPool | None = None,
    ) -> None:
        """Take the selector's problem; its oracle is read, never bought from, by fits.

        `features` are the pretrained encoder's, which the head is solved for on; `shapes` are
        theirs, decomposed here unless they are given. With a model `beside`, the selector as it was
        fine-tuned, the two predict together.
        """
        rows, self._beside = features.rows, beside is not None
        self._width, self._classes = rows.features.shape[1], problem.oracle.classes
        if beside is not None:
            every = [rows.features, beside.features, beside.log_probs]
            rows = dataclasses.replace(rows, features=np.concatenate(every, axis=1))
        self.problem = problem._replace(pool=rows, evaluations=(), targets=None)
        self._head, self._seed = config.proxy.head, config.seed
        if shapes is None:
            shapes = _shapes(jnp.asarray(features.rows.features), views=features.views)
        self.shapes = shapes
        read = self._read(jnp.asarray(rows.features))
        self._reference = (jnp.mean(read, axis=0), jnp.std(read, axis=0))

    def fit(self, number: int, rows: np.ndarray | None = None) -> train.Parts:
        """The head that these rows (n,), or all that is bought, ask for in a round."""
        features, targets, weights = self._batch(rows)
        key = jax.random.fold_in(jax.random.key(self._seed), number)
        pretrained = features[:, : self._width]
        found = _solve(pretrained, targets, weights, self.shapes, key, head=self._head)
        head = SOLVERS[self._head].make(found)
        if self._beside:
            head = Beside(head, self._width, self._classes)
        classifier = Classifier(Identity(features.shape[1]), head)
        return train.split(classifier, "frozen")

    def reading(self) -> tuple[float, float]:
        """LogME of all that is bought, as it is and as PED evolves it, on the newest features."""
        features, targets, weights = self._batch(None)
        labels = jnp.argmax(targets, axis=1)
        still, evolved = _indicator(
            self._read(features), labels, self._reference, weights, classes=targets.shape[1]
        )
        return float(still), float(evolved)

    def _read(self, rows: Array) -> Array:
        """The features that the indicator reads of rows (n, ...): the fine-tuned encoder's."""
        return rows[:, self._width : -self._classes] if self._beside else rows

    def _batch(self, rows: np.ndarray | None) -> tuple[Any, Array, Array]:
        taken = self.problem.oracle.bought if rows is None else rows
        batch = batch_of(self.problem, taken, bucket(len(taken)))
        return batch.inputs, batch.targets, batch.weights


@functools.partial(encoder_jit, static_argnames="head")
def _solve(
    features: Array, targets: Array, weights: Array, shapes: ShapedPool, key: Array, *, head: str
) -> Any:
    return SOLVERS[head].fit(features, targets, weights, shapes, key=key)


@functools.partial(encoder_jit, static_argnames="views")
def _shapes(features: Array, *, views: int) -> ShapedPool:
    return pool_shapes(features, views=views)


@functools.partial(encoder_jit, static_argnames="classes")
def _indicator(
    features: Array,
    labels: Array,
    reference: tuple[Array, Array],
    weights: Array,
    *,
    classes: int,
) -> tuple[Array, Array]:
    return logme_ped(features, labels, classes, reference, weights)


def tuned(config: Config, mode: Tune, *, probe: bool) -> Config:
    """The config of a fit: how much of the encoder is trained, and LP-FT where a probe comes first.

    Without `probe` the config's own `train.probe_steps` stand.
    """
    words = config.backbone.embeddings if mode in WORDS_TRAINED else "frozen"
    steps = config.proxy.probe_steps if probe else config.train.probe_steps
    return dataclasses.replace(
        config,
        backbone=dataclasses.replace(config.backbone, tune=mode, embeddings=words),
        train=dataclasses.replace(config.train, probe_steps=steps),
    )


def steps_of(config: Config, labels: int) -> int:
    """Gradient steps of a fit to so many labels."""
    recipe = config.train
    return max(recipe.min_steps, -(-recipe.epochs * labels // recipe.batch)) + recipe.probe_steps


def trained(problem: Problem, config: Config, number: int) -> train.Parts:
    """The encoder and head trained on what is bought, and done with it: no work is left pending."""
    return jax.block_until_ready(by_gradient(problem, config, number))


def with_pseudo_labels(
    problem: Problem, config: Config, parts: train.Parts, number: int
) -> train.Parts:
    """The encoder trained again, on what is bought and on what the fit `parts` is surest of.

    Rows not bought are labelled with the class that `parts` takes them for, the surest
    `proxy.pseudo` of the pool, as many of each class as it predicts (arXiv 2205.03598, where a
    model of the successor's kind labels what a smaller one did not buy). None of their labels is
    read.
    """
    bought = problem.oracle.bought
    left = np.flatnonzero(~problem.oracle.owned)
    count = min(round(config.proxy.pseudo * len(problem.pool)), len(left))
    if count == 0:
        return parts
    probabilities = np.exp(predict(parts, problem.pool, left, config)[0])
    chosen = surest(probabilities, count)
    rows = left[chosen]
    targets = np.zeros((len(problem.pool), problem.oracle.classes), np.float32)
    targets[bought] = problem.oracle.buy(bought)
    targets[rows, probabilities[chosen].argmax(1)] = 1
    oracle = Oracle(targets, len(bought) + count)
    oracle.buy(np.concatenate([bought, rows]))
    return trained(problem._replace(oracle=oracle), config, number)


def surest(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Places (count,) of the rows predicted with the least doubt, classes as they are predicted.

    Args:
      probabilities: (N, C).
      count: at most N.
    """
    classes = probabilities.argmax(1)
    sure = probabilities.max(1)
    # The rank of each row in its class, over the size of the class: alike for all classes.
    rank = np.zeros(len(sure))
    for one in np.unique(classes):
        mine = np.flatnonzero(classes == one)
        order = mine[np.argsort(-sure[mine], kind="stable")]
        rank[order] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.argsort(rank, kind="stable")[:count]


def encoder_of(parts: train.Parts) -> BertBackbone:
    """The encoder of a fit, what a tuning mode added folded into its weights."""
    backbone = train.merge(parts).backbone
    if not isinstance(backbone, nnx.Module) or not isinstance(backbone, BertBackbone):
        raise TypeError(f"expected an encoder that was trained, found {type(backbone).__name__}")
    return backbone
