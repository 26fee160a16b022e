"""NeurONAL's pair of networks on frozen features (Ban et al. 2024, arXiv 2404.12522), full batch.

    f(x, z) = p(x) + z f2(x),   z from 0 to 2, in pairs z, 2 - z

f1, the exploitation network, predicts class probabilities p: the shaped regression plus one hidden
layer, so that few labels are used as well as the other heads use them. f2, the exploration network,
has one hidden layer u too. It predicts the truth less p, by least squares as the paper does, from
the paper's embedding (Definition 4.1) brought to unit norm:

    f2(x) = J(x) u(phi(x)),   J = diag(p) - p p',   phi = [h, h (x) p (1 - p)],   h = [relu(x V), 1]

h is f1's hidden layer and h p_c (1 - p_c) the derivative of a class's probability by its own
last-layer weights. J is not in the paper: it makes u a shift of logits, so that residuals add up
to 0 over classes and are expected where p is undecided. Without it f2 took from confident rows
what they could not spare (SST-2, 32 labels, a stronger hidden layer: NLL .65 before f2, .72 after).

The paper sees rows one after another, so that f2 learns what f1 got wrong on a row *before* it was
trained on it. Here every round is fitted anew to all rows, and the residuals are cross-validated:
f1 is fitted without a fold, and its residuals and embeddings of that fold are what f2 learns from.

An index z says how far to believe f2: 0 is exploitation alone, and the mean over indices, z = 1,
the paper's f1 + f2, which it predicts with and whose gaps its rules read
(`acquisition/neuronal.py`). Indices disagree about a row by what f2 expects p to be wrong by, and
that is what epistemic rules read. No probability is taken below FLOOR of p's; where that cuts in,
the mean over indices is near f1 + f2 and not equal to it, and `mean_from_rows` is exact.

On 1,000 rows of SST-2 and CoLA, 32 and 128 labels, 3 seeds: NLL of the regression .571 .477 .666
.625, of f1 .573 .478 .666 .625, of f1 + f2 .582 .479 .671 .628; |f2| and the error of f1 correlate
at .30 .23 .02 .00. So f2 finds the rows f1 is wrong on where there is a boundary to find, and is no
better as a predictor: the head is for its rules. (BEND and SIGNAL are the best of five settings on
these same rows and seeds.)
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from enn_finetune.models.folds import FOLDS, stratified_folds, training_weights
from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.linear_epinet import Fitted, ShapedLinear
from enn_finetune.models.members import sizes
from enn_finetune.models.mlp_epinet import lbfgs
from enn_finetune.models.regressions import fit_regressions
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.models.softmax_regression import rotate

HIDDEN = 32
STEPS = 40
BEND = 0.1
"""Prior deviation of the hidden layer's logits, over that of the regression's."""
SIGNAL = 0.3
"""Prior deviation of the shift of logits that f2 stands for."""
FLOOR = 0.1
TINY = 1e-30
TOLERANCE = 1e-6  # of the regressions without a fold


class TwoLayers(NamedTuple):
    """relu(rows V) U."""

    first: Array  # (F, H)
    last: Array  # (H, C)


class NeuronalFit(NamedTuple):
    """What `Neuronal` is made of."""

    shaped: LinearEpinetFit
    exploitation: TwoLayers  # of shaped rows: added to the regression's logits
    exploration: TwoLayers  # of embeddings: added to probabilities
    scale: Array  # (): of the hidden layer's logits
    objectives: Array  # (2,): at the end
    gradients: Array  # (2,): their norms at the end


def fit_neuronal(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> NeuronalFit:
    """Fit f1 to all rows and without each fold, then f2 to what those got wrong.

    Arguments as `fit_linear_epinet`'s; 1 + FOLDS fits of f1, side by side.
    """
    keys = jax.random.split(key, 4)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=keys[0], index_dim=1)
    used = weights > 0
    x = jnp.where(used[:, None], shaped.rows(jnp.where(used[:, None], features, 0)), 0)
    targets = jnp.where(used[:, None], targets, 0)
    classes, scale = targets.shape[1], BEND * lax.rsqrt(shaped.l2)
    with jax.default_matmul_precision("highest"):
        fold = stratified_folds(targets, weights, keys[1])
        held = training_weights(fold, weights)
        regressions = fit_regressions(rotate(x, weights), targets, held, shaped.l2,
            start=jnp.zeros((min(x.shape), FOLDS, classes)), tolerance=TOLERANCE)  # fmt: skip
        start = blank_layers(keys[2], x.shape[1], classes)

        def exploit(base: Array, row_weights: Array) -> tuple[TwoLayers, Array, Array]:
            def objective(net: TwoLayers) -> Array:
                log_probs = jax.nn.log_softmax(base + scale * outputs(net, x), axis=-1)
                losses = -jnp.sum(targets * log_probs, axis=-1)
                return jnp.sum(row_weights * losses) + moved(net, start)

            return minimise(objective, start)

        rotated = rotate(x, weights).rows
        bases = jnp.einsum("nr,rfc->fnc", rotated, regressions)
        bases = jnp.concatenate([bases, (x @ shaped.coefficients)[None]])
        nets, values, slopes = jax.vmap(exploit)(bases, jnp.append(held.T, weights[None], axis=0))

        logits = bases + scale * jax.vmap(outputs, (0, None))(nets, x)
        probs = jax.nn.softmax(logits, axis=-1)
        phis = jax.vmap(embedding, (0, None, 0))(nets, x, probs)
        own = jnp.maximum(fold, 0), jnp.arange(x.shape[0])
        residuals = jnp.where(used[:, None], targets - probs[own], 0)
        variance = jnp.sum(weights[:, None] * residuals**2) / jnp.maximum(
            jnp.sum(weights) * classes, TINY
        )
        variance = jnp.maximum(variance, 1e-6)
        learned, value, slope = explore(
            phis[own], probs[own], residuals, weights / variance, keys[3]
        )
    return NeuronalFit(
        shaped,
        jax.tree.map(lambda leaf: leaf[-1], nets),
        learned,
        scale,
        jnp.stack([values[-1], value]),
        jnp.stack([slopes[-1], slope]),
    )


def explore(
    phi: Array, probs: Array, residuals: Array, weights: Array, key: Array
) -> tuple[TwoLayers, Array, Array]:
    """f2: weighted least squares on residuals (N, C) by embeddings (N, F)."""
    start = blank_layers(key, phi.shape[1], residuals.shape[1])

    def objective(net: TwoLayers) -> Array:
        errors = jnp.sum((residuals - corrections(net, phi, probs)) ** 2, axis=-1)
        return 0.5 * jnp.sum(weights * errors) + moved(net, start)

    return minimise(objective, start)


def minimise(objective: Any, start: TwoLayers) -> tuple[TwoLayers, Array, Array]:
    """By L-BFGS -> the network, its objective, its gradient's norm."""
    return cast(tuple[TwoLayers, Array, Array], cast(Any, lbfgs)(objective, start, STEPS))


