"""From the records of a testbed study to its figures: what summary.json holds.

    active      by way (`once`, `again`): baseline, target (its mean KL with all candidates
                labelled) and ci95, candidates, problems, notes, and by arm:
                labels_to_target    labels for the target, null where it is not reached
                system_ratio        labels of the baseline / labels of the arm: value, ci95, or the
                                    bounds less_than and more_than where one does not get there
                acquisition_ratio   the same against random selection with the same agent
                matching            at round label counts: the arm's KL (score), labels with which
                                    the baseline has it (null: never), and their ratio
                labels_to_paper     labels for the KL that the paper's agents have with all labels
                labels_last, distinct   where the curve ends; candidates chosen at least once
                kl, ci95, accuracy, ece     with all candidates labelled (or at the curve's end)
                regret              mean over label counts of the KL above the target, and ci95
                regret_saved        of the baseline's, paired by problem, and ci95
                selection_regret    as recorded: the KL summed over label counts, in nats, with all
                                    candidates labelled (total) and below the baseline's (saved),
                                    each mean and ci95; curve, by labels
                kl_excess           estimate of what of kl is due to drawing finitely many functions
                losses              problems on which its regret is above the baseline's
                curves              kl by labels: mean, low, high; kl_saved, how far it is below
                                    the baseline's at the same labels, paired by problem
    supervised  by setting ("2 inputs, temperature 0.1, 20 rows"): input_dim, temperature, ratio,
                rows, floor_ess (least effective sample size; the floor is left out where it is
                below 100), and by agent, floor included: problems, and for kl, accuracy, ece and
                joint_kl_TAU: mean, ci95, bias (estimated excess of a KL, where recorded), ess (of
                the floor: what the labels of TAU rows leave of its particles, least over problems),
                and against, the paired difference from the reference agent with its ci95
    reference   the agent that supervised differences are from
    paper       what the paper reports of active learning
    study       config, config_hash, commit, machine, commands, seconds

KL is in nats a row, joint KL in nats a group of TAU rows. Intervals are 95 %, over problems.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from enn_finetune import files
from enn_finetune.errors import InputError
from enn_finetune.records import Record
from enn_finetune.report.reading import find, read_lines
from enn_finetune.report.testbed_regret import excess, regret_json
from enn_finetune.savings import (
    RESAMPLES,
    ArmJson,
    CurveJson,
    Summary,
    labels_to_reach,
    mean_interval,
    summarise,
)
from enn_finetune.testbed.records import (
    FLOOR,
    RECORDS,
    STUDY,
    ActiveLine,
    SupervisedLine,
    complete,
)

Json = dict[str, object]
EXCESS = "excess_nll"  # a KL by a name that `savings` knows to be a loss
TRUSTED = 100.0  # effective sample size from which on the floor is one; see testbed.floor
PAPER_KL = 0.07
PAPER = {
    "source": "arXiv 2211.01568, synthetic data; read off its figure",
    "kl_full": PAPER_KL,
    "epinet_variance_labels": 130,
    "baseline_labels": [180, 200],
}


class Found(NamedTuple):
    """A study's folder, read."""

    active: dict[str, list[ActiveLine]]  # by way
    supervised: list[SupervisedLine]
    study: Json


class Mean(NamedTuple):
    """A mean over problems, and its 95 % interval."""

    mean: float
    ci95: list[float] | None


def read(folder: Path) -> Found:
    """The complete lines of a folder, and where they are from.

    Raises:
      InputError: the folder holds no study, or damaged files.
    """
    path = find(folder, RECORDS)
    if not (folder / STUDY).exists():
        raise InputError(f"{folder}: found no {STUDY}; give the --out of `enn-finetune testbed`")
    active: dict[str, list[ActiveLine]] = {}
    supervised: list[SupervisedLine] = []
    for line in complete([*read_lines(path, {})], path) if path else []:
        if line["part"] == "active":
            one = cast(ActiveLine, line)
            active.setdefault(one["way"], []).append(one)
        else:
            supervised.append(cast(SupervisedLine, line))
    if not active and not supervised:
        raise InputError(f"{folder / RECORDS}: holds no complete line; run the study first")
    return Found(active, supervised, files.read_json(folder / STUDY))


