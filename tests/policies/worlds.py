"""Small runs of policies over the tiny encoder."""

import json

import tiny_runs

from enn_finetune import files
from enn_finetune.policies import fits, run
from enn_finetune.session import CHECKPOINT, RECORDS

KEYS = {
    "regime": "pool",
    "backbone.tune": "full",
    "head.kind": "linear",
    "acquisition.rule": "margin",
    "budget.labels": 24,
    "budget.start": 8,
    "budget.round": 4,
    "evaluation.every": 4,
    "train.min_steps": 6,
    "proxy.probe_steps": 2,
    "prices.speed": 1e6,
}

LABELS = [8, 12, 16, 20, 24]
EVERY_ROUND = {"proxy.tolerance": 1e6, "proxy.patience": 1, "proxy.refreshes": 9}
DEAR = {"prices.label": 1e6}
CASES = {
    "standard": {},
    "svpp": {"policy": "svpp"},
    "asvp": {"policy": "asvp", **EVERY_ROUND},
    "auto": {"policy": "auto", "proxy.modes": "bitfit", **DEAR},
}


def config_of(world, **keys):
    return tiny_runs.config_of(world, **(KEYS | keys))


def course(config, out, **options):
    """One run in a folder, or what is left of it: classifier, rounds, rows bought."""
    problem = tiny_runs.prepared(config)
    session = tiny_runs.session(config, out, resume=True)
    classifier, rounds = run(problem, config, session, **options)
    return classifier, rounds, problem.oracle.bought.tolist()


def records(out):
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


def timeless(value):
    """Without what differs from one run to the next."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name != "seconds"}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def left_by(out):
    """All that must be the same however often a run was interrupted."""
    _, metadata = files.load_arrays(out / CHECKPOINT)
    state = json.loads(metadata["state"])
    ledger = {part: work[0] for part, work in state["session"]["ledger"].items()}
    return timeless(records(out)), state["regime"], ledger


def watched_fits(monkeypatch, seen):
    """A list that grows by `seen(problem, config, number)` of each fit from here on."""
    found, real = [], fits.trained

    def watched(problem, config, number):
        found.append(seen(problem, config, number))
        return real(problem, config, number)

    monkeypatch.setattr(fits, "trained", watched)
    return found
