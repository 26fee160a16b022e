"""Fits of a pool round: a classifier from all the labels bought so far, and nothing else.

A head with a closed form is solved for; any other is trained by gradient steps, starting from the
pretrained weights and the same seeded head at every round.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from enn_finetune import train
from enn_finetune.compiling import counted_jit
from enn_finetune.config import Config
from enn_finetune.config.schema import HeadConfig
from enn_finetune.data.inputs import FeatureRows
from enn_finetune.models.backbone import Identity
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.laplace import INDEX_DIM, bucket, fit_linear_epinet
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear
from enn_finetune.models.neuronal import Neuronal, fit_neuronal
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes
from enn_finetune.problem import Problem, batch_of, new_classifier
from enn_finetune.types import Head

Fit = Callable[[int], train.Parts]
"""From the number of a round to the classifier fitted in it."""

_solve = counted_jit(fit_linear_epinet, static_argnames=("index_dim", "l2_grid", "described"))
_shapes = counted_jit(pool_shapes, static_argnames=("exponents", "views"))
_solve_neuronal = counted_jit(fit_neuronal)


def fitter(problem: Problem, config: Config) -> Fit:
    """How a config fits: what is the same in all rounds is done here, once."""
    if config.closed_form and isinstance(problem.pool, FeatureRows):
        return _closed_form(problem, problem.pool, config)
    return lambda number: by_gradient(problem, config, number)


def _closed_form(problem: Problem, pool: FeatureRows, config: Config) -> Fit:
    """A fit in closed form, or nearly: everything about it is chosen anew in every round."""
    words = None if problem.classes is None else jnp.asarray(problem.classes)
    shapes = _shapes(jnp.asarray(pool.features), views=problem.views, classes=words)
    key = jax.random.key(config.seed)

    def fit(number: int) -> train.Parts:
        rows = problem.oracle.bought
        # Rows that are not there have weight 0; few sizes, so that few programs are compiled.
        batch = batch_of(problem, rows, bucket(len(rows)))
        head = _head(batch, shapes, jax.random.fold_in(key, number), config.head)
        return train.split(Classifier(Identity(problem.encoder.width), head), "frozen")

    return fit


def _head(batch: train.Batch, shapes: ShapedPool, key: jax.Array, how: HeadConfig) -> Head:
    """The head of a config, solved for on a batch of all rows bought."""
    features = cast(jax.Array, batch.inputs)  # no tokens, where a head is solved for
    rows = features, batch.targets, batch.weights, shapes
    if how.kind == "neuronal":
        return Neuronal(_solve_neuronal(*rows, key=key))
    described = shapes.classes is not None
    found = _solve(*rows, key=key, index_dim=how.index_dim or INDEX_DIM, described=described)
    return ShapedLinear(found) if how.kind == "linear" else LinearEpinet(found)


def by_gradient(problem: Problem, config: Config, number: int) -> train.Parts:
    """Train for `train.epochs` passes over the labels bought, at least `train.min_steps` steps.

    The steps of a probe come before these.
    """
    recipe = config.training
    parts = train.split(new_classifier(problem, config), config.backbone.embeddings)
    state = train.begin(parts, recipe, config.backbone.embeddings)
    bought, size = problem.oracle.bought, recipe.batch
    steps = max(recipe.min_steps, -(-recipe.epochs * len(bought) // size)) + recipe.probe_steps
    generator = np.random.Generator(np.random.Philox(key=config.seed, counter=[0, 0, 3, number]))
    passes = -(-steps * size // len(bought))
    order = np.concatenate([generator.permutation(bought) for _ in range(passes)])
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    for step in range(steps):
        # Where two passes meet in one batch a row may come twice; it is trained on once.
        rows = np.unique(order[step * size : (step + 1) * size])
        state, _ = train.train_step(
            parts.graph,
            parts.fixed,
            state,
            batch_of(problem, rows, size),
            key,
            config=recipe,
            total=jnp.float32(steps),
            probe=step < recipe.probe_steps,
        )
    return train.view(parts, state, averaged=True)