def blank_layers(key: Array, width: int, classes: int) -> TwoLayers:
    """Random hidden units of rows of a norm of about 1; the output is 0 until it is trained."""
    return TwoLayers(jax.random.normal(key, (width, HIDDEN)), jnp.zeros((HIDDEN, classes)))


def outputs(net: TwoLayers, rows: Array) -> Array:
    """(N, C) of rows (N, F); of order 1 where the last layer's weights are."""
    units = jax.nn.relu(rows @ net.first)
    return units @ net.last * (2 / HIDDEN) ** 0.5


def moved(net: TwoLayers, start: TwoLayers) -> Array:
    """Half the squared distance of the weights from where they began: a standard normal prior."""
    first, last = (jnp.sum((a - b) ** 2) for a, b in zip(net, start, strict=True))
    return 0.5 * (first + last)


def corrections(net: TwoLayers, phi: Array, probs: Array) -> Array:
    """What f2 adds to probabilities (N, C): a shift of logits, times the softmax's derivative."""
    shift = SIGNAL * outputs(net, phi)
    return probs * (shift - jnp.sum(probs * shift, axis=-1, keepdims=True))


def embedding(net: TwoLayers, x: Array, probs: Array) -> Array:
    """Phi (N, (H + 1) (1 + C)) of rows x (N, D + 1) that f1 gives probabilities (N, C)."""
    units = jax.nn.relu(x @ net.first) * (2 / HIDDEN) ** 0.5
    units = jnp.concatenate([units, jnp.ones_like(x[:, :1])], axis=1)
    slopes = units[:, :, None] * (probs * (1 - probs))[:, None]
    phi = jnp.concatenate([units, slopes.reshape(x.shape[0], -1)], axis=1)
    return phi / jnp.sqrt(jnp.sum(phi**2, axis=-1, keepdims=True))  # the constant unit: never 0


class Neuronal(nnx.Module):
    """An exploitation network, and an exploration network that an index weighs.

    Args:
      fit: one fit (index a vmapped one first).
    """

    epistemic = True

    def __init__(self, fit: NeuronalFit) -> None:
        self.base = ShapedLinear(fit.shaped)
        self.features, self.classes = self.base.features, self.base.classes
        self.exploitation = nnx.List([Fitted(part) for part in fit.exploitation])
        self.exploration = nnx.List([Fitted(part) for part in fit.exploration])
        self.scale = Fitted(fit.scale)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {"kind": "neuronal", **sizes(self.base)}

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that f1 reads."""
        return self.base.rows(features)

    def sample_index(self, key: Array, count: int) -> Array:
        """Weights of f2 (K, 1), from 0 to 2 in pairs z, 2 - z; for odd K the last is alone.

        The pairs fill 0 to 1 evenly, one in each of as many parts, so that a few spread too.
        """
        pairs, (order, places) = (count + 1) // 2, jax.random.split(key)
        parts = jax.random.permutation(order, pairs)[:, None]
        low = (parts + jax.random.uniform(places, (pairs, 1))) / pairs
        return jnp.stack([low, 2 - low], axis=1).reshape(-1, 1)[:count]

    def networks(self, x: Array) -> tuple[Array, Array]:
        """f1's probabilities and f2's corrections of them, both (N, C), for rows x (N, D + 1)."""
        first = TwoLayers(*(part[...] for part in self.exploitation))
        second = TwoLayers(*(part[...] for part in self.exploration))
        with jax.default_matmul_precision("highest"):
            logits = x @ self.base.coefficients[...] + self.scale[...] * outputs(first, x)
            probs = jax.nn.softmax(logits, axis=-1)
            phi = embedding(first, x, probs)
            return probs, corrections(second, phi, probs)

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and indices z (K, 1)."""
        probs, corrections = self.networks(x)
        both = probs[None] + z[:, :, None] * corrections[None]
        return jnp.log(jnp.maximum(jnp.maximum(both, FLOOR * probs[None]), TINY))

    def mean_from_rows(self, x: Array) -> Array:
        """Log of f1 + f2 (N, C) for rows x (N, D + 1): what the paper predicts with."""
        return jax.nn.log_softmax(self.from_rows(x, jnp.ones((1, 1)))[0], axis=-1)

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, V * D) and one index z (1,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and indices z (K, 1)."""
        width = 2 * self.features + (z.shape[0] + 2 * HIDDEN) * self.classes
        return map_rows(
            lambda rows: self.from_rows(self.rows(rows), z), features, floats_per_row=width
        )
