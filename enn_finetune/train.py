"""The gradient step and the predictions: pure functions of a state that is one pytree.

What is trained is chosen once, by variable type and path (`split`); the rest (a fixed prior, a
frozen word table) is carried beside it and cannot move. The step is compiled once for each input
shape; all randomness is a function of (seed, step).
"""

import functools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from enn_finetune.compiling import encoder_jit
from enn_finetune.config.schema import TrainConfig
from enn_finetune.models import epinet_loss
from enn_finetune.models.backbone import BertBackbone, Inputs
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.touched import TouchedAdam, gather, touched, touched_adam
from enn_finetune.models.tuning import plain
from enn_finetune.predicting import mean_prediction, rows_of
from enn_finetune.types import TokenBatch

WORD_TABLE = ("backbone", "bert", "word")


class Parts(NamedTuple):
    """A classifier taken apart: its structure (hashable), what is trained, what is not."""

    graph: nnx.GraphDef
    params: nnx.State
    fixed: nnx.State


class TrainState(NamedTuple):
    """All that changes from step to step."""

    params: nnx.State
    average: nnx.State  # weight average for evaluation
    optimizer: optax.OptState
    words: TouchedAdam | None  # the word table and its moments, if trained on touched rows
    step: Array  # () int32


class Batch(NamedTuple):
    """What a step trains on; rows beyond the real ones have weight 0."""

    inputs: Inputs
    targets: Array  # (n, C) class distributions
    weights: Array  # (n,) 1 for a real row, 0 for padding
    rows: Array  # (n,) int32 row numbers, which the bootstrap's signatures depend on
    labels: Array  # () float32: labels bought so far, the n that the L2 term is divided by


def split(classifier: Classifier, embeddings: str) -> Parts:
    """Take a classifier apart; `embeddings` is backbone.embeddings of the config.

    Trained is every `nnx.Param`, but for the word table: `models.tuning.adapted` has made what its
    mode leaves alone something else.
    """

    def trained(path: tuple[object, ...], value: object) -> bool:
        is_word_table = tuple(str(part) for part in path[:3]) == WORD_TABLE
        return isinstance(value, nnx.Param) and (embeddings == "dense" or not is_word_table)

    return Parts(*nnx.split(classifier, trained, ...))


def view(parts: Parts, state: TrainState, *, averaged: bool) -> Parts:
    """The parts as they stand: averaged weights for evaluation, the current ones for scoring."""
    params = state.average if averaged else state.params
    fixed = parts.fixed
    if state.words is not None:
        fixed = _with_word_table(fixed, state.words.table)
    return Parts(parts.graph, params, fixed)


def merge(parts: Parts) -> Classifier:
    """Put a classifier together again, what a tuning mode added folded into the encoder's weights.

    It predicts the same, and as quickly as one that was trained as a whole.
    """
    classifier: Classifier = nnx.merge(*parts)
    if isinstance(classifier.backbone, BertBackbone):
        classifier.backbone.bert = plain(classifier.backbone.bert)
    return classifier


def _with_word_table(fixed: nnx.State, table: Array) -> nnx.State:
    """A copy of the untrained state in which the word table is another array."""
    flat = dict(nnx.to_flat_state(fixed))
    flat[WORD_TABLE] = flat[WORD_TABLE].replace(table)
    return nnx.from_flat_state(flat)


