"""Heads on frozen features: the shaped regression, and the linear epinet around its mean.

    f(x, z) = l(x) + sum_d z_d x A_d,   z ~ N(0, I)

x the shaped row (`shaped_features.py`), A from the regression's Laplace posterior (`laplace.py`),
l the base logits that make the mean prediction over z the regression's own
(`mean_preserving.py`). Fit once for each set of bought labels:

    pool = pool_shapes(features_of_the_unlabelled_pool)
    fit = fit_linear_epinet(features, targets, weights, pool, key=key)
    head = LinearEpinet(fit)
    logits = head.many(features, head.sample_index(key, 10))
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from enn_finetune.models.laplace import INDEX_DIM, LinearEpinetFit, bucket, fit_linear_epinet
from enn_finetune.models.mean_preserving import mean_preserving_difference, mean_preserving_logits
from enn_finetune.models.row_chunks import map_rows
from enn_finetune.models.shaped_features import ShapedPool, pool_shapes, shaped_rows

__all__ = [
    "Fitted",
    "LinearEpinet",
    "LinearEpinetFit",
    "ShapedLinear",
    "ShapedPool",
    "blank_fit",
    "bucket",
    "fit_linear_epinet",
    "pool_shapes",
]


class Fitted(nnx.Variable):
    """An array found in closed form: saved with the model, out of reach of `wrt=nnx.Param`."""


def blank_fit(
    features: int, classes: int, index_dim: int = INDEX_DIM, *, views: int = 1
) -> LinearEpinetFit:
    """A fit of nothing, all zeros: its shapes are what a checkpoint fills; `features` is V * D."""
    width = features // views
    return LinearEpinetFit(
        mean=jnp.zeros(features),
        matrix=jnp.zeros((features, width)),
        coefficients=jnp.zeros((width + 1, classes)),
        factor=jnp.zeros((index_dim, width + 1, classes)),
        exponent=jnp.zeros(()),
        l2=jnp.ones(()),
        reading=jnp.zeros((), jnp.int32),
        evidence=jnp.zeros((1, 1)),
        described=jnp.zeros(()),
    )


class ShapedLinear(nnx.Module):
    """The regression alone: logits [matrix' (phi - mean), bias] W*, the same for every index.

    Args:
      fit: one fit (index a vmapped one first), or `blank_fit` where a checkpoint follows.
    """

    epistemic = False

    def __init__(self, fit: LinearEpinetFit) -> None:
        self.features, self.classes = fit.mean.shape[0], fit.coefficients.shape[1]
        self.mean, self.matrix = Fitted(fit.mean), Fitted(fit.matrix)
        self.coefficients = Fitted(fit.coefficients)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {
            "kind": "shaped_linear",
            "features": self.features,
            "classes": self.classes,
            "views": self.features // self.matrix[...].shape[1],
        }

    def rows(self, features: Array) -> Array:
        """Features (N, D) -> the rows (N, D + 1) that the regression sees."""
        return shaped_rows(features, self.mean[...], self.matrix[...])

    def sample_index(self, key: Array, count: int) -> Array:
        """Indices without content: (K, 0)."""
        del key
        return jnp.zeros((count, 0))

    def __call__(self, features: Array, z: Array | None = None) -> Array:
        """Logits (N, C) for features (N, V * D), whatever the index."""
        del z
        return jnp.matmul(self.rows(features), self.coefficients[...], precision="highest")

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1)."""
        logits = jnp.matmul(x, self.coefficients[...], precision="highest")
        return jnp.broadcast_to(logits[None], (z.shape[0], *logits.shape))

    def many(self, features: Array, z: Array) -> Array:
        """The same logits for each index: (K, N, C)."""
        return self.from_rows(self.rows(features), z)


class LinearEpinet(nnx.Module):
    """A regression's Laplace posterior as an epinet whose mean prediction is the regression's.

    Args:
      fit: one fit (index a vmapped one first), or `blank_fit` where a checkpoint follows.
    """

    epistemic = True

    def __init__(self, fit: LinearEpinetFit) -> None:
        self.features, self.classes = fit.mean.shape[0], fit.coefficients.shape[1]
        self.index_dim = fit.factor.shape[0]
        self.base = ShapedLinear(fit)
        self.factor = Fitted(fit.factor)

    def plain(self) -> ShapedLinear:
        """The regression without the epinet: the equally tuned plain head."""
        return self.base

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {
            "kind": "linear_epinet",
            "features": self.features,
            "classes": self.classes,
            "index_dim": self.index_dim,
            "views": self.base.config["views"],
        }

    def sample_index(self, key: Array, count: int) -> Array:
        """Draw K indices as pairs z, -z, z', -z', ... (for odd K the last is alone): (K, dim z)."""
        z = jax.random.normal(key, ((count + 1) // 2, self.index_dim))
        return jnp.stack([z, -z], axis=1).reshape(-1, self.index_dim)[:count]

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, D) and one index z (dim z,)."""
        return self.many(features, z[None])[0]

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the regression sees."""
        return self.base.rows(features)

    def mean_from_rows(self, x: Array) -> Array:
        """Log of the mean prediction over all z (N, C) for rows x (N, D + 1): the regression's.

        A mean over K indices is this but for sampling noise, and for C > 2 the quadrature's error.
        """
        return jax.nn.log_softmax(self.base.from_rows(x, jnp.zeros((1, 0)))[0], axis=-1)

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and indices z (K, dim z), in row chunks."""
        floats = 6 * self.index_dim * self.classes
        return map_rows(
            lambda chunk: self.from_rows(self.rows(chunk), z), features, floats_per_row=floats
        )

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and indices z (K, dim z).

        Every row meets the factor once, whatever K: the base logits need its spread anyway.
        """
        factor = jnp.moveaxis(self.factor[...], 0, 1)  # (D + 1, dim z, C)
        width, index_dim, classes = factor.shape
        if classes == 2:  # the logit difference alone, in one column a dimension of z
            coefficients = self.base.coefficients[...]
            wanted = jnp.matmul(x, coefficients[:, 1] - coefficients[:, 0], precision="highest")
            spread = jnp.matmul(x, factor[..., 1] - factor[..., 0], precision="highest")
            base = mean_preserving_difference(wanted, jnp.sqrt(jnp.sum(spread**2, axis=1)))
            half = 0.5 * (base[None] + jnp.matmul(z, spread.T, precision="highest"))
            return jnp.stack([-half, half], axis=-1)
        spread = jnp.matmul(x, factor.reshape(width, -1), precision="highest")
        spread = spread.reshape(-1, index_dim, classes)
        wanted = jnp.matmul(x, self.base.coefficients[...], precision="highest")
        base = mean_preserving_logits(wanted, spread)
        return base[None] + jnp.einsum("kd,ndc->knc", z, spread, precision="highest")
