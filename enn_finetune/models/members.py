"""A head of M functions linear in the shaped row: an ensemble, or draws from a posterior.

An index is a member's number. The same K columns of weights meet every row, in one product.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from enn_finetune.models.laplace import LinearEpinetFit
from enn_finetune.models.linear_epinet import Fitted, ShapedLinear
from enn_finetune.models.row_chunks import map_rows


def draw_members(key: Array, count: int, members: int, together: int = 1) -> Array:
    """Numbers (K, 1) of members: each as often as any other (once more or less where K says so).

    Args:
      key: of the order.
      count: K.
      members: M.
      together: this many neighbours stay beside each other, as a draw and its mirror image do.
    """
    groups = members // together
    rounds = math.ceil(count / members)
    orders = jax.vmap(lambda k: jax.random.permutation(k, groups))(jax.random.split(key, rounds))
    numbers = together * orders[..., None] + jnp.arange(together)[None, None]
    return numbers.reshape(-1, 1)[:count]


def apply_members(x: Array, weights: Array, z: Array) -> Array:
    """Rows (N, F), weights (M, F, C), numbers (K, 1) -> logits (K, N, C)."""
    chosen = weights[z[:, 0]]
    flat = jnp.moveaxis(chosen, 0, 1).reshape(x.shape[1], -1)
    logits = jnp.matmul(x, flat, precision="highest")
    return jnp.moveaxis(logits.reshape(x.shape[0], z.shape[0], -1), 1, 0)


def sizes(base: ShapedLinear) -> dict[str, object]:
    """The part of a config that says what rows a head's regression reads."""
    return {key: base.config[key] for key in ("features", "classes", "views")}


class Members(nnx.Module):
    """Logits x W_m of the member m that an index names, x the shaped row.

    Args:
      shaped: the fit whose rows the members read (index a vmapped one first).
      weights: (M, D + 1, C).
      together: neighbours that `sample_index` keeps together; 2 for mirrored draws.
    """

    epistemic = True

    def __init__(self, shaped: LinearEpinetFit, weights: Array, *, together: int = 1) -> None:
        self.base = ShapedLinear(shaped)
        self.features, self.classes = self.base.features, self.base.classes
        self.together = together
        self.weights = Fitted(weights)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {
            "kind": "members",
            **sizes(self.base),
            "members": self.weights[...].shape[0],
            "together": self.together,
        }

    def rows(self, features: Array) -> Array:
        """Features (N, V * D) -> the rows (N, D + 1) that the members read."""
        return self.base.rows(features)

    def sample_index(self, key: Array, count: int) -> Array:
        """Members' numbers (K, 1), each member equally often."""
        return draw_members(key, count, self.weights[...].shape[0], self.together)

    def from_rows(self, x: Array, z: Array) -> Array:
        """Logits (K, N, C) for rows x (N, D + 1) and members z (K, 1)."""
        return apply_members(x, self.weights[...], z)

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, V * D) and one index z (1,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, V * D) and members z (K, 1)."""
        width = 2 * self.features + z.shape[0] * self.classes
        return map_rows(
            lambda rows: self.from_rows(self.rows(rows), z), features, floats_per_row=width
        )
