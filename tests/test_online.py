"""The online regime: what is bought and trained on, and that it can stop anywhere and go on."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from tiny_runs import REGIMES, before_call, config_of, left_by, run

from enn_finetune import asking, checkpoint, loader, online, train
from enn_finetune.acquisition.choose import RULES
from enn_finetune.config import Config
from enn_finetune.session import RunStoppedError, Session

QUICK = ["online, frozen", "online, full, touched"]
KINDS = [
    pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)
    for kind in REGIMES
    if kind.startswith("online")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_runs.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", params=KINDS)
def whole(request, world, tmp_path_factory):
    """A config, what its uninterrupted run leaves, and the steps it takes."""
    config = config_of(world, **REGIMES[request.param])
    out = tmp_path_factory.mktemp("whole")
    summary = run(config, out)
    return config, left_by(out), summary["steps"]


@pytest.fixture
def frozen(world):
    return lambda **keys: config_of(world, **REGIMES["online, frozen"], **keys)


def watch(config: Config, out, patch) -> list[tuple[list[int], list[int]]]:
    """Run; for each step the candidates offered and the rows that had weight in the step."""
    offered, trained = [], []
    draw, step = loader.PrioritisedLoader.candidates, train.train_step

    def candidates(self):
        offered.append(draw(self).tolist())
        return draw(self)

    def train_step(graph, fixed, state, batch, key, **options):
        trained.append(np.asarray(batch.rows)[np.asarray(batch.weights) > 0].tolist())
        return step(graph, fixed, state, batch, key, **options)

    with patch.context() as inner:
        inner.setattr(loader.PrioritisedLoader, "candidates", candidates)
        inner.setattr(train, "train_step", train_step)
        run(config, out)
    return list(zip(offered, trained, strict=False))  # a stream's step may train on nothing


# Stop and go on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 2, 4, -1])
def test_a_signal_at_any_step_changes_nothing(whole, tmp_path, monkeypatch, step, number):
    """Law 4: the rest of the run is the same bits."""
    config, expected, steps = whole
    step = steps if step == -1 else step
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def strike():
        signal.raise_signal(number)

    with before_call(monkeypatch, train, "train_step", step, strike):
        if step < steps:
            with pytest.raises(RunStoppedError, match="--resume"):
                run(config, tmp_path)
            assert not (tmp_path / "summary.json").exists()
            run(config, tmp_path, resume=True)
        else:  # nothing is left to stop
            run(config, tmp_path)
    assert left_by(tmp_path) == expected
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize("owner", [checkpoint, Session], ids=["before a save", "before a score"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_crash_anywhere_changes_nothing(whole, tmp_path, monkeypatch, owner, call):
    """Before a save, records are there that the checkpoint knows nothing of: they are cut back."""
    config, expected, _ = whole
    with (
        before_call(
            monkeypatch, owner, "save" if owner is checkpoint else "evaluate", call, tiny_runs.crash
        ),
        pytest.raises(tiny_runs.Crash),
    ):
        run(config, tmp_path)
    with open(tmp_path / "records.jsonl", "a") as file:
        file.write('{"step": 99, "labels_bou')
    run(config, tmp_path, resume=True)
    assert left_by(tmp_path) == expected


def test_a_run_stopped_at_every_step(frozen, tmp_path, monkeypatch):
    config = frozen(**{"checkpoint.every": 100})
    steps = run(config, tmp_path / "whole")["steps"]
    for _ in range(steps - 1):
        strike = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
        with (
            before_call(monkeypatch, train, "train_step", 1, strike),
            pytest.raises(RunStoppedError),
        ):
            run(config, tmp_path / "parts", resume=True)
    run(config, tmp_path / "parts", resume=True)
    assert left_by(tmp_path / "parts") == left_by(tmp_path / "whole")


def test_a_second_signal_ends_the_run_at_once(frozen, tmp_path, monkeypatch):
    def strike():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with before_call(monkeypatch, train, "train_step", 2, strike), pytest.raises(KeyboardInterrupt):
        run(frozen(), tmp_path)


def test_a_finished_run_is_resumed_into_itself(whole, tmp_path, monkeypatch):
    config, expected, _ = whole
    run(config, tmp_path)
    with before_call(monkeypatch, train, "train_step", 1, tiny_runs.crash):  # nothing is trained
        run(config, tmp_path, resume=True)
    assert left_by(tmp_path) == expected


# What is bought


def test_runs_are_paired(frozen, tmp_path, monkeypatch):
    """One seed offers every rule the same candidates, and buys the same rows at the start."""
    keys = {"budget.labels": 40, "budget.start": 8, "budget.steps": 6}
    traces = {
        rule: watch(frozen(**keys, **{"acquisition.rule": rule}), tmp_path / rule, monkeypatch)
        for rule in ("random", "bald", "margin")
    }
    offered = {rule: [step[0] for step in trace] for rule, trace in traces.items()}
    chosen = {rule: [step[1] for step in trace] for rule, trace in traces.items()}
    assert offered["random"] == offered["bald"] == offered["margin"]
    assert chosen["random"][:2] == chosen["bald"][:2] == chosen["margin"][:2]
    assert chosen["random"] != chosen["bald"] != chosen["margin"]
    other = watch(frozen(**keys, seed=1), tmp_path / "seed", monkeypatch)
    assert other[0] != traces["bald"][0]


def test_part_of_each_batch_can_be_uniform_up_to_all_of_it(frozen, tmp_path, monkeypatch):
    keys = {"budget.labels": 40, "budget.start": 8, "budget.steps": 6, "acquisition.rule": "bald"}

    def trained(name, **more):
        return [rows for _, rows in watch(frozen(**keys | more), tmp_path / name, monkeypatch)]

    plain = trained("plain", **{"acquisition.rule": "random"})
    half = trained("half", **{"acquisition.uniform": 0.5})
    assert [rows[:2] for rows in half] == [rows[:2] for rows in plain]
    assert half != plain
    assert trained("all", **{"acquisition.uniform": 1}) == plain
    annealed = trained("annealed", **{"acquisition.anneal": True})
    assert annealed[-1] == plain[-1]
    assert annealed != half


def test_part_of_each_batch_can_be_of_rows_bought_before(frozen, tmp_path, monkeypatch):
    """The rest is chosen from as large a part of the same candidates."""
    keys = {"budget.labels": 40, "budget.start": 8, "budget.steps": 8, "acquisition.rule": "bald"}
    plain = watch(frozen(**keys), tmp_path / "plain", monkeypatch)
    trace = watch(frozen(**keys, **{"acquisition.revisit": 0.5}), tmp_path / "half", monkeypatch)
    bought: set[int] = set()
    for (offered, rows), (whole, _) in zip(trace, plain, strict=True):
        half = len(bought) >= 8
        assert offered == whole[: len(whole) // (2 if half else 1)]
        assert len(set(rows)) == 4
        assert set(rows[:2]) <= set(offered)
        assert set(rows[2:]) <= (bought if half else set(offered))
        bought |= set(rows)
    assert tiny_runs.summary_of(tmp_path / "half")["labels_bought"] == len(bought)
    assert len(bought) < len({row for _, rows in plain for row in rows})


def test_a_stream_asks_about_rows_as_they_come_or_not_at_all(frozen, tmp_path, monkeypatch):
    keys = {"budget.labels": 40, "budget.start": 8, "budget.steps": 8, "acquisition.candidates": 2}

    def trained(name, rule, **more):
        config = frozen(**keys, **{"acquisition.rule": rule}, **more)
        with monkeypatch.context() as inner:
            return watch(config, tmp_path / name, inner), config

    plain, config = trained("plain", "random")
    everything, _ = trained("all", "neuronal", **{"acquisition.threshold": 1e6})
    assert everything == plain
    some, _ = trained("some", "neuronal", **{"acquisition.threshold": 0.5})
    offered = [step[0] for step in plain]
    steps = [(rows, next(n for n, shown in enumerate(offered) if set(rows) <= set(shown)))
             for _, rows in some]  # fmt: skip
    assert sum(len(rows) for rows, _ in steps) < sum(len(rows) for _, rows in plain)
    for rows, step in steps:
        places = [offered[step].index(row) for row in rows]
        assert places == sorted(places)
    nothing, _ = trained("none", "neuronal", **{"acquisition.threshold": 1e-9})
    assert 0 < len(nothing) < len(plain)
    assert nothing == plain[: len(nothing)]
    summary = tiny_runs.summary_of(tmp_path / "none")
    assert summary["labels_bought"] == len({row for _, rows in nothing for row in rows})
    assert summary["steps"] == config.budget.steps


@pytest.mark.parametrize("source", ["whole", "epoch"])
@pytest.mark.parametrize(
    ("labels", "steps"), [(20, None), (10, 12), (40, 3), (tiny_runs.TRAIN_ROWS, 18)]
)
def test_labels_and_steps_are_separate_budgets(
    frozen, tmp_path, monkeypatch, source, labels, steps
):
    config = frozen(
        **{
            "acquisition.source": source,
            "budget.labels": labels,
            "budget.steps": steps,
            "acquisition.rule": "entropy",
        }
    )
    trace = watch(config, tmp_path, monkeypatch)
    rows = [row for _, trained in trace for row in trained]
    summary = tiny_runs.summary_of(tmp_path)
    assert summary["labels_bought"] == len(set(rows)) <= labels
    assert summary["steps"] == len(trace) == (steps or len(trace))
    for offered, trained in trace:
        assert len(set(offered)) == len(offered)
        assert len(set(trained)) == len(trained)
        assert set(trained) <= set(offered)
    if steps is None:
        assert len(set(rows)) == labels
    elif steps == 3:  # labels are left over
        assert len(set(rows)) <= 12
    elif steps == 12:  # steps go on with the rows that are bought
        assert len(set(rows)) == labels
        assert len(rows) > len(set(rows))
    bought = left_by(tmp_path)["regime"]["oracle"]["bought"]
    assert bought == list(dict.fromkeys(bought))
    assert set(bought) == set(rows)


def test_a_batch_larger_than_the_training_set(frozen, tmp_path):
    summary = run(frozen(**{"train.batch": 500, "budget.labels": tiny_runs.TRAIN_ROWS}), tmp_path)
    assert (summary["labels_bought"], summary["steps"]) == (tiny_runs.TRAIN_ROWS, 1)


# What is kept


def test_records_come_where_they_are_due(whole):
    config, expected, steps = whole
    every = config.evaluation.every
    labels = [record["labels_bought"] for record in expected["records"]]
    assert labels == sorted(set(labels))
    assert labels[-1] == config.budget.labels
    assert [number // every for number in labels] == sorted({number // every for number in labels})
    assert expected["records"][-1]["step"] == steps


def test_the_encoder_as_pretrained_is_never_trained(world):
    for kind in ("online, frozen", "online, full, touched"):
        config = config_of(world, **REGIMES[kind])
        problem = tiny_runs.prepared(config)
        before = [leaf.copy() for leaf in tiny_runs.leaves(problem.encoder)]
        tuned, _ = online.run(problem, config, tiny_runs.session(config, world / f"out {kind}"))
        after = tiny_runs.leaves(problem.encoder)
        assert all((a == b).all() for a, b in zip(before, after, strict=True))
        if config.backbone.tune == "full":
            pairs = zip(before, tiny_runs.leaves(tuned.backbone), strict=True)
            assert all((a != b).any() for a, b in pairs if a.any())


def test_another_seed_compiles_nothing_new(frozen, tmp_path):
    """Law 6: one trace."""
    programs = (train.train_step, asking.read, asking.pick, train.predictions)
    run(frozen(), tmp_path / "0")
    before = [program._cache_size() for program in programs]
    run(frozen(seed=1), tmp_path / "1")
    run(frozen(seed=2, **{"budget.labels": 30, "checkpoint.every": 7}), tmp_path / "2")
    assert [program._cache_size() for program in programs] == before


@pytest.mark.parametrize("rule", ["bald", "power_bald", "softrank_margin"])
def test_places_are_those_of_the_rules_priorities_under_the_current_weights(frozen, rule):
    config = frozen(**{"acquisition.rule": rule})
    problem = tiny_runs.prepared(config)
    parts = train.split(online.new_classifier(problem, config), "frozen")
    key = jax.random.key(0)
    rows = np.arange(12)
    places, wanted = online.score(problem, config, parts, rows, key, 0, 12)
    assert wanted is None
    classifier, keys = train.merge(parts), jax.random.split(jax.random.fold_in(key, 2**20))
    z = classifier.head.sample_index(keys[0], 4)
    alone = RULES[rule](classifier.log_probs(jnp.asarray(problem.pool.features[:12]), z), keys[1])
    assert places.tolist() == (12 - np.argsort(np.argsort(-alone))).tolist()
    fewer, _ = online.score(problem, config, parts, rows[:5], key, 0, 12)
    if rule != "softrank_margin":  # a rank depends on the rows that fill up
        assert np.argsort(-fewer).tolist() == np.argsort(-places[:5]).tolist()
    assert sorted(fewer) == [1, 2, 3, 4, 5]
    assert (online.score(problem, config, parts, rows, key, 1, 12)[0] != places).any()


@pytest.mark.parametrize("rule", ["margin", "power_margin", "badge"])
def test_rows_whose_predictions_are_not_finite_are_refused(frozen, rule):
    config = frozen(**{"acquisition.rule": rule})
    problem = tiny_runs.prepared(config)
    parts = train.split(online.new_classifier(problem, config), "frozen")
    problem.pool.features[3] = np.nan
    places, _ = online.score(problem, config, parts, np.arange(12), jax.random.key(0), 0, 12)
    assert np.flatnonzero(np.isnan(places)).tolist() == [3]


def test_a_random_run_scores_nothing(frozen, tmp_path, monkeypatch):
    with before_call(monkeypatch, asking, "read", 1, tiny_runs.crash):
        run(frozen(**{"acquisition.rule": "random"}), tmp_path)
        plain = frozen(**{"acquisition.rule": "margin"})
        with pytest.raises(tiny_runs.Crash):
            run(dataclasses.replace(plain, seed=3), tmp_path / "scored")


# What it takes


def test_steps_and_scores_are_charged(frozen, tmp_path):
    for rule in ("bald", "random"):
        run(frozen(**{"acquisition.rule": rule}), tmp_path / rule)
    records = {rule: left_by(tmp_path / rule)["records"] for rule in ("bald", "random")}
    for found in records.values():
        steps = [record["training"]["flops"] / record["step"] for record in found]
        assert max(steps) == pytest.approx(min(steps)), "every step takes the same"
        assert steps[0] > 0
    assert records["bald"][-1]["scoring"]["flops"] > records["bald"][0]["scoring"]["flops"]
    assert {record["scoring"]["flops"] for record in records["random"]} == {0}
    encoding = {
        rule: [one["encoding"]["flops"] for one in found] for rule, found in records.items()
    }
    assert len(set(encoding["bald"])) == 1, "candidates are of the whole pool"
    labels = np.array([record["labels_bought"] for record in records["random"]])
    share = encoding["bald"][0] * labels / tiny_runs.TRAIN_ROWS
    np.testing.assert_allclose(encoding["random"], share, rtol=1e-3)
