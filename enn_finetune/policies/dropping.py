"""MC-dropout in the classification layer of an encoder that was fine-tuned to choose for another.

Shelmanov et al. 2021 (arXiv 2101.08133) choose rows with dropout in that layer alone: one pass of
the encoder serves all masks. A proxy on features of the pretrained encoder has a head of its own
for this, solved for under dropout (`models.dropout_head`).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from enn_finetune import train
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.dropout_head import masks
from enn_finetune.models.heads import LinearHead
from enn_finetune.policies.fits import encoder_of


class DroppedLinear(nnx.Module):
    """A trained linear head whose inputs are dropped: one mask an index, shared by all rows.

    Args:
      head: as trained.
      rate: share of the features that an index drops.
    """

    epistemic = True

    def __init__(self, head: LinearHead, rate: float) -> None:
        self.head, self.rate = head, rate
        self.features, self.classes = head.features, head.classes

    def sample_index(self, key: Array, count: int) -> Array:
        """Masks (K, D): each feature's factor, 0 or 1 / (1 - rate)."""
        uniform = jax.random.uniform(key, (count, self.features + 1))
        return masks(uniform, jnp.float32(self.rate))[:, :-1]  # the last is a bias's, never dropped

    def __call__(self, features: Array, z: Array) -> Array:
        """Logits (N, C) for features (N, D) and one mask z (D,)."""
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        """Logits (K, N, C) for features (N, D) and masks z (K, D)."""
        return jax.vmap(lambda mask: self.head(features * mask[None]))(z)


def dropped(parts: train.Parts) -> train.Parts:
    """A fine-tuned encoder with a linear head, which chooses with dropout in that layer.

    The rate is the encoder's own, which its layers were trained with.

    Raises:
      TypeError: the head is no linear one.
    """
    head, encoder = train.merge(parts).head, encoder_of(parts)
    if not isinstance(head, LinearHead):
        raise TypeError(f"expected a linear head, found {type(head).__name__}")
    rate = encoder.bert.config.hidden_dropout_prob
    return train.split(Classifier(encoder, DroppedLinear(head, rate)), "frozen")
