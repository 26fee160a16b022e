"""Records of the intended task to figures: savings, what was bought, and what predicts a saving."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import numpy as np

from enn_finetune.errors import InputError
from enn_finetune.records import Record
from enn_finetune.report.reading import Line, read_bought, read_records, read_studies
from enn_finetune.savings import (
    RESAMPLES,
    CurveJson,
    MeanJson,
    RatioJson,
    Summary,
    areas,
    mean_interval,
    read_curves,
    saving,
    stack,
    summarise,
    without_interrupted,
)
from enn_finetune.savings.curves import select
from enn_finetune.savings.schema import mean_json, ratio_json

AVERAGE, WORST = "accuracy", "worst_group_accuracy"
COLUMNS = ("task", "backbone", "tune")


class MeasuredJson(TypedDict):
    """The main arm against random selection with its own head, by one score."""

    target: float  # what random selection scores at the full budget
    learned: MeanJson  # that, less what it scores with the seed set alone
    random_labels: float  # labels with which random selection reaches the target for good
    labels: float | None  # labels with which the main arm does; null: not within its budget
    ratio: RatioJson  # random_labels / labels
    gain: MeanJson  # area under the curve gained
    gain_by_seed: dict[str, float]


class StudyJson(TypedDict):
    """One task, encoder and regime, by its main arm."""

    name: str
    task: str
    encoder: str
    weights: str  # pretrained or random
    regime: str  # frozen or trained
    main: str
    seeds: int
    labels: float
    intended: float  # cross-validated accuracy of a linear probe of the label
    intended_error: float
    spurious: float  # the same of the attribute
    spurious_error: float
    pool_rows: int
    pool_disagreeing: float  # share
    average: MeasuredJson
    worst_group: MeasuredJson
    over_representation: MeanJson  # of disagreeing rows among those bought: share over the pool's
    by_seed: dict[str, float]  # the same, seed by seed
    most: float  # the same if every disagreeing row of the pool were bought


class Over(NamedTuple):
    """Share of disagreeing rows among those bought beyond the seed set, over the pool's share."""

    curve: CurveJson  # by labels bought
    last: MeanJson
    by_seed: dict[str, float]


class Figures(NamedTuple):
    """One study."""

    about: Mapping[str, object]  # its entry of studies.json
    json: StudyJson | None  # None where the main arm was not run
    summaries: tuple[Summary, Summary]  # by average and by worst-group accuracy
    over: dict[str, "Over"]  # arm -> over-representation of disagreeing rows
    same: dict[str, tuple[str, ...]]  # arm -> arms that bought the same rows, which are left out

    @property
    def name(self) -> str:
        """What the study is called."""
        return name_of(self.about)


def name_of(about: Mapping[str, object]) -> str:
    """Task, encoder, weights where they are not pretrained, and regime."""
    fresh = "" if about["weights"] == "pretrained" else ", random weights"
    regime = "frozen" if about["tune"] == "frozen" else "trained"
    return f"{about['task']} · {about['encoder']}{fresh} · {regime}"


def read_figures(folder: Path, *, resamples: int = RESAMPLES) -> list[Figures]:
    """The figures of every study of a folder that has results.

    Raises:
      InputError: no such folder, no records, damaged files, or those of something else.
    """
    records, bought = read_records(folder), read_bought(folder)
    found = []
    for about in read_studies(folder):
        if "separability" not in about:
            raise InputError(
                f"{folder}/studies.json: found no separability, so these are no results of "
                "`enn-finetune intended`; use `enn-finetune report`"
            )
        key = [about[name] for name in COLUMNS]
        mine = [r for r in records if [r.get(name) for name in COLUMNS] == key]
        lines = [line for line in bought if [line.get(name) for name in COLUMNS] == key]
        arms = {f"{r['head']}/{r['rule']}" for r in mine}
        if about["baseline"] in arms:
            found.append(_figures(about, mine, lines, resamples))
    if not found:
        raise InputError(
            f"{folder}: no study has records of its baseline yet; run it with --resume"
        )
    return found


def _figures(
    about: Line, records: Sequence[Record], bought: Sequence[Line], resamples: int
) -> Figures:
    same = _same(bought, str(about["main"]))
    twins = {arm for others in same.values() for arm in others}
    kept = [r for r in records if f"{r['head']}/{r['rule']}" not in twins]
    arms = {f"{r['head']}/{r['rule']}" for r in kept}
    baseline, own = str(about["baseline"]), str(about["own"])
    average, worst = (
        summarise(kept, metric, baseline, own if own in arms else None, resamples=resamples)
        for metric in (AVERAGE, WORST)
    )
    share = float(cast(float, about["pool_disagreeing"]))
    over = {
        arm: found
        for arm in average["arms"]
        if (found := _over([line for line in bought if _arm(line) == arm], share)) is not None
    }
    return Figures(
        about,
        _study(about, kept, (average, worst), over, resamples),
        (average, worst),
        over,
        same,
    )


