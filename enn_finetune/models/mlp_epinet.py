"""An MLP epinet on frozen features around the shaped regression, fitted full batch by L-BFGS.

    f(x, z) = l(x) + s (sigma_learn(x, z) + sigma_prior(x, z))

    sigma(x, z) = reshape(U relu([x, z] V) + U relu([x, -z] V), (C, dim z)) . z

x the shaped row, s = 1 / sqrt(lambda) the prior standard deviation of a logit under the regression.
sigma is the network of `epinet.py`, made odd in z, so that its mean over z is nil; l are the base
logits that keep the mean prediction the regression's (`mean_preserving.py`), for the covariance
over fixed indices. The base is the regression in closed form and not trained with the epinet:
trained jointly, it is the *mixture* that fits, and the mean is what the MLP makes of it.

The learnable network starts at an output of 0 and minimises, over the fixed indices +-z_q,

    mean_q sum_i w_i b_i(z_q) CE(t_i, softmax(x_i W* + g(x_i, z_q))) + 1/2 |theta - theta_0|^2

g = s (sigma_learn + sigma_prior), b the exponential bootstrap of `epinet_loss.py`: where labels
are, it learns to cancel the prior and to follow its resample; elsewhere the prior stands.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from enn_finetune.models.epinet_loss import bootstrap_weights, row_signatures
from enn_finetune.models.laplace import LinearEpinetFit, fit_linear_epinet
from enn_finetune.models.linear_epinet import Fitted, ShapedLinear
from enn_finetune.models.mean_preserving import mean_preserving_logits
from enn_finetune.models.members import sizes
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool

HIDDEN = 32
INDEX_DIM = 8
FRAMES = 4  # orthogonal frames of indices that are trained on, and whose covariance is preserved
STEPS = 60
UNIT_SQUARE = 4.51  # E (relu(a + b) + relu(a - b))^2 for a ~ N(0, 2), b ~ N(0, 1)


class Net(NamedTuple):
    """sigma(x, z): one hidden layer of [x, z], read as (C, dim z) and contracted with z."""

    of_row: Array  # (D + 1, H)
    of_index: Array  # (dim z, H)
    last: Array  # (H, C, dim z)


class MLPEpinetFit(NamedTuple):
    """What `MLPEpinet` is made of."""

    shaped: LinearEpinetFit
    learnable: Net
    prior: Net
    indices: Array  # (Q, dim z): half of those trained on, the others are their negatives
    scale: Array  # (): s
    objective: Array  # (): at the end
    gradient: Array  # (): its norm at the end


def fit_mlp_epinet(
    features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
) -> MLPEpinetFit:
    """Fit the regression, then the epinet around it (arguments as `fit_linear_epinet`'s)."""
    keys = jax.random.split(key, 5)
    shaped = fit_linear_epinet(features, targets, weights, pool, key=keys[0], index_dim=1)
    used = weights > 0
    x = shaped.rows(jnp.where(used[:, None], features, 0))
    targets = jnp.where(used[:, None], targets, 0)
    classes = targets.shape[1]
    base = jnp.matmul(x, shaped.coefficients, precision="highest")
    half = index_frames(keys[1])
    z = jnp.concatenate([half, -half])
    signatures = row_signatures(keys[2], jnp.arange(x.shape[0]), INDEX_DIM)
    counts = bootstrap_weights(signatures, z, "exponential") * weights[None]
    prior, start = (random_net(k, x.shape[1], classes) for k in keys[3:])
    start = start._replace(last=jnp.zeros_like(start.last))
    scale = lax.rsqrt(shaped.l2)
    fixed = net_outputs(prior, x, half)

    def objective(net: Net) -> Array:
        change = scale * (net_outputs(net, x, half) + fixed)
        logits = base[None] + jnp.concatenate([change, -change])
        losses = -jnp.sum(targets[None] * jax.nn.log_softmax(logits, axis=-1), axis=-1)
        moved = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), net, start)
        return jnp.sum(counts * losses) / z.shape[0] + 0.5 * sum(moved)

    net, value, gradient = lbfgs(objective, start, STEPS)
    return MLPEpinetFit(shaped, net, prior, half, scale, value, gradient)


