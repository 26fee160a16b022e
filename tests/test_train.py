"""The step: what it trains and what it cannot touch, its schedule, its average, its one trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import nnx

from enn_finetune import asking, train
from enn_finetune.config.schema import TrainConfig
from enn_finetune.models.backbone import Identity, load_backbone
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.epinet import Prior
from enn_finetune.models.heads import make_head
from enn_finetune.types import TokenBatch

CONFIG = TrainConfig(batch=4, lr=1e-2, head_lr=1e-2, warmup=0, weight_decay=0.1, indices=2)
KEY, TOTAL = jax.random.key(5), jnp.float32(10)
D, C = 8, 3


def head(kind: str = "epinet") -> nnx.Module:
    settings = {"hidden": [5], "index_dim": 4} if kind == "epinet" else {}
    return make_head({"kind": kind, "features": D, "classes": C, **settings}, rngs=nnx.Rngs(1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    world = tiny_runs.write_world(tmp_path_factory.mktemp("world"))
    return load_backbone(world / "bert", pooling="mean")


@pytest.fixture
def parts():
    return train.split(Classifier(Identity(D), head()), "frozen")


def batch(inputs: object = None, *, rows: int = 4, padding: int = 0) -> train.Batch:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(rows, D)).astype(np.float32)
    targets = np.eye(C, dtype=np.float32)[np.arange(rows) % C]
    numbers = rng.permutation(50)[:rows].astype(np.int32)

    def padded(array: np.ndarray) -> jax.Array:
        return jnp.asarray(np.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1)))

    return train.Batch(
        inputs=padded(features) if inputs is None else inputs,
        targets=padded(targets),
        weights=padded(np.ones(rows, np.float32)),
        rows=padded(numbers),
        labels=jnp.float32(17),
    )


def tokens(*ids: int) -> TokenBatch:
    """Four examples, one a row: [CLS], two of the ids, [SEP]."""
    content = np.resize(np.asarray(ids, np.int32), (4, 2))
    ends = np.full((4, 1), 2), np.full((4, 1), 3)
    return TokenBatch(
        ids=np.hstack([ends[0], content, ends[1]]).astype(np.int32),
        types=np.zeros((4, 4), np.int32),
        positions=np.tile(np.arange(4, dtype=np.int32), (4, 1)),
        owner=np.repeat(np.arange(4, dtype=np.int32)[:, None], 4, axis=1),
        first=np.arange(4, dtype=np.int32) * 4,
    )


def steps(parts, batches, config=CONFIG, embeddings="frozen", key=KEY):
    """The states after each batch, as numpy, the one before the first included."""
    state = train.begin(parts, config, embeddings)
    states = [jax.tree.map(np.asarray, state)]
    for each in batches:
        state, _ = train.train_step(
            parts.graph, parts.fixed, state, each, key, config=config, total=TOTAL
        )
        states.append(jax.tree.map(np.asarray, state))
    return states


def words(parts, state) -> np.ndarray:
    """The word table as it stands."""
    return np.asarray(train.merge(train.view(parts, state, averaged=False)).backbone.bert.word[...])


def same(one: object, other: object) -> bool:
    pairs = zip(tiny_runs.leaves(one), tiny_runs.leaves(other), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


# What is trained


def test_the_prior_and_a_frozen_word_table_are_not_among_the_trained(encoder):
    classifier = Classifier(encoder, head())
    frozen = train.split(classifier, "frozen")
    dense = train.split(classifier, "dense")
    trained = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(frozen.params)}
    every = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(dense.params)}
    assert every - trained == {"backbone.bert.word"}
    assert {name.split(".")[0] for name in trained} == {"backbone", "head"}
    for parts in (frozen, dense):
        kinds = [type(variable) for _, variable in nnx.to_flat_state(parts.params)]
        assert all(issubclass(kind, nnx.Param) and not issubclass(kind, Prior) for kind in kinds)
    assert jax.tree.leaves(nnx.state(head(), Prior)), "there is a prior to protect"


def test_the_prior_never_changes_and_everything_else_does(parts):
    """Law 7, with weight decay and L2."""
    before = jax.tree.map(np.asarray, parts.fixed)
    first, *_, last = steps(parts, [batch()] * 5)
    assert same(before, parts.fixed)
    for old, new in zip(tiny_runs.leaves(first.params), tiny_runs.leaves(last.params), strict=True):
        assert not np.array_equal(old, new)
    assert same(first.params, parts.params), "the pretrained weights outlive the training"


def test_groups_have_their_own_rates_and_only_kernels_of_the_encoder_decay(encoder):
    params = train.split(Classifier(encoder, head()), "frozen").params
    config = dataclasses.replace(CONFIG, lr=0.25, head_lr=0.5, weight_decay=0.1)
    optimizer = train.optimizer(config)

    @jax.jit
    def updates(params: nnx.State, gradient: float) -> nnx.State:
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    moved, decayed = updates(params, 1.0), updates(params, 0.0)
    old, by_gradient, by_decay = (dict(nnx.to_flat_state(t)) for t in (params, moved, decayed))
    for path, leaf in old.items():
        weights = np.asarray(leaf[...])
        rate = 0.25 if path[0] == "backbone" else 0.5
        decay = 0.1 * 0.25 * weights if path[0] == "backbone" and weights.ndim > 1 else 0 * weights
        np.testing.assert_allclose(by_decay[path][...], -decay, atol=1e-6)
        np.testing.assert_allclose(by_gradient[path][...], -rate - decay, atol=1e-5)


@pytest.mark.parametrize("config", [{}, {"schedule": "linear"}])
def test_the_rate_warms_up_and_decays_to_zero(config):
    config = TrainConfig(warmup=4, **config)
    found = [float(train.rate(jnp.int32(s), jnp.float32(12), config)) for s in range(13)]
    np.testing.assert_allclose(found[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    rest = np.ones(9) if config.schedule == "constant" else np.linspace(1, 0, 9)
    np.testing.assert_allclose(found[4:], rest, atol=1e-6)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert float(train.rate(jnp.int32(0), jnp.float32(0), TrainConfig(warmup=0))) == 1


# The word table


@pytest.mark.slow
def test_word_table_frozen_touched_and_dense(encoder):
    config = dataclasses.replace(CONFIG, weight_decay=0.0)
    classifier = Classifier(encoder, head())
    table = np.asarray(encoder.bert.word[...])
    always, once = [2, 3, 7, 9], [20, 21]
    batches = [batch(tokens(7, 9))] * 2 + [batch(tokens(7, 9, 20, 21))] + [batch(tokens(7, 9))] * 2
    found = {}
    for embeddings in ("frozen", "touched", "dense"):
        parts = train.split(classifier, embeddings)
        states = steps(parts, batches, config, embeddings)
        found[embeddings] = [words(parts, state) for state in states]
    assert all((t == table).all() for t in found["frozen"])
    for embeddings in ("touched", "dense"):
        moved = np.flatnonzero((found[embeddings][-1] != table).any(axis=1))
        assert moved.tolist() == sorted(always + once)
    # Rows touched at every step move as under dense Adam, as long as the rest of the model agrees.
    for one, other in zip(found["touched"][:4], found["dense"][:4], strict=True):
        np.testing.assert_allclose(one[always], other[always], atol=1e-5)
    # A row that is not in the batch rests under touched, and is carried on by its moment in dense.
    assert (found["touched"][-1][once] == found["touched"][-2][once]).all()
    assert (found["dense"][-1][once] != found["dense"][-2][once]).any()
    assert (np.asarray(encoder.bert.word[...]) == table).all()


def test_touched_words_of_a_backbone_without_words(parts):
    assert train.begin(parts, CONFIG, "touched").words is None


# The step


def test_padding_rows_do_not_count(parts):
    plain, padded = steps(parts, [batch()] * 2)[-1], steps(parts, [batch(padding=3)] * 2)[-1]
    for one, other in zip(tiny_runs.leaves(plain), tiny_runs.leaves(padded), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_randomness_is_a_function_of_seed_and_step(parts):
    batches = [batch()] * 3
    assert same(steps(parts, batches)[-1], steps(parts, batches)[-1])
    other = steps(parts, batches, key=jax.random.key(6))[-1]
    assert not same(steps(parts, batches)[-1].params, other.params)
    # Indices are drawn afresh at each step: from one set of weights, two steps differ.
    state = train.begin(parts, CONFIG, "frozen")
    later = train.begin(parts, CONFIG, "frozen")._replace(step=jnp.int32(1))
    losses = [
        train.train_step(parts.graph, parts.fixed, s, batch(), KEY, config=CONFIG, total=TOTAL)[1]
        for s in (state, later)
    ]
    assert losses[0] != losses[1]


def test_the_average_is_a_plain_mean_at_first(parts):
    states = steps(parts, [batch()] * 4)
    mean = jax.tree.map(lambda *each: np.mean(each, axis=0), *[s.params for s in states[1:]])
    averages = zip(tiny_runs.leaves(mean), tiny_runs.leaves(states[-1].average), strict=True)
    for expected, found in averages:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    averaged = train.view(parts, states[-1], averaged=True).params
    assert same(averaged, states[-1].average)
    assert same(train.view(parts, states[-1], averaged=False).params, states[-1].params)


def test_fixed_shapes_are_traced_once(parts):
    """Law 6: other rows, seeds, totals and states share one program."""
    steps(parts, [batch()])
    before = train.train_step._cache_size()
    steps(parts, [batch()] * 3, key=jax.random.key(9))
    again = train.split(Classifier(Identity(D), head()), "frozen")
    steps(again, [batch(rows=3, padding=1)] * 2)
    assert train.train_step._cache_size() == before


def test_the_loss_is_cross_entropy_and_the_heads_l2_over_n(parts):
    classifier = train.merge(parts)

    def loss(l2: float, n: float) -> float:
        config = dataclasses.replace(CONFIG, l2=l2)
        return float(train.loss(classifier, batch()._replace(labels=jnp.float32(n)), KEY, config))

    squares = sum(float(np.sum(leaf**2)) for leaf in tiny_runs.leaves(parts.params["head"]))
    assert squares > 0
    np.testing.assert_allclose(loss(2, 10) - loss(0, 10), squares / 10, rtol=1e-3)
    np.testing.assert_allclose(loss(2, 20) - loss(0, 20), squares / 20, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bernoulli", "exponential"])
def test_the_bootstrap_weighs_a_row_alike_wherever_it_stands(parts, kind):
    config = dataclasses.replace(CONFIG, bootstrap=kind)
    classifier, one = train.merge(parts), batch()
    order = np.asarray([2, 0, 3, 1])
    other = one._replace(inputs=one.inputs[order], targets=one.targets[order], rows=one.rows[order])
    found = [float(train.loss(classifier, b, KEY, config)) for b in (one, other)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    renamed = one._replace(rows=one.rows + 100)
    assert float(train.loss(classifier, renamed, KEY, config)) != pytest.approx(found[0])


# Predictions


@pytest.mark.parametrize("kind", ["linear", "epinet"])
def test_predictions_are_normalised_and_scores_finite(kind):
    parts = train.split(Classifier(Identity(D), head(kind)), "frozen")
    inputs = batch().inputs * 1e3  # saturated
    log_probs, each = train.predictions(parts, inputs, KEY, indices=4)
    assert each.shape == (4 if kind == "epinet" else 1, *log_probs.shape)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-5)
    scores = asking.read(parts, inputs, KEY, indices=4, rule="bald").kept
    assert np.isfinite(scores).all()
    if kind == "linear":
        np.testing.assert_allclose(scores, 0, atol=1e-6)
