"""The MLP epinet: one function of the features for each epistemic index (arXiv 2107.08924, sec. 4).

    f(x, z) = base(phi) + sigma_learn(sg[phi], z) + prior_scale * sigma_prior(sg[phi], z)
    sigma(phi, z) = reshape(MLP([phi, z]), (C, dim z)) . z,   z ~ N(0, I),   sg = stop gradient

`Epinet` is a plain `nnx.Module`: put it on any Flax model's features. Its loss is in
`epinet_loss.py`.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from enn_finetune.models.row_chunks import map_rows

_init_kernel = nnx.initializers.lecun_normal()


class Prior(nnx.Variable):
    """A weight of the fixed prior: not an `nnx.Param`, so `wrt=nnx.Param` never touches it."""


class IndexMLP(nnx.Module):
    """sigma(phi, z): an MLP on [phi, z] whose output, read as (C, dim z), is contracted with z."""

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: Sequence[int],
        index_dim: int,
        *,
        variable: type[nnx.Variable],
        rngs: nnx.Rngs,
    ) -> None:
        self.shape = (features, classes, index_dim)
        widths = [features + index_dim, *hidden, classes * index_dim]
        self.kernels = nnx.List(
            [
                variable(_init_kernel(rngs.params(), (fan_in, fan_out), jnp.float32))
                for fan_in, fan_out in itertools.pairwise(widths)
            ]
        )
        self.biases = nnx.List([variable(jnp.zeros(width)) for width in widths[1:]])

    def __call__(self, features: Array, z: Array) -> Array:
        """The plain definition: features (N, D), one index z (dim z,) -> (N, C)."""
        _, classes, index_dim = self.shape
        h = jnp.concatenate(
            [features, jnp.broadcast_to(z, (*features.shape[:-1], index_dim))], axis=-1
        )
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            h = jax.nn.relu(_affine(h, kernel[...], bias[...]))
        out = _affine(h, self.kernels[-1][...], self.biases[-1][...])
        return out.reshape(*features.shape[:-1], classes, index_dim) @ z

    def split_first(self) -> tuple[Array, Array, Array]:
        """The first layer as (D, H) for the features, (dim z, H) for the index, and its bias."""
        kernel, width = self.kernels[0][...], self.shape[0]
        return kernel[:width], kernel[width:], self.biases[0][...]

    def middle(self, h: Array) -> Array:
        """From the first hidden layer's units (..., H) to the last one's."""
        for kernel, bias in zip(self.kernels[1:-1], self.biases[1:-1], strict=True):
            h = jax.nn.relu(_affine(h, kernel[...], bias[...]))
        return h

    def contract_last(self, z: Array) -> tuple[Array, Array]:
        """The last layer contracted with indices z (K, dim z): kernel (K, H, C), bias (K, C)."""
        _, classes, index_dim = self.shape
        kernel, bias = self.kernels[-1][...], self.biases[-1][...]
        return (
            jnp.einsum("hcd,kd->khc", kernel.reshape(-1, classes, index_dim), z),
            z @ bias.reshape(classes, index_dim).T,
        )


class Epinet(nnx.Module):
    """A head whose logits depend on an epistemic index: base + learnable part + fixed prior.

    Args:
      features: D, the feature width.
      classes: C.
      base: an nnx module, features (N, D) -> logits (N, C); by default a linear layer. Only its
        gradient reaches the features: the epinet proper sees them through a stop gradient.
      hidden: widths of the hidden layers of the learnable and of the prior network; () is allowed.
      index_dim: dim z.
      prior_scale: the prior's factor; 0 leaves it out of the sum.
      rngs: seeds of the weights, e.g. `nnx.Rngs(0)`.

    Raises:
      ValueError: for a size below 1 or a prior scale that is negative or not finite.
    """

    epistemic = True

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        base: nnx.Module | None = None,
        hidden: Sequence[int] = (50,),
        index_dim: int = 10,
        prior_scale: float = 1.0,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = (features, classes, index_dim, *hidden)
        if min(sizes) < 1:
            raise ValueError(
                f"an epinet needs sizes of at least 1, got {features=} {classes=} {index_dim=} "
                f"hidden={tuple(hidden)}"
            )
        if not (math.isfinite(prior_scale) and prior_scale >= 0):
            raise ValueError(f"prior_scale must be finite and at least 0, got {prior_scale=}")
        self.features, self.classes, self.index_dim = features, classes, index_dim
        self.hidden, self.prior_scale = tuple(hidden), float(prior_scale)
        self.default_base = base is None
        self.base = nnx.Linear(features, classes, rngs=rngs) if base is None else base
        self.learnable, self.prior = (
            IndexMLP(features, classes, self.hidden, index_dim, variable=variable, rngs=rngs)
            for variable in (nnx.Param, Prior)
        )

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        if not self.default_base:
            raise ValueError("an epinet with a base of your own has no config: build it yourself")
        return {
            "kind": "epinet",
            "features": self.features,
            "classes": self.classes,
            "hidden": list(self.hidden),
            "index_dim": self.index_dim,
            "prior_scale": self.prior_scale,
        }

    def sample_index(self, key: Array, count: int) -> Array:
        """Draw `count` indices from N(0, I) -> (K, dim z)."""
        return jax.random.normal(key, (count, self.index_dim))

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, D) and one index z (dim z,)."""
        fixed = lax.stop_gradient(features)
        base = _base_logits(self.base, features)
        return base + self.learnable(fixed, z) + self.prior_scale * self.prior(fixed, z)

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, D) and indices z (K, dim z): `__call__`'s, faster.

        The features' half of the first layer is computed once for all indices, the last layer is
        contracted with z before it meets a row, and rows go by in chunks that stay in the cache.
        """
        base = _base_logits(self.base, features)
        return base[None] + self._sigma(lax.stop_gradient(features), z)

    def _sigma(self, features: Array, z: Array) -> Array:
        """Learnable part + prior_scale * prior (K, N, C): both networks as one of double width."""
        nets = (self.learnable, self.prior)
        kernels, bias = zip(*(net.contract_last(z) for net in nets), strict=True)
        last = jnp.concatenate([kernels[0], self.prior_scale * kernels[1]], axis=1)
        last_bias = bias[0] + self.prior_scale * bias[1]
        if not self.hidden:  # the only layer is the last: split it between features and index
            per_feature = kernels[0] + self.prior_scale * kernels[1]
            width = self.features
            constant = jnp.einsum("kd,kdc->kc", z, per_feature[:, width:]) + last_bias
            return features @ per_feature[:, :width] + constant[:, None]

        of_features, of_index, first_bias = (
            jnp.concatenate(parts, axis=-1)
            for parts in zip(*(net.split_first() for net in nets), strict=True)
        )
        from_features = features @ of_features  # (N, 2H)
        from_index = z @ of_index + first_bias[None]  # (K, 2H)

        def chunk(rows: Array) -> Array:
            h = jax.nn.relu(rows[None] + from_index[:, None])
            if len(self.hidden) > 1:
                halves = zip(nets, jnp.split(h, 2, axis=-1), strict=True)
                h = jnp.concatenate([net.middle(half) for net, half in halves], axis=-1)
            return h @ last + last_bias[:, None]

        return map_rows(chunk, from_features, floats_per_row=2 * max(self.hidden) * z.shape[0])


def _affine(h: Array, kernel: Array, bias: Array) -> Array:
    return h @ kernel + bias.reshape((1,) * (h.ndim - 1) + (-1,))


def _base_logits(base: nnx.Module, features: Array) -> Array:
    if not callable(base):
        raise TypeError(f"the base must map features to logits, got {type(base).__name__}")
    return base(features)