def rate(step: Array, total: Array, config: TrainConfig) -> Array:
    """Share () of the peak learning rate at a step: linear warm-up, then constant or decay to 0.

    `total` () is the last step that decay reaches; an array, so that runs of other lengths share
    one compiled step.
    """
    warm = jnp.minimum(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "constant":
        return warm
    left = (total - step) / jnp.maximum(total - config.warmup, 1)
    return jnp.minimum(warm, jnp.clip(left, 0, 1))


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW on the encoder (decay on matrices only) and Adam on the head, at their peak rates."""

    def group(params: nnx.State) -> nnx.State:
        return jax.tree.map_with_path(
            lambda path, _: "head" if _in_head(path) else "encoder", params
        )

    def kernels(params: nnx.State) -> nnx.State:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    encoder = optax.adamw(config.peak, weight_decay=config.weight_decay, mask=kernels)
    return optax.multi_transform({"encoder": encoder, "head": optax.adam(config.head_lr)}, group)


def begin(parts: Parts, config: TrainConfig, embeddings: str) -> TrainState:
    """The state before the first step, in memory of its own: a step reuses that of its state."""
    fixed = dict(nnx.to_flat_state(parts.fixed))
    words = None
    if embeddings == "touched" and WORD_TABLE in fixed:  # features computed before have no words
        words = TouchedAdam.begin(jnp.copy(fixed[WORD_TABLE][...]))
    return TrainState(
        params=jax.tree.map(jnp.copy, parts.params),
        average=jax.tree.map(jnp.copy, parts.params),
        optimizer=optimizer(config).init(parts.params),
        words=words,
        step=jnp.zeros((), jnp.int32),
    )


def loss(
    classifier: Classifier, batch: Batch, key: Array, config: TrainConfig, *, probe: bool = False
) -> Array:
    """Mean cross-entropy over rows and fresh indices, plus the head's L2 over n, in nats.

    arXiv 2107.08924, eq. 8, with the bootstrap weight of a row under an index if configured. A
    `probe` is a function of the head alone, on features without dropout.
    """
    index_key, dropout_key = jax.random.split(key)
    z = classifier.head.sample_index(index_key, config.indices if classifier.head.epistemic else 1)
    features = classifier.backbone(batch.inputs, key=None if probe else dropout_key)
    if probe:
        features = jax.lax.stop_gradient(features)
    log_probs = jax.nn.log_softmax(classifier.head.many(features, z), axis=-1)
    index_weights = None
    if config.bootstrap != "none" and classifier.head.epistemic:
        # One key for all steps: a row's signature is its own for good.
        signatures = epinet_loss.row_signatures(jax.random.key(0), batch.rows, z.shape[1])
        index_weights = epinet_loss.bootstrap_weights(signatures, z, config.bootstrap)
    data = epinet_loss.cross_entropy(log_probs, batch.targets, batch.weights, index_weights)
    return data + epinet_loss.l2(nnx.state(classifier.head), config.l2, batch.labels)


@functools.partial(encoder_jit, static_argnames=("config", "probe"), donate_argnames="state")
def train_step(
    graph: nnx.GraphDef,
    fixed: nnx.State,
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    config: TrainConfig,
    total: Array,
    probe: bool = False,
) -> tuple[TrainState, Array]:
    """One step; returns the new state (the old one's memory is reused) and the loss ().

    `key` is the run's; the step's own randomness is folded in from the step number. `total` () is
    the number of steps that a linear decay ends at. A `probe` step, as `train.probe_steps` are,
    leaves the encoder as it is.
    """
    key = jax.random.fold_in(key, state.step)
    words, unique, rows = state.words, None, None
    if words is not None and isinstance(batch.inputs, TokenBatch):
        unique, inverse = touched(batch.inputs.ids, words.table.shape[0])
        batch = batch._replace(inputs=batch.inputs._replace(ids=inverse))
        rows = gather(words, unique)

    def objective(params: nnx.State, rows: Array | None) -> Array:
        rest = fixed if rows is None else _with_word_table(fixed, rows)
        return loss(nnx.merge(graph, params, rest), batch, key, config, probe=probe)

    value, grads = jax.value_and_grad(objective, argnums=(0, 1))(state.params, rows)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, config.clip / (norm + 1e-12))
    grads, row_grads = jax.tree.map(lambda leaf: leaf * scale, grads)
    before = 0 if probe else config.probe_steps  # what follows the probe begins anew
    since = state.step - before
    share = rate(since, total - before, replace(config, schedule="constant") if probe else config)
    updates, moments = optimizer(config).update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, jax.tree.map(lambda leaf: leaf * share, updates))
    if words is not None and unique is not None and not probe:
        words = touched_adam(words, unique, row_grads, config.peak * share)
    # A plain mean at first, then exponential: the early average is not pulled to the start.
    decay = jnp.minimum(config.average, since / (since + 1.0))
    average = optax.incremental_update(params, state.average, 1 - decay)
    if probe:
        params, average = _head(params, state.params), _head(average, state.average)
        encoder = {"encoder": state.optimizer.inner_states["encoder"]}
        moments = moments._replace(inner_states=moments.inner_states | encoder)
    return TrainState(params, average, moments, words, state.step + 1), value


def _head(new: nnx.State, old: nnx.State) -> nnx.State:
    """The old parameters with the new ones of the head."""
    return jax.tree.map_with_path(lambda path, *both: both[not _in_head(path)], new, old)


def _in_head(path: tuple[object, ...]) -> bool:
    return path[0] == jax.tree_util.DictKey("head")


@functools.partial(encoder_jit, static_argnames="indices")
def predictions(parts: Parts, inputs: Inputs, key: Array, *, indices: int) -> tuple[Array, Array]:
    """Log of the mean prediction (N, C), and log-probabilities (K, N, C) under `indices` indices.

    The mean is exact where it is known; a plain head has K = 1.
    """
    classifier = merge(parts)
    head, features = classifier.head, classifier.backbone(inputs)
    z = head.sample_index(key, indices if head.epistemic else 1)
    log_probs = jax.nn.log_softmax(head.many(features, z), axis=-1)
    return mean_prediction(head, rows_of(head, features), log_probs), log_probs
