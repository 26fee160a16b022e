"""Revisiting: part of each batch is of rows bought before, and labels last longer."""

import numpy as np
import pytest
from hypothesis import given
from loaders import priorities, revisited_rows, run, salts, settings_of_loaders
from strategies import FEW

from enn_finetune.loader import PrioritisedLoader
from enn_finetune.shares import Shares


@pytest.mark.parametrize(("share", "batch"), [(0.25, 6), (0.5, 8), (0.7, 10), (0.9, 4)])
def test_the_share_is_kept_exactly_over_steps(share, batch):
    loader = PrioritisedLoader(4000, batch=batch, candidates=3 * batch, steps=61, revisit=share)
    new = len(loader.choose(loader.candidates()))  # the first batch has nothing to go back to
    assert new == batch
    counts = []
    for _ in range(60):
        before = set(loader.bought.tolist())
        candidates = loader.candidates()
        rows = loader.choose(candidates, np.zeros(len(candidates)))
        assert len(rows) == batch
        counts.append(sum(row not in candidates for row in rows.tolist()))
        assert all(row in before for row in rows[batch - counts[-1] :].tolist())
    assert abs(sum(counts) - 60 * batch * share) <= 1 + 0.05 * sum(counts)  # some were offered too


@pytest.mark.parametrize(("share", "batch"), [(0.5, 3), (0.3, 8), (0.7, 5), (0.25, 32)])
@pytest.mark.parametrize(("uniform", "anneal"), [(1.0, False), (0.4, False), (0.2, True)])
def test_no_step_has_more_uniform_rows_than_it_chooses(share, batch, uniform, anneal):
    """So that none is lost: the share over steps is what was asked for, and all of it is all."""
    shares = Shares(batch, 200, uniform, anneal, share)
    rows = [(shares.uniform_of(s), batch - shares.revisited(s)) for s in range(200)]
    assert all(0 <= free <= chosen <= batch for free, chosen in rows)
    free, chosen = np.sum(rows, axis=0)
    assert abs(chosen - 200 * batch * (1 - share)) < 1 + 1e-3
    assert abs(free - chosen * ((1 + uniform) / 2 if anneal else uniform)) < 1 + 1e-3
    last = np.sum(rows[-20:], axis=0)
    assert last[0] / last[1] > 0.9 or not anneal
    loader = PrioritisedLoader(
        4000, batch=batch, candidates=2 * batch, steps=40, uniform=uniform, revisit=share
    )
    read = []
    while not loader.finished:
        read.append(loader.reads_priorities)
        loader.choose(loader.candidates())
    assert any(read) == (uniform < 1)


def test_every_row_bought_is_as_likely_to_be_revisited():
    counts = np.zeros(20)
    for seed in range(2000):
        loader = PrioritisedLoader(400, batch=20, candidates=20, seed=seed, revisit=0.5)
        first = loader.choose(loader.candidates())
        counts += np.isin(first, loader.choose(loader.candidates())[10:])
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(500)


@FEW
@given(settings_of_loaders(source="whole", revisit=0.5), salts, salts)
def test_what_is_revisited_depends_on_what_was_bought_and_not_on_priorities(given_, salt, other):
    one, two = PrioritisedLoader(**given_), PrioritisedLoader(**given_)
    while not (one.finished or one.reads_priorities):
        one.choose(one.candidates())
        two.choose(two.candidates())
    count, candidates = revisited_rows(given_, one.step, len(one.bought)), one.candidates()
    first, second = (
        loader.choose(candidates, priorities(loader, candidates, key)).tolist()
        for loader, key in ((one, salt), (two, other))
    )
    assert first[len(first) - count :] == second[len(second) - count :]


def test_a_run_of_as_many_steps_needs_fewer_labels():
    counts = []
    for share in (0.0, 0.5, 0.75):
        loader = PrioritisedLoader(99, batch=8, candidates=16, steps=5, revisit=share)
        run(loader, 1)
        counts.append(len(loader.bought))
    assert counts[0] > counts[1] > counts[2]
