"""The heads on frozen features by name: how each is fitted, and the head made of its fit.

    solving = SOLVERS["epinet"]
    fit = solving.fit(features, targets, weights, pool_shapes(pool), key=key)
    head = solving.make(fit)

A fit is a NamedTuple of arrays: jit it, vmap it over seeds, keep it in a scan. Names of one `fit`
(by identity) share it: "shaped" is the regression of the same fit that "epinet" is made of. The
two described ones want a pool with `classes`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

from enn_finetune.models.dropout_head import DropoutHead, fit_dropout
from enn_finetune.models.ensemble import ensemble, fit_ensemble, fit_ensemble_prior
from enn_finetune.models.laplace import fit_described
from enn_finetune.models.laplace_head import (
    fit_laplace,
    fit_laplace_kron,
    laplace,
    laplace_kron,
)
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear, fit_linear_epinet
from enn_finetune.models.mlp_epinet import MLPEpinet, fit_mlp_epinet
from enn_finetune.models.neuronal import Neuronal, fit_neuronal
from enn_finetune.models.plain_linear import PlainLinear, fit_plain_linear
from enn_finetune.models.random_features import RandomFeatureGP, fit_gp
from enn_finetune.models.shaped_features import ShapedPool
from enn_finetune.types import Head


class Solver(Protocol):
    """Fits a head to bought labels; jittable, vmappable over seeds."""

    def __call__(
        self, features: Array, targets: Array, weights: Array, pool: ShapedPool, *, key: Array
    ) -> Any:  # a NamedTuple of arrays, which the head is made of
        """The fit to features (N, D), targets (N, C) and weights (N,); padding has weight 0."""
        ...


class Solving(NamedTuple):
    """One way to solve a task on frozen features."""

    fit: Solver
    make: Callable[[Any], Head]


SOLVERS: Mapping[str, Solving] = {
    "linear": Solving(fit_plain_linear, PlainLinear),
    "shaped": Solving(fit_linear_epinet, ShapedLinear),
    "epinet": Solving(fit_linear_epinet, LinearEpinet),
    "described": Solving(fit_described, ShapedLinear),
    "described_epinet": Solving(fit_described, LinearEpinet),
    "mc_dropout": Solving(fit_dropout, DropoutHead),
    "ensemble": Solving(fit_ensemble, ensemble),
    "ensemble_prior": Solving(fit_ensemble_prior, ensemble),
    "laplace": Solving(fit_laplace, laplace),
    "laplace_kron": Solving(fit_laplace_kron, laplace_kron),
    "gp": Solving(fit_gp, RandomFeatureGP),
    "mlp_epinet": Solving(fit_mlp_epinet, MLPEpinet),
    "neuronal": Solving(fit_neuronal, Neuronal),
}
