"""What choosing rows costs, with the model that is trained or with a proxy: labels and money.

    python benchmarks/policies.py --data ../shared [--quick] [--out DIR]

Tasks SST-2 (as it is, and with its positive class thinned to one row in ten: the score is F1), CoLA
and RTE with a 3-layer and a 12-layer encoder (sentence encoders: their training saw inference
pairs, not SST-2 or CoLA), 240 labels bought by margin in rounds of 20, policies paired by seed:
`random`, `standard` (fine-tuned every round), `svpp`, `asvp` and `auto`, the last once at each of
three prices; with the 12-layer encoder also the 3-layer one selecting for it. The pool is drawn
from the training rows, test rows are dev and training rows that are in no pool. Every arm's curve
is of an encoder fine-tuned on what was bought so far. Cost: labels, and operations counted from
compiled programs at a fixed speed; of the fits made to draw a curve each point is charged its own,
the one that a run would make which ends there.

The target is what `random` scores in the end (mean over seeds). Reported: labels to the target and
their ratio to random's (95 % paired bootstrap), area under the curve gained over random, wall time,
what a run costs that reaches the target at each price, who is the cheapest, and `auto` against the
best of the others at its price. A target between two points of a curve is read off a line.

The last line is one JSON object. `asvp_label_share`: the share of the labels saved by standard
(against random, at the target) that asvp saves too. Where asvp does not reach the target it counts
as what it can have saved at most (`asvp_label_share_bounds`: in how many studies); null where
standard saves none, and of such studies there is no mean (`asvp_label_share_studies`: how many it
is over). `asvp_compute_share`: operations that
asvp is charged over standard's, at the full budget. Both are means over the studies that have them.
--quick: SST-2 with the rare class, the 3-layer encoder, three seeds, four points a curve and not
five, no `auto` unless --auto is given; some minutes.

A run that was cut off goes on with the same --out. --records names a folder of packed cells: what
they have is not run again, and finished cells are added to them; with --kept nothing is run, and
arms and seeds that they lack are left out. Processes with other --seeds and another --out may share
them.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from policies_cells import (
    QUICK,
    RANDOM,
    SMALL,
    WHOLE,
    Arm,
    Cells,
    Size,
    config_of,
    sized,
    write_material,
)
from policies_kept import Kept
from policies_options import arms_of, named, options
from policies_page import page, study_lines
from policies_shares import FIXED, auto_over_best, charged, in_the_end, label_share
from provenance import provenance
from starting import run_script

from enn_finetune import savings
from enn_finetune.config import Config
from enn_finetune.files import atomic_write
from enn_finetune.progress import Display
from enn_finetune.records import Record
from enn_finetune.report.bill import Tariff, bill
from enn_finetune.report.curves import MissingMatplotlibError
from enn_finetune.report.money import PRICES, CostCurve, draw_money


def study(records: Mapping[str, list[Record]], metric: str, speed: float) -> dict[str, Any]:
    """The figures of one task and encoder."""
    every = [record for found in records.values() for record in found]
    summary = savings.summarise(every, metric, RANDOM, split="test")
    # auto is run at its own price: it is no way to buy at all prices.
    costs = bill(every, summary, Tariff(PRICES, speed))
    anywhere = [one for one in every if not str(one["arm"]).startswith("auto")]
    alone = savings.summarise(anywhere, metric, RANDOM, split="test")
    fixed = bill(anywhere, alone, Tariff(PRICES, speed))
    if costs is None or fixed is None:
        raise ValueError("expected records that account for their costs, found none")
    arms: dict[str, Any] = {}
    last = max(record["labels_bought"] for record in every)
    for name, found in records.items():
        arm = summary["arms"][name]
        arms[name] = {
            "score": arm["score_mean"],
            "labels_to_target": arm["labels_to_target"],
            "sample_saving_ratio": arm["system_ratio"],
            "area_gain": arm["auc_gain"],
            "flops": charged(found, "flops"),
            "charged_seconds": charged(found, "seconds"),
            "refreshed": [r["refreshed"] for r in found if r["labels_bought"] == last],
            "money_to_target": {one["name"]: one["to_target"][name] for one in costs["prices"]},
            "money_in_the_end": {p.name: in_the_end(costs["arms"][name], p) for p in PRICES},
        }
    share = label_share(every, metric, "asvp", "standard")
    proxies = [*records["svpp"], *records["asvp"]]
    aligned = savings.summarise(proxies, metric, "svpp", split="test")["arms"]["asvp"]
    return {
        "metric": metric,
        "target": summary["target"],
        "random_labels": summary["baseline_labels"],
        "seeds": summary["seeds"],
        "arms": arms,
        "asvp_label_share": share.value,
        "asvp_label_share_ci95": share.ci95,
        "asvp_label_share_is_a_bound": share.bound,
        "asvp_area_over_svpp": aligned["auc_gain"],
        "asvp_compute_share": arms["asvp"]["flops"] / arms["standard"]["flops"],
        "auto_over_best_fixed": {p.name: auto_over_best(arms, p.name)[0] for p in PRICES},
        "auto_is_a_bound": [p.name for p in PRICES if auto_over_best(arms, p.name)[1]],
        "cheapest_ranges": fixed["ranges"],
        "notes": summary["notes"],
        "curves": {
            name: [arm["labels"], arm["hours"], arm["scores"]]
            for name, arm in costs["arms"].items()
        },
    }


def folder_of(task: str, encoder: Path) -> str:
    """What the folder and the picture of a study are called."""
    return f"{task.replace(':', '-')}-{encoder.name}"


def run_study(
    given: argparse.Namespace, task: str, encoder: Path, small: Path, size: Size
) -> dict[str, Any]:
    """All arms and seeds of a task and encoder."""
    out = given.out / folder_of(task, encoder)
    large = encoder != small
    task, size = sized(task, size, large=large)
    material = write_material(out, given.data, task, size)
    auto = given.auto or not (given.quick or given.no_auto)
    arms = arms_of(quick=given.quick, small=large and not given.no_small, auto=auto)
    if given.arms is not None:
        arms = named(arms, given.arms)
    records: dict[str, list[Record]] = {arm.name: [] for arm in arms}
    with Display() as display:
        first = config_of(material, encoder, size, arms[0], 0, small)
        kept = Kept(given.records, out.name)
        cells = Cells(first, out, display, kept)
        configs = {
            (seed, arm): config_of(material, encoder, size, arm, seed, small)
            for seed in range(*(given.seeds or (0, size.seeds)))
            for arm in arms
        }
        if given.kept:
            configs = there(cells, configs)
        for (_, arm), config in configs.items():
            if arm.name == RANDOM:
                cells.new_seed()
            records[arm.name] += cells.run(arm, config)
            if arm == arms[-1]:
                kept.write()
    records = {name: found for name, found in records.items() if found}
    found = study(records, cells.metric, first.prices.speed)
    found["commits"] = sorted(cells.commits)
    found |= {"data_fingerprint": cells.fingerprint, "config_hash": first.hash}
    return found | {"size": size._replace(seeds=len({seed for seed, _ in configs}))._asdict()}


def there(cells: Cells, configs: Mapping[tuple[int, Arm], Config]) -> dict[tuple[int, Arm], Config]:
    """Of the cells, those kept: seeds that have random and every fixed policy, arms with all these.

    Raises:
      SystemExit: there is no such seed.
    """
    has = {key for key, config in configs.items() if cells.has(config)}
    arms = dict.fromkeys(arm for _, arm in configs)
    asked = [arm for arm in arms if arm.name in (RANDOM, *FIXED)]
    seeds = [
        seed
        for seed in dict.fromkeys(seed for seed, _ in configs)
        if all((seed, arm) in has for arm in asked)
    ]
    if not seeds:
        raise SystemExit("--kept: no seed has random and every fixed policy; run the study first")
    whole = [arm for arm in arms if all((seed, arm) in has for seed in seeds)]
    return {key: found for key, found in configs.items() if key[0] in seeds and key[1] in whole}


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def main(arguments: Sequence[str] | None = None) -> None:
    given, began = options(arguments, __doc__), time.monotonic()
    size = QUICK if given.quick else WHOLE
    small = find(given, given.small or SMALL)
    studies: dict[str, Any] = {}
    for task in given.tasks:
        for encoder in (find(given, name) for name in given.encoders):
            name = f"{task}, {encoder.name}"
            if given.kept and not len(Kept(given.records, folder_of(task, encoder))):
                print(f"{name}: nothing is kept of it")
                continue
            found = studies[name] = run_study(given, task, encoder, small, size)
            print("\n".join(study_lines(name, found)))
            curves = {arm: CostCurve(*map(np.array, c)) for arm, c in found["curves"].items()}
            path = given.out / f"{folder_of(task, encoder)}.png"
            try:
                draw_money(
                    curves, PRICES, path, title=name, score=found["metric"], target=found["target"]
                )
            except MissingMatplotlibError as error:
                print(error)
    if not studies:
        raise SystemExit(f"--kept: nothing is kept in {given.records} of what was asked for")
    shares = ("asvp_label_share", "asvp_compute_share")
    line: dict[str, Any] = {
        share: mean([found[share] for found in studies.values()]) for share in shares
    }
    line["asvp_label_share_studies"] = sum(
        found["asvp_label_share"] is not None for found in studies.values()
    )
    line["asvp_label_share_bounds"] = sum(
        found["asvp_label_share_is_a_bound"] and found["asvp_label_share"] is not None
        for found in studies.values()
    )
    line |= {
        "studies": {
            name: {key: value for key, value in found.items() if key != "curves"}
            for name, found in studies.items()
        },
        "prices": [price._asdict() for price in PRICES],
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time(), 1),  # whoever else is at work
        **provenance(),
    }
    atomic_write(given.out / "policies.md", page(studies))
    atomic_write(given.out / "policies.json", json.dumps({"studies": studies, **line}) + "\n")
    print(f"records and figures: {given.out}")
    print(json.dumps(line))


def find(given: argparse.Namespace, name: str) -> Path:
    """An encoder's folder: one of DATA/models, or a path."""
    inside = given.data / "models" / name
    return inside if inside.is_dir() else Path(name)


if __name__ == "__main__":
    run_script(main)
