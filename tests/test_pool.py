"""The pool regime: rounds over what is left, re-trained from the start, resumed anywhere."""

import signal

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from tiny_runs import REGIMES, before_call, config_of, left_by, run

from enn_finetune import asking, checkpoint, fitting, pool, train
from enn_finetune.acquisition.history import begin, update
from enn_finetune.session import RunStoppedError, Session

KINDS = [
    pytest.param(kind, marks=pytest.mark.slow if kind == "pool, full" else ())
    for kind in REGIMES
    if kind.startswith("pool")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", params=KINDS)
def whole(request, world, tmp_path_factory):
    """A config and what its uninterrupted run of 6, 11, 16 and 20 labels leaves."""
    config = config_of(world, **REGIMES[request.param])
    out = tmp_path_factory.mktemp("whole")
    run(config, out)
    return config, left_by(out)


@pytest.fixture
def closed(world):
    return lambda **keys: config_of(world, **REGIMES["pool, closed form"], **keys)


def bought(out) -> list[int]:
    return left_by(out)["regime"]["oracle"]["bought"]


# Stop and go on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("choice", [1, 2, 3])
def test_a_signal_in_any_round_changes_nothing(whole, tmp_path, monkeypatch, choice, number):
    """Law 4."""
    config, expected = whole

    def strike():
        signal.raise_signal(number)

    with (
        before_call(monkeypatch, pool, "choose", choice, strike),
        pytest.raises(RunStoppedError, match="--resume"),
    ):
        run(config, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    run(config, tmp_path, resume=True)
    assert left_by(tmp_path) == expected


@pytest.mark.parametrize("owner", [checkpoint, Session], ids=["before a save", "before a score"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_crash_anywhere_changes_nothing(whole, tmp_path, monkeypatch, owner, call):
    config, expected = whole
    with (
        before_call(
            monkeypatch, owner, "save" if owner is checkpoint else "evaluate", call, tiny_runs.crash
        ),
        pytest.raises(tiny_runs.Crash),
    ):
        run(config, tmp_path)
    run(config, tmp_path, resume=True)
    assert left_by(tmp_path) == expected


def test_a_finished_run_is_resumed_into_itself(whole, tmp_path, monkeypatch):
    config, expected = whole
    run(config, tmp_path)
    with before_call(monkeypatch, pool, "choose", 1, tiny_runs.crash):  # nothing is bought
        run(config, tmp_path, resume=True)
    assert left_by(tmp_path) == expected


# What is bought


def test_rounds_buy_what_the_budget_says(whole):
    _, expected = whole
    labels = [record["labels_bought"] for record in expected["records"]]
    assert labels == [6, 11, 16, 20], "the last round is what is left of the budget"
    rows = expected["regime"]["oracle"]["bought"]
    assert len(set(rows)) == len(rows) == expected["summary"]["labels_bought"] == 20


def test_runs_are_paired(closed, tmp_path):
    for rule in ("random", "bald", "margin"):
        run(closed(**{"acquisition.rule": rule}), tmp_path / rule)
    chosen = [bought(tmp_path / rule) for rule in ("random", "bald", "margin")]
    assert chosen[0][:6] == chosen[1][:6] == chosen[2][:6]
    assert len({tuple(sorted(rows)) for rows in chosen}) == 3
    run(closed(seed=1), tmp_path / "seed")
    assert bought(tmp_path / "seed")[:6] != chosen[0][:6]


def test_the_whole_pool_can_be_bought(world, tmp_path):
    every = tiny_runs.TRAIN_ROWS
    keys = {"budget.labels": every, "budget.round": 25, "budget.start": 20}
    run(config_of(world, **REGIMES["pool, frozen, gradient"], **keys), tmp_path)
    assert sorted(bought(tmp_path)) == list(range(every))


def test_the_top_of_what_is_left_is_chosen_ties_by_row(closed, tmp_path, monkeypatch):
    config = closed()
    problem = tiny_runs.prepared(config)
    problem.oracle.buy(np.asarray([0, 5, 9]))
    left = np.setdiff1d(np.arange(len(problem.pool)), [0, 5, 9])
    favourites = np.asarray([50, 2, 33])

    def read(parts, inputs, key, *, indices, rule, remember):
        features = np.asarray(inputs)[:, None]
        match = (features == problem.pool.features[favourites][None]).all(axis=2)
        scores = match @ np.float32([3.0, 2.0, 1.0])
        return asking.Asked(scores, scores)

    monkeypatch.setattr(asking, "read", read)
    session = tiny_runs.session(config, tmp_path)
    chosen, history = pool.choose(problem, config, None, 1, session.display, None)
    assert history is None
    ties = [row for row in left if row not in favourites][:2]
    assert chosen.tolist() == [50, 2, 33, *ties]


@pytest.mark.parametrize("rule", ["random", "bald"])
def test_nothing_is_offered_twice(closed, tmp_path, rule):
    config = closed(**{"budget.labels": tiny_runs.TRAIN_ROWS, "acquisition.rule": rule})
    problem = tiny_runs.prepared(config)
    session = tiny_runs.session(config, tmp_path)
    problem.oracle.buy(pool.first_rows(len(problem.pool), config))
    parts = fitting.fitter(problem, config)(0)
    for number in range(20):
        cost = problem.oracle.remaining
        rows, _ = pool.choose(problem, config, parts, number, session.display, None)
        assert len(rows) == min(5, cost)
        assert problem.oracle.cost(rows) == len(rows)
        problem.oracle.buy(rows)
    assert problem.oracle.remaining == 0


@pytest.mark.parametrize(("rule", "rows"), [("bald", [54, 18, 18]), ("kcenter", [60, 50, 48])])
def test_later_rounds_read_candidates_alone(closed, tmp_path, monkeypatch, rule, rows):
    """Twice what may be bought, at the least; a coreset is shown the rows bought too."""
    places, read = [], asking.read_rows

    def watched(parts, pool, rows, some, key, config):
        places.append(len(some))
        return read(parts, pool, rows, some, key, config)

    monkeypatch.setattr(asking, "read_rows", watched)
    run(closed(**{"acquisition.rule": rule, "acquisition.candidates_share": 0.3}), tmp_path)
    assert places == rows
    assert len(set(bought(tmp_path))) == 20


@pytest.mark.parametrize("rule", ["margin", "power_bald", "epig", "badge"])
def test_with_all_rows_as_candidates_the_choice_is_that_from_the_pool(closed, tmp_path, rule):
    config = closed(**{"acquisition.rule": rule, "acquisition.candidates_share": 0.999})
    problem = tiny_runs.prepared(config)
    problem.oracle.buy(np.arange(8))
    parts, session = fitting.fitter(problem, config)(0), tiny_runs.session(config, tmp_path)
    scored = update(begin(60), jnp.arange(60), jnp.arange(60.0), 0)
    rows, after = pool.choose(problem, config, parts, 1, session.display, scored)
    whole, _ = pool.choose(problem, config, parts, 1, session.display, None)
    assert rows.tolist() == whole.tolist()
    assert (np.asarray(after.scored)[8:] == 1).all()


# The fits


def test_rounds_and_seeds_share_their_programs(closed, world, tmp_path):
    """Law 6: within a size of labels, rounds compile nothing new."""
    programs = (fitting._solve, asking.read, asking.pick, train.predictions, train.train_step)
    for name, config in {
        "closed": closed,
        "mlp": lambda **keys: config_of(world, **REGIMES["pool, frozen, gradient"], **keys),
    }.items():
        run(config(), tmp_path / name)
        before = [program._cache_size() for program in programs]
        run(config(seed=1, **{"budget.start": 6}), tmp_path / f"{name} again")
        assert [program._cache_size() for program in programs] == before


def test_a_fit_is_of_the_bought_labels_alone(whole, world):
    """Nothing of an earlier round is carried over, and the same labels give the same bits."""
    config, _ = whole
    fits = []
    for history in ([1, 2], [2]):
        problem = tiny_runs.prepared(config)
        problem.oracle.buy(np.arange(6))
        fit = fitting.fitter(problem, config)
        for number in history:
            fitted = fit(number)
        fits.append(tiny_runs.leaves((fitted.params, fitted.fixed)))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*fits, strict=True))


def test_gradient_fits_leave_the_encoder_and_the_prior_alone(world):
    config = config_of(world, **REGIMES["pool, frozen, gradient"])
    problem = tiny_runs.prepared(config)
    encoder = [leaf.copy() for leaf in tiny_runs.leaves(problem.encoder)]
    problem.oracle.buy(np.arange(6))
    fresh = train.split(fitting.new_classifier(problem, config), "frozen")
    fitted = fitting.by_gradient(problem, config, 0)
    for a, b in zip(encoder, tiny_runs.leaves(problem.encoder), strict=True):
        assert (a == b).all()
    for a, b in zip(tiny_runs.leaves(fresh.fixed), tiny_runs.leaves(fitted.fixed), strict=True):
        assert a.tobytes() == b.tobytes()
    assert not np.array_equal(tiny_runs.leaves(fresh.params)[0], tiny_runs.leaves(fitted.params)[0])


def test_a_gradient_fit_takes_the_steps_it_is_told(world, monkeypatch):
    """Epochs over the labels, at least min_steps; a row at most once in a batch."""
    taken = []
    step = train.train_step

    def watched(graph, fixed, state, batch, key, **options):
        taken.append(np.asarray(batch.rows)[np.asarray(batch.weights) > 0].tolist())
        return step(graph, fixed, state, batch, key, **options)

    monkeypatch.setattr(train, "train_step", watched)
    kind = REGIMES["pool, frozen, gradient"]
    for epochs, least, steps in ((1, 3, 3), (4, 3, 6), (1, 9, 9)):
        taken.clear()
        config = config_of(world, **kind, **{"train.epochs": epochs, "train.min_steps": least})
        problem = tiny_runs.prepared(config)
        problem.oracle.buy(np.arange(10, 16))
        fitting.by_gradient(problem, config, 0)
        assert len(taken) == steps
        assert all(len(set(rows)) == len(rows) for rows in taken)
        assert {row for rows in taken for row in rows} == set(range(10, 16))


def test_a_linear_head_has_no_epistemic_part(closed, tmp_path):
    config = closed(**{"head.kind": "linear", "acquisition.rule": "entropy"})
    problem = tiny_runs.prepared(config)
    problem.oracle.buy(np.arange(12))
    parts = fitting.fitter(problem, config)(0)
    assert not train.merge(parts).head.epistemic
    run(config, tmp_path)
    assert len(bought(tmp_path)) == 20


# What it takes


def test_features_are_charged_as_when_they_were_computed(world, closed, tmp_path):
    """What a run costs does not depend on what the cache had."""
    config = closed(**{"backbone.cache": str(tmp_path / "cache")})
    cold = tiny_runs.prepared(config).encoding
    assert cold.flops > 0
    assert tiny_runs.prepared(config).encoding == cold, "seconds too: those it once took"
    repeated = closed(**{"backbone.cache": str(tmp_path / "cache"), "task.pool": "repeated"})
    assert tiny_runs.prepared(repeated).encoding.flops == cold.flops, "copies are encoded once"
    full = config_of(world, **REGIMES["pool, full"])
    assert tiny_runs.prepared(full).encoding.flops == 0, "tokens"
    run(config, tmp_path / "out")
    records = left_by(tmp_path / "out")["records"]
    first, last = records[0], records[-1]
    assert first["encoding"]["flops"] == last["encoding"]["flops"] > cold.flops, "and their shapes"
    assert last["training"]["flops"] > first["training"]["flops"] > 0
    assert last["scoring"]["flops"] > first["scoring"]["flops"] == 0


def test_rows_bought_at_random_from_features_are_charged_the_last_fit(closed, tmp_path):
    run(closed(**{"acquisition.rule": "random"}), tmp_path)
    records = left_by(tmp_path)["records"]
    assert {record["scoring"]["flops"] for record in records} == {0}
    assert len({record["training"]["flops"] for record in records}) == 1
    assert records[-1]["evaluation"]["flops"] > records[0]["evaluation"]["flops"] > 0
