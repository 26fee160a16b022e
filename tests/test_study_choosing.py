"""Choosing in a study: chunk by chunk, it is what `choose` chooses; counted operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import study_made

from enn_finetune.acquisition import choose as rules
from enn_finetune.costs import flops
from enn_finetune.models import row_chunks
from enn_finetune.models.solvers import SOLVERS
from enn_finetune.predicting import predictor
from enn_finetune.study import Course, Ground, run_course
from enn_finetune.study.choosing import choosing
from enn_finetune.study.programs import Program, Workers
from enn_finetune.types import Shown


@pytest.fixture(scope="module")
def fitted():
    ground = Ground(study_made.problem())
    features, targets = ground.pool.features[:20], ground.problem.oracle.fresh().buy(range(20))
    solving = SOLVERS["epinet"]
    fit = solving.fit(features, targets, jnp.ones(20), ground.shapes, key=jax.random.key(1))
    rows = solving.make(fit).rows(ground.sets[0])
    return solving.make, fit, rows, jnp.arange(len(rows)) >= 20


KINDS = ("random", "margin", "power_bald", "softrank_margin", "softmax_epig", "epig")
KINDS += ("batchbald", "logdet", "badge", "kcenter")


@pytest.mark.parametrize("rule", KINDS)
def test_rows_chosen_by_chunks_are_those_chosen_at_once(fitted, rule, monkeypatch):
    make, fit, rows, free = fitted
    key = jax.random.key(7)
    log_probs = predictor(make(fit), key, 4)(rows)
    expected = rules.choose(rule, Shown(log_probs, rows, free), 9, jax.random.fold_in(key, 2))
    monkeypatch.setattr(row_chunks, "CACHE_FLOATS", 512)  # some 16 rows a chunk
    choosing.cache_clear()
    compiled, _ = choosing(make, rule, 4, 9).compiled(fit, rows, None, free, key)
    found = np.asarray(compiled(fit, rows, None, free, key))
    choosing.cache_clear()
    np.testing.assert_array_equal(found, expected)
    assert len(set(found.tolist())) == 9
    assert found.min() >= 20


@pytest.mark.parametrize("rule", ["margin", "power_bald", "badge", "eer_brier"])
def test_a_pool_of_copies_and_small_caches(rule, monkeypatch):
    problem = study_made.problem(copies=5)
    config = study_made.config(labels=18)
    ground = Ground(problem)
    roomy = run_course(Course(rule, ("epinet",)), problem, config, [0, 1], ground=ground)
    monkeypatch.setattr("enn_finetune.study.ground.CACHE_BYTES", 1)
    tight = Ground(problem)
    again = run_course(Course(rule, ("epinet",)), problem, config, [0, 1], ground=tight)
    assert again.rows == roomy.rows
    assert len(tight._cache) == 1
    assert all(len(set(rows)) == 18 for rows in roomy.rows)


def test_features_are_needed():
    problem = study_made.problem()._replace(pool="tokens")
    with pytest.raises(TypeError, match=r"backbone\.tune = frozen"):
        Ground(problem)


# ---- costs


def count(function, *arguments):
    return flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_operations_of_products_loops_and_factorisations():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert count(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    assert count(jax.jit(jnp.matmul), a, b) == 120
    assert count(lambda x, y: jax.lax.map(lambda row: row @ y, x), a, b) == 120
    assert count(jax.vmap(lambda x: x @ b), jnp.ones((7, 3, 4))) == 7 * 120
    assert count(jnp.exp, a) == 12
    assert count(lambda x: jnp.sum(x, axis=0), a) == 12
    assert count(lambda x: x.T.reshape(2, 6), a) == 0
    assert count(jnp.linalg.cholesky, jnp.eye(60)) == pytest.approx(60**3 / 3, rel=0.2)
    once = count(lambda x: jax.lax.while_loop(lambda s: s[0] < 9, lambda s: s + 1, x), jnp.ones(2))
    assert once <= 8  # of unknown length: counted once


def test_a_program_is_compiled_once_a_shape_and_costs_are_shared():
    program = Program(lambda x: x @ x)
    with Workers(2) as work:
        found, cost = work.each(program, [(jnp.eye(3),), (2 * jnp.eye(3),)])
        work.each(program, [(jnp.ones((3, 3)),)])
        assert program.traces == 1
        work.each(program, [(jnp.eye(4),)])
    assert program.traces == 2
    np.testing.assert_array_equal(found[1], 4 * np.eye(3))
    assert cost.flops == 54
    assert cost.seconds > 0