def savings_of(
    lines: Sequence[ActiveLine], baseline: str, resamples: int = RESAMPLES
) -> Summary:  # fmt: skip
    """Labels to reach the target and what goes with them, by the package's one way to count.

    A problem stands where a seed does elsewhere; the metric is called "kl".
    """
    summary = summarise(list(_evaluations(lines)), EXCESS, baseline, resamples=resamples)
    summary["metric"] = "kl"
    for arm in summary["arms"].values():
        arm["curves"]["kl"] = arm["curves"].pop(EXCESS)
    summary["notes"] = [_of_problems(note) for note in summary["notes"]]
    return summary


def _of_problems(note: str) -> str:
    return note.replace("seeds", "problems").replace("seed", "problem")


def _evaluations(lines: Iterable[ActiveLine]) -> Iterable[Record]:
    for line in lines:
        found = zip(line["labels"], line["kl"], line["accuracy"], line["ece"], strict=True)
        for step, (labels, kl, accuracy, ece) in enumerate(found):
            yield Record(
                step=step,
                labels_bought=labels,
                split="test",
                metrics={EXCESS: kl, "accuracy": accuracy, "ece": ece},
                seconds=0.0,
                head=line["agent"],
                rule=line["rule"],
                seed=line["problem"],
            )


def mean_of(values: Sequence[float] | np.ndarray) -> Mean:
    """A mean over problems with its t-interval; one problem has none."""
    found = mean_interval(np.asarray(values, np.float64))
    if found.low is None or found.high is None:
        return Mean(float(found.mean), None)
    return Mean(float(found.mean), [float(found.low), float(found.high)])


def active_json(summary: Summary, lines: Sequence[ActiveLine]) -> Json:
    """What summary.json says of one way of active learning."""
    regrets = _regrets(lines, summary["target"])
    base = regrets[summary["baseline"]]
    arms: Json = {}
    for name, arm in summary["arms"].items():
        own = regrets[name]
        shared = [problem for problem in own if problem in base]
        saved = mean_of([base[problem] - own[problem] for problem in shared])
        regret = mean_of([*own.values()])
        arms[name] = {
            "labels_to_target": arm["labels_to_target"],
            "system_ratio": dict(arm["system_ratio"]),
            "acquisition_ratio": arm["acquisition_ratio"] and dict(arm["acquisition_ratio"]),
            "matching": [dict(found) for found in arm["matching"]],
            "labels_to_paper": _labels_to(arm["curves"]["kl"], PAPER_KL),
            "labels_last": arm["labels_last"],
            "distinct": _distinct(lines, name),
            "kl": arm["score_mean"],
            "ci95": arm["score_ci95"],
            **{score: _final(arm, score) for score in ("accuracy", "ece")},
            "regret": regret._asdict(),
            "regret_saved": saved._asdict(),
            "selection_regret": regret_json(lines, name, summary["baseline"]),
            "kl_excess": excess(lines, name),
            "losses": sum(base[problem] < own[problem] for problem in shared),
            "problems": arm["seeds"],
            "curves": {
                "kl": dict(arm["curves"]["kl"]),
                "kl_saved": dict(_saved(lines, name, summary["baseline"])),
            },
        }
    return {
        "baseline": summary["baseline"],
        "target": summary["target"],
        "ci95": summary["target_ci95"],
        "candidates": summary["budget"],
        "problems": summary["seeds"],
        "notes": summary["notes"],
        "arms": arms,
    }


