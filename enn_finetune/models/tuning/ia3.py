"""IA3 (T-Few: Liu et al. 2022, arXiv 2205.05638, section 3.3): scales of inner activations."""

import jax
import jax.numpy as jnp
from flax import nnx

from enn_finetune.config.schema import BackboneConfig
from enn_finetune.models.bert import Bert, Dense

Array = jax.Array


class Scale(nnx.Param):
    """Factors that activations are multiplied by; 1 at first."""


class ScaledOutputs(nnx.Module):
    """(x W + b) * s, where s is 1 for the first columns: the keys' and values' scales."""

    def __init__(self, inner: Dense, unscaled: int) -> None:
        self.inner = inner
        self.unscaled = unscaled
        self.scale = Scale(jnp.ones(inner.kernel.shape[1] - unscaled, inner.kernel.dtype))

    def __call__(self, x: Array) -> Array:
        """(n, in) -> (n, out) in the compute dtype."""
        return self.inner(x) * self._factors().astype(self.inner.dtype)[None]

    def fold(self) -> Dense:
        """The same map as one matrix."""
        factors = self._factors()
        self.inner.kernel = nnx.Param(self.inner.kernel[...] * factors[None])
        self.inner.bias = nnx.Param(self.inner.bias[...] * factors)
        return self.inner

    def _factors(self) -> Array:
        ones = jnp.ones(self.unscaled, self.scale.dtype)
        return jnp.concatenate([ones, self.scale[...]])


class ScaledInputs(nnx.Module):
    """(x * s) W + b: the scale of the feed-forward part's inner activation x."""

    def __init__(self, inner: Dense) -> None:
        self.inner = inner
        self.scale = Scale(jnp.ones(inner.kernel.shape[0], inner.kernel.dtype))

    def __call__(self, x: Array) -> Array:
        """(n, in) -> (n, out) in the compute dtype."""
        return self.inner(x * self.scale[...].astype(x.dtype)[None])

    def fold(self) -> Dense:
        """The same map as one matrix."""
        self.inner.kernel = nnx.Param(self.inner.kernel[...] * self.scale[...][:, None])
        return self.inner


def add_ia3(bert: Bert, settings: BackboneConfig, rngs: nnx.Rngs) -> None:
    """Scale keys, values and the inner activation of every layer; nothing is drawn."""
    del settings, rngs
    for layer in bert.layers:
        keys_values = ScaledOutputs(layer.qkv, unscaled=bert.config.hidden_size)
        for name, scaled in {"qkv": keys_values, "down": ScaledInputs(layer.down)}.items():
            setattr(layer, name, scaled)
