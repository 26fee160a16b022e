"""What rules look at: held to the lists by which configs are checked without jax."""

import jax
import jax.numpy as jnp
import pytest
from strategies import C, K, seeded_log_probs

from enn_finetune.acquisition.choose import NAMES
from enn_finetune.acquisition.halves import batch_rule
from enn_finetune.config import rules

ROWS, WIDTH, COUNT = 9, 5, 3
KEY = jax.random.key(0)


class LookedAtError(Exception):
    """A rule asked something of what it was given."""


class Forbidden:
    """Stands for something that may be handed on, and that nothing may be asked of."""

    def __getattr__(self, name: str):
        raise LookedAtError(name)


def looks(function, *arguments) -> bool:
    """Whether a function, traced for arrays, asks anything of what is forbidden."""
    try:
        jax.eval_shape(function, *arguments)
    except (LookedAtError, TypeError):
        return True
    return False


def shown() -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(seeded_log_probs(0, K, ROWS, C)), jnp.ones((ROWS, WIDTH))


def test_the_names_are_those_of_the_rules():
    assert sorted(rules.NAMES) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_exactly_the_rules_listed_look_at_targets(name):
    rule = batch_rule(name)
    kept = jax.eval_shape(rule.read, *shown())

    def pick(kept, free):
        return rule.pick(kept, free, COUNT, KEY, targets=Forbidden())

    found = looks(pick, kept, jax.ShapeDtypeStruct((ROWS,), bool))
    assert found == (name in rules.TARGETED)
    if found:  # it is the targets that it looks at
        jax.eval_shape(lambda kept: rule.pick(kept, jnp.ones(ROWS, bool), COUNT, KEY), kept)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_exactly_the_rules_listed_read_features_alone(name):
    rule = batch_rule(name)
    read = looks(lambda features: rule.read(Forbidden(), features), shown()[1])
    keeps = jax.tree.leaves(jax.eval_shape(rule.read, *shown()))
    assert (bool(keeps) and not read) == (name in rules.FEATURES_ALONE)
    assert bool(keeps) == (name != "random")