def _saved(lines: Sequence[ActiveLine], arm: str, baseline: str) -> CurveJson:
    """The baseline's KL less the arm's at every label count, over the problems that both have."""
    kl: dict[str, dict[int, np.ndarray]] = {arm: {}, baseline: {}}
    for line in lines:
        kl.get(f"{line['agent']}/{line['rule']}", {})[line["problem"]] = np.asarray(line["kl"])
    gaps = [kl[baseline][one] - kl[arm][one] for one in kl[arm] if one in kl[baseline]]
    found = mean_interval(np.stack(gaps))
    return CurveJson(
        labels=[float(count) for count in lines[0]["labels"]],
        mean=found.mean.tolist(),
        low=None if found.low is None else found.low.tolist(),
        high=None if found.high is None else found.high.tolist(),
    )


def _final(arm: ArmJson, score: str) -> float:
    return arm["final"][score]["mean"]


def _distinct(lines: Sequence[ActiveLine], arm: str) -> float:
    mine = [len(line["bought"]) for line in lines if f"{line['agent']}/{line['rule']}" == arm]
    return float(np.mean(mine))


def _labels_to(curve: CurveJson, kl: float) -> float | None:
    """Labels for a KL on the mean curve; None where it is not reached."""
    found = float(labels_to_reach(np.asarray(curve["labels"]), -np.asarray(curve["mean"]), -kl))
    return found if np.isfinite(found) else None


def _regrets(lines: Sequence[ActiveLine], target: float) -> dict[str, dict[int, float]]:
    """By arm and problem: the mean over label counts of the KL above the target."""
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        arm = found.setdefault(f"{line['agent']}/{line['rule']}", {})
        arm[line["problem"]] = float(np.mean(line["kl"])) - target
    return found


def supervised_json(lines: Sequence[SupervisedLine], reference: str) -> Json:
    """What summary.json says of the agents on labels drawn at random."""
    settings: dict[tuple[int, float, float], list[SupervisedLine]] = {}
    for line in lines:
        place = line["input_dim"], line["temperature"], line["ratio"]
        settings.setdefault(place, []).append(line)
    return {
        setting_name(found[0]): _setting(found, reference)
        for _, found in sorted(settings.items())
    }  # fmt: skip


def setting_name(line: SupervisedLine) -> str:
    """A setting in words."""
    rows = f"{line['rows']:,} row{'s' if line['rows'] > 1 else ''}"
    return f"{line['input_dim']} inputs, temperature {line['temperature']:g}, {rows}"


def _setting(lines: Sequence[SupervisedLine], reference: str) -> Json:
    by_agent: dict[str, dict[int, SupervisedLine]] = {}
    for line in lines:
        by_agent.setdefault(line["agent"], {})[line["problem"]] = line
    sizes = [line["ess"] for line in by_agent.get(FLOOR, {}).values() if "ess" in line]
    if sizes and min(sizes) < TRUSTED:
        del by_agent[FLOOR]
    first = lines[0]
    return {
        "input_dim": first["input_dim"],
        "temperature": first["temperature"],
        "ratio": first["ratio"],
        "rows": first["rows"],
        "floor_ess": min(sizes) if sizes else None,
        "agents": {
            agent: _agent(found, by_agent.get(reference, {})) for agent, found in by_agent.items()
        },
    }


def _agent(found: dict[int, SupervisedLine], base: dict[int, SupervisedLine]) -> Json:
    names = list(next(iter(found.values()))["scores"])
    shared = [problem for problem in found if problem in base]
    entry: Json = {"problems": len(found)}
    for name in names:
        if name.endswith(("_bias", "_ess")):
            continue
        mean = mean_of([line["scores"][name] for line in found.values()])
        score: Json = {"mean": mean.mean, "ci95": mean.ci95}
        biases = [line["scores"].get(f"{name}_bias") for line in found.values()]
        if None not in biases:  # old records have none of the marginal KL
            score["bias"] = float(np.mean(cast(list[float], biases)))
        if f"{name}_ess" in names:
            score["ess"] = min(line["scores"][f"{name}_ess"] for line in found.values())
        if shared:
            gaps = [found[p]["scores"][name] - base[p]["scores"][name] for p in shared]
            score["against"] = mean_of(gaps)._asdict()
        entry[name] = score
    return entry
