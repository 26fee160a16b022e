"""The uniform share of each batch: the same rows under every rule, exact over steps, annealed."""

import numpy as np
import pytest
from hypothesis import given
from loaders import run, salts, settings_of_loaders, step, uniform_rows
from strategies import FEW

from enn_finetune.loader import PrioritisedLoader


@FEW
@given(settings_of_loaders(source="whole"), salts, salts)
def test_the_uniform_share_is_the_same_rows_under_every_priority(given_, salt, other):
    one, two = PrioritisedLoader(**given_), PrioritisedLoader(**given_)
    while not (one.finished or two.finished) and min(one.labels_left, two.labels_left) >= 24:
        share = uniform_rows(given_, one.step)
        (offered, rows), (_, others) = step(one, salt), step(two, other)
        assert rows[:share] == others[:share] == offered[:share]


@pytest.mark.parametrize(("share", "batch"), [(0.0, 8), (0.25, 6), (0.5, 8), (0.7, 10), (1.0, 3)])
def test_the_uniform_share_is_kept_exactly_over_steps(share, batch):
    loader = PrioritisedLoader(400, batch=batch, candidates=40, steps=60, uniform=share)
    uniform = 0
    for _ in range(60):
        candidates = loader.candidates()
        last = np.zeros(40)
        last[-batch:] = 1  # the rule wants those that uniform selection would reach last
        rows = loader.choose(candidates, last)
        uniform += np.isin(rows, candidates[:batch]).sum()
        assert np.isin(rows, candidates[[*range(batch), *range(40 - batch, 40)]]).all()
    assert uniform == pytest.approx(60 * batch * share)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_annealing_ends_as_uniform_selection(start):
    loader = PrioritisedLoader(
        400, batch=8, candidates=32, steps=80, labels=300, uniform=start, anneal=True
    )
    shares = []
    while not loader.finished:
        candidates = loader.candidates()
        rows = loader.choose(candidates, -np.isin(candidates, candidates[:8]).astype(float))
        shares.append(np.isin(rows, candidates[:8]).mean())
    quarters = np.asarray(shares).reshape(4, 20).mean(1)
    expected = 1 - (1 - start) * np.array([7, 5, 3, 1]) / 8
    np.testing.assert_allclose(quarters, expected, atol=0.02)


def test_steps_that_are_all_uniform_are_not_scored():
    def score(inputs: np.ndarray) -> np.ndarray:
        raise AssertionError

    plain, told = (
        PrioritisedLoader(40, batch=4, candidates=8, labels=20, uniform=share) for share in (0, 1)
    )
    trace = [rows.tolist() for rows, _ in told.batches(np.arange(40.0), score)]
    assert trace
    assert trace == [plain.choose(plain.candidates()).tolist() for _ in trace]


def test_after_the_last_step_of_an_annealed_run_all_is_uniform():
    loader = PrioritisedLoader(40, batch=4, candidates=8, steps=3, anneal=True)
    run(loader, 1)
    assert not loader.reads_priorities
