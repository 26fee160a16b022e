"""The model that chooses and the one that is trained in the end, and features of the former."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from enn_finetune.compiling import encoder_jit
from enn_finetune.config import Config, ConfigError
from enn_finetune.costs import Work
from enn_finetune.data.inputs import FeatureRows, Rows
from enn_finetune.data.splits import Split
from enn_finetune.encoding import encode_splits, text_features
from enn_finetune.errors import InputError
from enn_finetune.models import tuning
from enn_finetune.models.backbone import BertBackbone, Inputs, load_backbone
from enn_finetune.models.places import find_backbone
from enn_finetune.predictive import mixture
from enn_finetune.problem import Problem
from enn_finetune.progress import Display
from enn_finetune.types import Head


class Sides(NamedTuple):
    """Both models of a run over one pool, their labels behind one oracle."""

    selector: Problem  # as tokens
    successor: Problem  # as tokens
    config: Config  # of the successor
    selecting: Config  # of the selector

    @property
    def same(self) -> bool:
        """True where the model that chooses is the one that is trained."""
        return not self.config.proxy.path

    @property
    def texts(self) -> Split:
        """The pool's rows."""
        return _texts(self.successor)


def _texts(problem: Problem) -> Split:
    if problem.origin is None:
        raise ValueError("a policy's pool knows where its rows come from")
    return problem.origin.training.take(problem.origin.rows)


def sides(problem: Problem, config: Config, display: Display) -> Sides:
    """Both models; the selector is read here where it is another one.

    Raises:
      InputError: weights or a tokenizer that cannot be used.
      ConfigError: one of `proxy.modes` does not fit the selector.
    """
    found = _sides(problem, config, display)
    for mode in config.proxy.modes:
        settings = dataclasses.replace(config.backbone, tune=mode)
        try:
            tuning.check(settings, found.selector.encoder.bert.config, found.selector.folder)
        except ConfigError as error:
            raise ConfigError(f"proxy.modes: {mode}: {error}") from error
    return found


def _sides(problem: Problem, config: Config, display: Display) -> Sides:
    if not config.proxy.path:
        return Sides(problem, problem, config, config)
    backbone = dataclasses.replace(config.backbone, path=config.proxy.path)
    selecting = dataclasses.replace(config, backbone=backbone)
    try:
        found = encode_splits(selecting, (_texts(problem),), display)
    except InputError as error:
        raise InputError(f"proxy.path, read as a backbone: {error}") from error
    selector = problem._replace(
        pool=found.rows[0], encoder=found.encoder, folder=found.folder, evaluations=()
    )
    return Sides(selector, problem, config, selecting)


class Features(NamedTuple):
    """The pool as a selector's features."""

    rows: FeatureRows  # (N, V * D)
    views: int  # V


def pretrained(both: Sides, display: Display) -> tuple[Features, Work]:
    """Features of the selector as it was pretrained, and what computing them took.

    They are read where `backbone.cache` has them, at the price that they once had: what a run costs
    must not depend on those before it. Pairs are read as differences, unless told otherwise.

    Raises:
      InputError: weights that cannot be used.
    """
    config, texts = both.selecting, both.texts
    folder = find_backbone(config.backbone.path)
    apart = texts.pair is not None and config.backbone.pairs == "auto"
    encoder = load_backbone(
        folder,
        pooling=config.backbone.pooling,
        layers=config.proxy.layers,
        pairs="difference" if apart else "joint",
        dtype=config.backbone.dtype,
    )
    features = text_features(config, encoder, folder, display)
    rows = FeatureRows(features(texts.text, texts.pair, "pool"), config.evaluation.batch)
    return Features(rows, encoder.views), features.work


class FineTuned(NamedTuple):
    """The pool as a selector has it that was fine-tuned."""

    features: np.ndarray  # (N, D)
    log_probs: np.ndarray  # (N, C): of its mean prediction


def refreshed(both: Sides, encoder: BertBackbone, head: Head) -> FineTuned:
    """The selector as it was fine-tuned: features of the pool, and what its own head makes of them.

    They are not kept on disk: their weights are those of one seed, policy and round. Only this run,
    resumed, would read them again, and every refresh would leave a pool of features behind.
    """
    config = both.selecting
    features = encode_rows(encoder, both.selector.pool)
    size, key = config.evaluation.batch, jax.random.key(config.seed)
    graph, state = nnx.split(head)
    found = [
        np.asarray(_log_probs(graph, state, jnp.asarray(some), key, config.evaluation.indices))[
            : len(places)
        ]
        for places, some in FeatureRows(features, size).batches(np.arange(len(features)))
    ]
    return FineTuned(features, np.concatenate(found))


def encode_rows(encoder: BertBackbone, rows: Rows) -> np.ndarray:
    """Features (N, V * D) of all rows."""
    graph, state = nnx.split(encoder)
    found = np.zeros((len(rows), encoder.width), np.float32)
    for places, inputs in rows.batches(np.arange(len(rows))):
        found[places] = np.asarray(_features(graph, state, inputs))[: len(places)]
    return found


@functools.partial(encoder_jit, static_argnames="graph")
def _features(graph: nnx.GraphDef, state: nnx.State, batch: Inputs) -> Array:
    found: Array = nnx.merge(graph, state)(batch)
    return found


@functools.partial(encoder_jit, static_argnames=("graph", "indices"))
def _log_probs(
    graph: nnx.GraphDef, state: nnx.State, features: Array, key: Array, indices: int
) -> Array:
    """Log of a head's mean prediction (N, C) for features (N, D)."""
    head = nnx.merge(graph, state)
    z = head.sample_index(key, indices if head.epistemic else 1)
    return mixture(jax.nn.log_softmax(head.many(features, z), axis=-1))
