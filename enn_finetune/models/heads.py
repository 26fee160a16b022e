"""Every head by name, and the plain linear one."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from enn_finetune.models.epinet import Epinet
from enn_finetune.models.laplace import INDEX_DIM
from enn_finetune.models.linear_epinet import LinearEpinet, ShapedLinear, blank_fit
from enn_finetune.models.members import Members
from enn_finetune.models.plain_linear import PlainLinear, blank_plain_fit
from enn_finetune.models.shaped_features import pool_shapes
from enn_finetune.models.solvers import SOLVERS
from enn_finetune.types import Head


class LinearHead(nnx.Module):
    """A plain linear softmax head: it knows nothing of indices, and one sample is enough.

    Args:
      features: D, the feature width.
      classes: C.
      rngs: seeds of the weights.
    """

    epistemic = False

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.features, self.classes = features, classes
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    @property
    def config(self) -> dict[str, object]:
        """What `make_head` needs to build this head again, as JSON."""
        return {"kind": "linear", "features": self.features, "classes": self.classes}

    def sample_index(self, key: Array, count: int) -> Array:
        """Indices without content: (K, 0)."""
        del key
        return jnp.zeros((count, 0))

    def __call__(self, features: Array, z: Array | None = None) -> Array:
        """Logits (N, C) for features (N, D), whatever the index."""
        del z
        return self.linear(features)

    def many(self, features: Array, z: Array) -> Array:
        """The same logits for each index: (K, N, C)."""
        logits = self(features)
        return jnp.broadcast_to(logits[None], (z.shape[0], *logits.shape))


def _linear_epinet(
    features: int, classes: int, *, index_dim: int = INDEX_DIM, views: int = 1
) -> LinearEpinet:
    return LinearEpinet(blank_fit(features, classes, index_dim, views=views))


def _shaped_linear(features: int, classes: int, *, views: int = 1) -> ShapedLinear:
    return ShapedLinear(blank_fit(features, classes, views=views))


def _plain_linear(features: int, classes: int, *, views: int = 1) -> PlainLinear:
    return PlainLinear(blank_plain_fit(features, classes, views=views))


def _members(
    features: int, classes: int, *, members: int, together: int = 1, views: int = 1
) -> Members:
    shaped = blank_fit(features, classes, 1, views=views)
    weights = jnp.zeros((members, *shaped.coefficients.shape))
    return Members(shaped, weights, together=together)


def _mc_dropout(features: int, classes: int, *, views: int = 1) -> Head:
    return _blank("mc_dropout", features, classes, views)


def _gp(features: int, classes: int, *, views: int = 1) -> Head:
    return _blank("gp", features, classes, views)


def _mlp_epinet(features: int, classes: int, *, views: int = 1) -> Head:
    return _blank("mlp_epinet", features, classes, views)


def _neuronal(features: int, classes: int, *, views: int = 1) -> Head:
    return _blank("neuronal", features, classes, views)


def _blank(name: str, features: int, classes: int, views: int) -> Head:
    """The head of a fit of nothing, all zeros: its shapes are those a fit to one row would have."""
    solving = SOLVERS[name]

    def fit(row: Array, target: Array, key: Array) -> object:
        return solving.fit(row, target, jnp.ones(1), pool_shapes(row, views=views), key=key)

    shapes = jax.eval_shape(
        fit, jnp.zeros((1, features)), jnp.zeros((1, classes)), jax.random.key(0)
    )
    return solving.make(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))


HEADS: Mapping[str, Callable[..., Head]] = {
    "linear": LinearHead,
    "epinet": Epinet,
    "shaped_linear": _shaped_linear,
    "linear_epinet": _linear_epinet,
    "plain_linear": _plain_linear,
    "members": _members,
    "mc_dropout": _mc_dropout,
    "gp": _gp,
    "mlp_epinet": _mlp_epinet,
    "neuronal": _neuronal,
}


def make_head(config: Mapping[str, object], *, rngs: nnx.Rngs) -> Head:
    """Build the head that a head's `config` describes; weights are fresh (or zero until fitted).

    Args:
      config: {"kind": one of HEADS, ...the constructor's arguments}.
      rngs: seeds of the weights.

    Raises:
      ValueError: for an unknown kind or argument, with the nearest known one, or a missing one.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in HEADS:
        raise ValueError(f"head.kind: found {kind!r}; {_suggest(kind, HEADS)}")
    maker = HEADS[kind]
    # The signature of an nnx class is its metaclass's; that of its constructor is the head's.
    signed = vars(maker)["__init__"] if inspect.isclass(maker) else maker
    known = inspect.signature(signed).parameters
    settable = [name for name in known if name not in ("self", "rngs", "base")]
    for name in arguments:
        if name not in settable:
            raise ValueError(
                f"head.{name}: not an argument of the head {kind!r}; {_suggest(name, settable)}"
            )
    missing = [
        name
        for name in settable
        if known[name].default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise ValueError(f"head: the head {kind!r} also needs {', '.join(missing)}")
    if "rngs" in known:
        arguments["rngs"] = rngs
    return maker(**arguments)


def _suggest(found: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"use one of {', '.join(known)}"
