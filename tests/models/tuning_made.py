"""Tiny classifiers under each tuning mode, and steps of training them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bert
from flax import nnx

from enn_finetune import train
from enn_finetune.config.schema import BackboneConfig, TrainConfig
from enn_finetune.models.backbone import BertBackbone, load_backbone
from enn_finetune.models.classifier import Classifier
from enn_finetune.models.heads import make_head
from enn_finetune.models.tuning import MODES, adapted

D, C, KEY = 8, 3, jax.random.key(5)
EXAMPLES = jax.tree.map(jnp.asarray, tiny_bert.batch(5, 3, 7, 4))
RECIPE = TrainConfig(batch=4, lr=3e-2, head_lr=3e-2, warmup=0, weight_decay=0.1, indices=2)
every_mode = pytest.mark.parametrize("mode", MODES)


def settings(mode: str, **keys: object) -> BackboneConfig:
    return BackboneConfig(tune=mode, rank=3, **keys)


def written(folder: Path, *, dropout: float) -> BertBackbone:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    tiny_bert.write(folder, tensors(), **rates)
    return load_backbone(folder, pooling="mean")


def tensors() -> dict[str, np.ndarray]:
    made = tiny_bert.random_tensors()
    return {k: 0.5 * v if "weight" in k else v for k, v in made.items()}


def classifier(encoder: BertBackbone, how: BackboneConfig) -> Classifier:
    head = {"kind": "epinet", "features": D, "classes": C, "hidden": [4], "index_dim": 3}
    return Classifier(adapted(encoder, how, seed=0), make_head(head, rngs=nnx.Rngs(1)))


def batch() -> train.Batch:
    targets = jnp.eye(C)[jnp.arange(4) % C]
    return train.Batch(EXAMPLES, targets, jnp.ones(4), jnp.arange(4), jnp.float32(9))


def fit(parts: train.Parts, recipe: TrainConfig = RECIPE, count: int = 3) -> list[train.TrainState]:
    """The states after each step, as numpy, the one before the first included."""
    state = train.begin(parts, recipe, "frozen")
    states = [jax.tree.map(np.asarray, state)]
    for step in range(count):
        state, _ = train.train_step(
            parts.graph,
            parts.fixed,
            state,
            batch(),
            KEY,
            config=recipe,
            total=jnp.float32(count),
            probe=step < recipe.probe_steps,
        )
        states.append(jax.tree.map(np.asarray, state))
    return states
