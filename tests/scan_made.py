"""A head small enough to compile in no time, pools for it, and picks in a process of one's own."""

import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

WIDTH, CLASSES, INDICES = 6, 3, 5


class Tiny(nnx.Module):
    """Logits x (W + sum_d z_d A_d), nothing more."""

    epistemic = True

    def __init__(self, seed: int = 0, *, features: int = WIDTH, classes: int = CLASSES) -> None:
        self.features, self.classes = features, classes
        draw = np.random.default_rng(seed).normal
        self.base = nnx.Param(jnp.asarray(draw(size=(features, classes)), jnp.float32))
        self.factor = nnx.Param(jnp.asarray(0.5 * draw(size=(4, features, classes)), jnp.float32))

    def sample_index(self, key: Array, count: int) -> Array:
        return jax.random.normal(key, (count, 4))

    def __call__(self, features: Array, z: Array) -> Array:
        return self.many(features, z[None])[0]

    def many(self, features: Array, z: Array) -> Array:
        weights = self.base[...][None] + jnp.einsum("kd,dfc->kfc", z, self.factor[...])
        return jnp.einsum("nf,kfc->knc", features, weights)


def pool(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, WIDTH) and which rows are free: some twenty are not."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, WIDTH)).astype(np.float32)
    free = np.ones(rows, bool)
    free[generator.choice(rows, min(20, rows // 4), replace=False)] = False
    free[[0, -1]] = False
    return features, free


def main() -> None:
    """Rows and rules -> picks, in a process that may be one of several; see `test_sharding.py`."""
    from enn_finetune import scan, sharding

    rows, count, rules, port, process, processes = sys.argv[1:]
    sharding.join_cluster(
        *((f"localhost:{port}", int(processes), int(process)) if int(processes) > 1 else ())
    )
    features, free = pool(int(rows))
    found = {
        rule: scan.choose_from(
            Tiny(), features, rule, free, int(count), jax.random.key(3), indices=INDICES
        ).tolist()
        for rule in rules.split(",")
    }
    scores = scan.score_all(Tiny(), features, "bald", jax.random.key(3), indices=INDICES)
    digest = hashlib.sha256(scores.tobytes()).hexdigest()
    print(json.dumps({"devices": len(jax.devices()), "picks": found, "scores": digest}))


if __name__ == "__main__":
    main()
