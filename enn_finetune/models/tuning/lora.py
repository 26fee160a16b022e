"""LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank additions to the matrices of an encoder."""

import jax
import jax.numpy as jnp
from flax import nnx

from enn_finetune.config.schema import BackboneConfig
from enn_finetune.models.bert import ACTIVATIONS, Bert, Dense
from enn_finetune.models.ops import dense

Array = jax.Array

QUERY, KEY, VALUE = range(3)
"""Places in the fused projection of a layer."""


class Factor(nnx.Param):
    """One of the two thin matrices of an addition."""


class LoraDense(nnx.Module):
    """x W + b + (alpha / r) x A B, for some of the equal parts that W's columns are made of.

    A is drawn from N(0, 1 / in) and B is 0, so that it begins as x W + b (section 4.1).
    """

    def __init__(
        self,
        inner: Dense,
        rank: int,
        alpha: float,
        *,
        parts: tuple[int, ...] = (0,),
        of: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        """Add to the `parts`, numbered from 0 and rising, of the `of` parts of a matrix."""
        width, out = inner.kernel.shape
        dtype = inner.kernel.dtype
        draw = nnx.initializers.normal(width**-0.5)
        self.inner = inner
        self.down = Factor(draw(rngs.params(), (width, len(parts) * rank), dtype))
        self.up = Factor(jnp.zeros((len(parts), rank, out // of), dtype))
        self.scale = alpha / rank
        self.parts = parts
        self.of = of

    def __call__(self, x: Array) -> Array:
        """(n, in) -> (n, out) in the compute dtype."""
        dtype = self.inner.dtype
        x = x.astype(dtype)
        up = self._wide().astype(dtype)
        zeros = jnp.zeros(len(up), dtype), jnp.zeros(up.shape[1], dtype)
        low = dense(x, self.down[...].astype(dtype), zeros[0])
        return self.inner(x) + dense(low, up, zeros[1])

    def activated(self, x: Array, activation: str) -> Array:
        """The activation of this name of (n, in) -> (n, out)."""
        return ACTIVATIONS[activation](self(x))

    def fold(self) -> Dense:
        """The same map as one matrix."""
        product = jnp.matmul(self.down[...], self._wide(), precision="highest")
        self.inner.kernel = nnx.Param(self.inner.kernel[...] + product)
        return self.inner

    def _wide(self) -> Array:
        """Scaled B (parts * r, out), each part's rows in its own columns.

        One product with few zeros in it is quicker than a product and a sum for each part.
        """
        ups = self.up[...] * self.scale
        zeros = jnp.zeros_like(ups[0])
        rows = [
            jnp.concatenate([up if place == part else zeros for place in range(self.of)], axis=1)
            for part, up in zip(self.parts, ups, strict=True)
        ]
        return jnp.concatenate(rows)


def add_lora(bert: Bert, settings: BackboneConfig, rngs: nnx.Rngs) -> None:
    """Put `LoraDense` in the place of the encoder's matrices that `lora_on` names."""
    every = settings.lora_on == "all"
    names = ("qkv", "out", "up", "down") if every else ("qkv",)
    for layer in bert.layers:
        for name in names:
            parts: tuple[int, ...] = (0,)
            of = 1
            if name == "qkv":
                parts, of = (QUERY, KEY, VALUE) if every else (QUERY, VALUE), 3
            inner: Dense = getattr(layer, name)
            added = LoraDense(
                inner, settings.rank, settings.lora_alpha, parts=parts, of=of, rngs=rngs
            )
            setattr(layer, name, added)