def lbfgs(objective: Callable[[Net], Array], start: Net, steps: int) -> tuple[Net, Array, Array]:
    """Minimise by L-BFGS with a zoom line search -> parameters, value, gradient's norm."""
    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple[Net, Any], _: None) -> tuple[tuple[Net, Any], None]:
        net, state = carry
        value, grad = value_and_grad(net, state=state)
        updates, state = solver.update(grad, state, net, value=value, grad=grad, value_fn=objective)
        return (optax.apply_updates(net, updates), state), None

    (net, _), _ = lax.scan(step, (start, solver.init(start)), None, length=steps)
    value, grad = jax.value_and_grad(objective)(net)
    return net, value, optax.tree.norm(grad)


def index_frames(key: Array) -> Array:
    """Indices (Q, dim z): the columns of FRAMES random rotations, their covariance exactly I."""
    normal = jax.random.normal(key, (FRAMES, INDEX_DIM, INDEX_DIM))
    frames, _ = jnp.linalg.qr(normal)
    return frames.reshape(-1, INDEX_DIM) * math.sqrt(INDEX_DIM)


def paired_indices(key: Array, count: int, index_dim: int) -> Array:
    """Draw K indices from N(0, I) as pairs z, -z, z', -z', ...: (K, dim z)."""
    z = jax.random.normal(key, ((count + 1) // 2, index_dim))
    return jnp.stack([z, -z], axis=1).reshape(-1, index_dim)[:count]


def random_net(key: Array, width: int, classes: int) -> Net:
    """Normal weights under which sigma has a standard deviation of about 1 over nets and z."""
    keys = jax.random.split(key, 3)
    hidden, index_dim = HIDDEN, INDEX_DIM
    return Net(
        jax.random.normal(keys[0], (width, hidden)),  # typical rows: pre-activations of order 1
        jax.random.normal(keys[1], (index_dim, hidden)) * index_dim**-0.5,
        jax.random.normal(keys[2], (hidden, classes, index_dim)),
    )


def net_outputs(net: Net, x: Array, z: Array) -> Array:
    """Sigma (K, N, C) for rows (N, D + 1) and indices (K, dim z), odd in z."""
    hidden, index_dim = net.last.shape[0], z.shape[1]
    of_row, of_index = (x @ net.of_row)[None], (z @ net.of_index)[:, None]
    units = jax.nn.relu(of_row + of_index) + jax.nn.relu(of_row - of_index)
    last = jnp.einsum("hcd,kd->khc", net.last, z)
    return units @ last * (hidden * index_dim * UNIT_SQUARE) ** -0.5


class MLPEpinet(nnx.Module):
    """The shaped regression with an MLP epinet around its mean prediction.

    Args:
      fit: one fit (index a vmapped one first).
    """

    epistemic = True

    def __init__(self, fit: MLPEpinetFit) -> None:
        self.base = ShapedLinear(fit.shaped)
        self.features, self.classes = self.base.features, self.base.classes
        self.learnable = nnx.List([Fitted(part) for part in fit.learnable])
        self.prior = nnx.List([Fitted(part) for part in fit.prior])
        self.indices, self.scale = Fitted(fit.indices), Fitted(fit.scale)

    def plain(self) -> ShapedLinear:
        """The regression without the epinet: the equally tuned plain head."""
        return self.base

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {"kind": "mlp_epinet", **sizes(self.base)}

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the regression and the epinet read."""
        return self.base.rows(features)

    def sample_index(self, key: Array, count: int) -> Array:
        """Draw K indices as pairs z, -z, z', -z', ... (for odd K the last is alone): (K, dim z)."""
        return paired_indices(key, count, self.indices[...].shape[1])

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and indices z (K, dim z)."""
        fixed = self.indices[...]
        both = self._sigma(x, jnp.concatenate([fixed, z]))
        known, asked = both[: len(fixed)], both[len(fixed) :]
        spread = jnp.moveaxis(known, 0, 1) / math.sqrt(len(fixed))
        wanted = jnp.matmul(x, self.base.coefficients[...], precision="highest")
        return mean_preserving_logits(wanted, spread)[None] + asked

    def _sigma(self, x: Array, z: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            nets = [Net(*(part[...] for part in parts)) for parts in (self.learnable, self.prior)]
            return self.scale[...] * sum(net_outputs(net, x, z) for net in nets)

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, V * D) and one index z (dim z,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and indices z (K, dim z)."""
        units = (self.indices[...].shape[0] + z.shape[0]) * (HIDDEN + 2 * self.classes)
        return map_rows(
            lambda rows: self.from_rows(self.rows(rows), z), features, floats_per_row=units
        )