def _arm(line: Line) -> str:
    return f"{line['head']}/{line['rule']}"


def _same(bought: Sequence[Line], main: str) -> dict[str, tuple[str, ...]]:
    """Arms of one head that bought the same rows in the same order with every seed.

    With two classes least confidence, margin and entropy rank rows alike.
    """
    rows: dict[str, dict[int, object]] = {}
    for line in bought:
        rows.setdefault(_arm(line), {})[int(str(line["seed"]))] = line["rows"]
    found: dict[str, tuple[str, ...]] = {}
    for arm in sorted(rows, key=lambda name: name != main):  # the main arm stands for its like
        head = arm.split("/")[0]
        if any(arm in others for others in found.values()) or arm.endswith("/random"):
            continue
        twins = [o for o in rows if o != arm and o.split("/")[0] == head and rows[o] == rows[arm]]
        if twins:
            found[arm] = tuple(twins)
    return found


def _over(lines: Sequence[Line], share: float) -> Over | None:
    curves, seeds, rounds = [], [], cast(list[int], [])
    for line in lines:
        rounds = cast(list[int], line["rounds"])
        counts = np.array(cast(list[int], line["disagreeing"]), float)
        if len(rounds) > 1 and share > 0:
            labels = np.array(rounds, float)
            seeds.append(str(line["seed"]))
            curves.append((counts[1:] - counts[0]) / (labels[1:] - labels[0]) / share)
    if not curves:
        return None
    values = np.stack(curves)
    band = mean_interval(values)
    curve = CurveJson(
        labels=[float(count) for count in rounds[1:]],
        mean=band.mean.tolist(),
        low=None if band.low is None else band.low.tolist(),
        high=None if band.high is None else band.high.tolist(),
    )
    last = values[:, -1]
    by_seed = dict(zip(seeds, last.tolist(), strict=True))
    return Over(curve, mean_json(mean_interval(last)), by_seed)


def _study(
    about: Line,
    records: Sequence[Record],
    summaries: tuple[Summary, Summary],
    over: Mapping[str, Over],
    resamples: int,
) -> StudyJson | None:
    main, average = str(about["main"]), summaries[0]
    if main not in average["arms"] or main not in over:
        return None
    probes = cast(dict[str, dict[str, float]], about["separability"])
    bought = average["budget"] - float(cast(dict[str, float], about["budget"])["start"])
    rows = int(str(about["pool_rows"]))
    measured = [_measured(summary, main, records, resamples) for summary in summaries]
    return StudyJson(
        name=name_of(about),
        task=str(about["task"]),
        encoder=str(about["encoder"]),
        weights=str(about["weights"]),
        regime="frozen" if about["tune"] == "frozen" else "trained",
        main=main,
        seeds=average["arms"][main]["seeds"],
        labels=average["budget"],
        intended=probes["intended"]["accuracy"],
        intended_error=probes["intended"]["error"],
        spurious=probes["spurious"]["accuracy"],
        spurious_error=probes["spurious"]["error"],
        pool_rows=rows,
        pool_disagreeing=float(cast(float, about["pool_disagreeing"])),
        average=measured[0],
        worst_group=measured[1],
        over_representation=over[main].last,
        by_seed=over[main].by_seed,
        most=min(rows / max(bought, 1), 1 / float(cast(float, about["pool_disagreeing"]))),
    )


def _measured(
    summary: Summary, main: str, records: Sequence[Record], resamples: int
) -> MeasuredJson:
    """The main arm against random selection with its own head."""
    reference = summary["arms"][main]["acquisition_reference"] or summary["baseline"]
    curves = read_curves(records, summary["metric"])
    arm, other = (
        stack(without_interrupted([curve for curve in curves if curve.arm == name])[0])
        for name in (main, reference)
    )
    seeds = set(arm.seeds) & set(other.seeds)
    arm, other = select(arm, seeds), select(other, seeds)
    found = saving(arm, other, resamples)
    start, end = max(arm.labels[0], other.labels[0]), min(arm.labels[-1], other.labels[-1])
    gains = areas(arm, start, end) - areas(other, start, end)
    return MeasuredJson(
        target=found.target,
        learned=mean_json(mean_interval(other.scores[:, -1] - other.scores[:, 0])),
        random_labels=found.reference_labels,
        labels=found.labels,
        ratio=ratio_json(found.ratio),
        gain=mean_json(mean_interval(gains)),
        gain_by_seed=dict(zip(map(str, arm.seeds), gains.tolist(), strict=True)),
    )
