"""What a batch is worth by the definition of its rule, in float64: for batches that differ."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from acquisition_measure import NOISE, Inputs

DRAWS = 50_000


def joint_information(inputs: Inputs, rows: Sequence[int]) -> float:
    """I(y_1, ..., y_b; z) in nats, from labels drawn from the joint prediction; +- 0.005."""
    log_probs = inputs.log_probs[:, list(rows)].astype(np.float64)  # (K, b, C)
    generator = np.random.default_rng(0)
    index = generator.integers(len(log_probs), size=DRAWS)
    ends = np.cumsum(np.exp(log_probs), -1)[index]  # (S, b, C)
    labels = (generator.random((DRAWS, len(rows), 1)) > ends[..., :-1]).sum(-1)
    by_index = sum(log_probs[:, place, labels[:, place]] for place in range(len(rows)))  # (K, S)
    top = by_index.max(0)
    mixture = top + np.log(np.exp(by_index - top).mean(0))
    return float(np.mean(by_index[index, np.arange(DRAWS)] - mixture))


def _given(features: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Covariance (D, D) of the weights given the labels of rows, and its log-determinant."""
    chosen = features[list(rows)].astype(np.float64)
    precision = np.eye(features.shape[1]) + chosen.T @ chosen / NOISE
    return np.linalg.inv(precision), -np.linalg.slogdet(precision)[1]


def information_on_targets(inputs: Inputs, rows: Sequence[int]) -> float:
    """I(labels of the targets; labels of the batch) in nats."""
    everything = np.concatenate([inputs.features, inputs.target_features])
    targets = len(inputs.features) + np.arange(len(inputs.target_features))
    alone, batch, both = (
        _given(everything, some)[1] for some in (targets, rows, [*rows, *targets])
    )
    return float((both - alone - batch) / 2)


def variance_of_targets(inputs: Inputs, rows: Sequence[int]) -> float:
    """Mean variance that is left of the targets: less is better."""
    cov, targets = _given(inputs.features, rows)[0], inputs.target_features.astype(np.float64)
    return float(np.mean(np.einsum("md,de,me->m", targets, cov, targets)))


def potential(inputs: Inputs, rows: Sequence[int]) -> float:
    """Mean squared distance of gradient embeddings from the batch, by which BADGE draws; less is
    better, and both sides draw.
    """
    probs = np.exp(inputs.log_probs.astype(np.float64)).mean(0)
    residuals = probs - np.eye(probs.shape[-1])[probs.argmax(-1)]
    chosen = list(rows)
    inner = (residuals @ residuals[chosen].T) * (inputs.features @ inputs.features[chosen].T)
    norms = (residuals**2).sum(-1) * (inputs.features**2).sum(-1)
    distances = norms[:, None] + norms[None, chosen] - 2 * inner
    return float(np.maximum(distances.min(1), 0).mean())


VALUES: Mapping[str, Callable[[Inputs, Sequence[int]], float]] = MappingProxyType(
    {
        "batchbald": joint_information,
        "itl_linear": information_on_targets,
        "vtl_linear": variance_of_targets,
        "badge": potential,
    }
)
"""By the rule's name."""
