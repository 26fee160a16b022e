"""Agents of the testbed by name: each a factory (spec, **options) -> `Agent`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from enn_finetune.testbed.agents.dropout import dropout
from enn_finetune.testbed.agents.ensemble import ensemble, ensemble_prior
from enn_finetune.testbed.agents.epinet import epinet
from enn_finetune.testbed.agents.laplace import laplace
from enn_finetune.testbed.agents.mlp import mlp
from enn_finetune.testbed.agents.sngp import sngp
from enn_finetune.testbed.types import Agent

AGENTS: Mapping[str, Callable[..., Agent]] = MappingProxyType(
    {
        "mlp": mlp,
        "dropout": dropout,
        "ensemble": ensemble,
        "ensemble_prior": ensemble_prior,
        "epinet": epinet,
        "laplace": laplace,
        "sngp": sngp,
    }
)
"""What an agent may know beforehand is its `spec` (d, C, temperature) and how many rows are known.

Each gets one form of prior knowledge from it: the strength of its weight decay, and the scale of
its prior function where it has one. The number of rows it takes from the weights.
"""
