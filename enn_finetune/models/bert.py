"""BERT (Devlin et al. 2018, arXiv 1810.04805) on packed tokens, as a flax nnx module.

Numbers match PyTorch transformers' BertModel to 1e-4. Parameter tree (kernels are (in, out))::

    word (V, D)   position (P, D)   type (2, D)   norm .scale .bias
    layers[i]     qkv (D, 3D)  out (D, D)  attention_norm  up (D, F)  down (F, D)  output_norm
    pooler        (D, D), or None
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from enn_finetune.models.attention import attend, block_bias
from enn_finetune.models.dropout import dropout, salts
from enn_finetune.models.ops import dense, dense_gelu, gelu, layer_norm
from enn_finetune.types import TokenBatch

Array = jax.Array
Pooling = Literal["mean", "cls", "pooler"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
}
DROPOUTS_PER_LAYER = 3


@dataclass(frozen=True)
class BertConfig:
    """The sizes and rates of a BERT encoder, under the names of HF's config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act: found {self.hidden_act!r}, which is not implemented; "
                f"use an encoder with one of {sorted(ACTIVATIONS)}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size: found {self.hidden_size}, not divisible by "
                f"num_attention_heads={self.num_attention_heads}; correct one of the two"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "BertConfig":
        """Read the dictionary of a config.json; keys that do not change the numbers are ignored.

        Raises ValueError, with key, what was found and the fix, for what this encoder cannot do.
        """
        position = values.get("position_embedding_type", "absolute")
        if position != "absolute":
            raise ValueError(
                f"position_embedding_type: found {position!r}; only 'absolute' is implemented, "
                "use an encoder with absolute positions"
            )
        for key in ("is_decoder", "add_cross_attention"):
            if values.get(key):
                raise ValueError(
                    f"{key}: found {values[key]!r}; this is an encoder only, "
                    "use a BERT checkpoint that is not a decoder"
                )
        known = {f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None}
        needed = [f.name for f in fields(cls)[:5] if f.name not in known]
        if needed:
            raise ValueError(
                f"{needed[0]}: found no such key (missing in all: {', '.join(needed)}); "
                "give the config.json of a BERT encoder"
            )
        return cls(**known)  # type: ignore[arg-type]


class Dense(nnx.Module):
    """x @ kernel (in, out) + bias (out,)."""

    def __init__(
        self, width: int, out: int, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
    ):
        init = nnx.initializers.normal(0.02)
        self.kernel = nnx.Param(init(rngs.params(), (width, out), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out,), param_dtype))
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """(n, in) -> (n, out) in the compute dtype."""
        return dense(x.astype(self.dtype), *self.cast())

    def activated(self, x: Array, activation: str) -> Array:
        """The activation of this name of (n, in) -> (n, out)."""
        if activation == "gelu":  # the usual one has a leaner reverse pass
            return dense_gelu(x.astype(self.dtype), *self.cast())
        return ACTIVATIONS[activation](self(x))

    def cast(self) -> tuple[Array, Array]:
        """Kernel and bias in the compute dtype."""
        return self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis; statistics in float32 at least."""

    def __init__(self, width: int, *, eps: float, dtype: DTypeLike, param_dtype: DTypeLike):
        self.scale = nnx.Param(jnp.ones((width,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((width,), param_dtype))
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """(n, D) -> (n, D) in the compute dtype."""
        return layer_norm(x, self.scale[...], self.bias[...], self.eps).astype(self.dtype)


class Layer(nnx.Module):
    """One transformer layer, normalised after each residual sum."""

    def __init__(
        self, config: BertConfig, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
    ):
        D, F = config.hidden_size, config.intermediate_size
        linear = partial(Dense, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = partial(LayerNorm, eps=config.layer_norm_eps, dtype=dtype, param_dtype=param_dtype)
        self.qkv = linear(D, 3 * D)
        self.out = linear(D, D)
        self.attention_norm = norm(D)
        self.up = linear(D, F)
        self.down = linear(F, D)
        self.output_norm = norm(D)
        self.config = config

    def __call__(self, x: Array, bias: Array, salt: Array | None) -> Array:
        """(R * L, D) -> (R * L, D); bias (R, 1, L, L) as in `attend`; salt (3, 2) drops."""
        s = (None,) * DROPOUTS_PER_LAYER if salt is None else tuple(salt)
        c, rate = self.config, self.config.hidden_dropout_prob
        attended = attend(
            self.qkv(x), bias, s[0], c.num_attention_heads, c.attention_probs_dropout_prob
        )
        x = self.attention_norm(x + dropout(self.out(attended), s[1], rate))
        inner = self.up.activated(x, c.hidden_act)
        return self.output_norm(x + dropout(self.down(inner), s[2], rate))


class Bert(nnx.Module):
    """The encoder: token batches (R, L) -> hidden states (R, L, D)."""

    def __init__(
        self,
        config: BertConfig,
        *,
        pooler: bool,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        D = config.hidden_size
        init = nnx.initializers.normal(0.02)

        def table(rows: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), (rows, D), param_dtype))

        self.word = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.type = table(config.type_vocab_size)
        self.norm = LayerNorm(D, eps=config.layer_norm_eps, dtype=dtype, param_dtype=param_dtype)
        self.layers = nnx.List(
            Layer(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for _ in range(config.num_hidden_layers)
        )
        self.pooler = (
            Dense(D, D, dtype=dtype, param_dtype=param_dtype, rngs=rngs) if pooler else None
        )
        self.config = config
        self.dtype = dtype

    def __call__(
        self,
        batch: TokenBatch,
        *,
        key: Array | None = None,
        word_rows: tuple[Array, Array] | None = None,
    ) -> Array:
        """Last hidden states (R, L, D) in the compute dtype; dropout on when a key is given.

        word_rows = (rows (U, D), inverse (R, L)) replaces the word table by its touched rows.
        """
        return self.all_layers(batch, key=key, word_rows=word_rows)[-1]

    def all_layers(
        self,
        batch: TokenBatch,
        *,
        key: Array | None = None,
        word_rows: tuple[Array, Array] | None = None,
    ) -> tuple[Array, ...]:
        """Embeddings and every layer's hidden states: a tuple of layers + 1 arrays (R, L, D)."""
        sites = 1 + DROPOUTS_PER_LAYER * len(self.layers)
        salt = None if key is None else salts(key, sites)
        bias = block_bias(jnp.asarray(batch.owner))
        states = [self.embed(batch, None if salt is None else salt[0], word_rows)]
        for i, layer in enumerate(self.layers):
            start = 1 + DROPOUTS_PER_LAYER * i
            states.append(
                layer(
                    states[-1],
                    bias,
                    None if salt is None else salt[start : start + DROPOUTS_PER_LAYER],
                )
            )
        return tuple(x.reshape(*batch.ids.shape, -1) for x in states)

    def embed(
        self, batch: TokenBatch, salt: Array | None, word_rows: tuple[Array, Array] | None
    ) -> Array:
        """Sum of word, position and type embeddings, normalised: (R * L, D)."""
        if word_rows is None:
            words = self.word[...][batch.ids.reshape(-1)]
        else:
            rows, inverse = word_rows
            words = rows[inverse.reshape(-1)]
        x = words + self.position[...][batch.positions.reshape(-1)]
        x = x + self.type[...][batch.types.reshape(-1)]
        return dropout(self.norm(x), salt, self.config.hidden_dropout_prob)

    def pool(self, hidden: Array, batch: TokenBatch, how: Pooling) -> Array:
        """Features (N, D) float32 of hidden states (R, L, D); zeros for an example without tokens.

        "mean" is over all the tokens an example owns, [CLS] and [SEP] included; "cls" is its first
        token; "pooler" is tanh of the pooler's projection of the first token.
        """
        flat = hidden.reshape(-1, hidden.shape[-1])
        owner = jnp.asarray(batch.owner).reshape(-1)
        N = batch.first.shape[0]
        counts = jax.ops.segment_sum(jnp.ones_like(owner), owner, N + 1)[:N]
        present = (counts > 0)[:, None]
        if how == "mean":
            sums = jax.ops.segment_sum(flat.astype(jnp.float32), owner, N + 1)[:N]
            return sums / jnp.maximum(counts, 1)[:, None]
        pooled = flat[batch.first]
        if how == "pooler":
            if self.pooler is None:
                raise ValueError("pool: found how='pooler' but no pooler weights; use mean or cls")
            pooled = jnp.tanh(self.pooler(pooled))
        elif how != "cls":
            raise ValueError(f"pool: found how={how!r}; use 'mean', 'cls' or 'pooler'")
        return jnp.where(present, pooled.astype(jnp.float32), 0.0)
