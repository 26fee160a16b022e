"""What choosing rows costs, with the model that is trained or with a proxy: labels and money.

    python benchmarks/policies.py --data ../shared [--quick] [--out DIR]

Tasks SST-2, CoLA and RTE with a 3-layer and a 12-layer encoder (sentence encoders: their training
saw inference pairs, not SST-2 or CoLA), labels bought by margin in rounds, policies paired by
seed: `random`, `standard` (fine-tuned every round), `svpp`, `asvp` and `auto`, the last once at
each of three prices; with the 12-layer encoder also the 3-layer one selecting for it. The pool is
drawn from the training rows, test rows are dev and training rows that are in no pool. Every arm's
curve is of an encoder fine-tuned on what was bought so far. Cost: labels, and operations counted
from compiled programs at a fixed speed; of the fits made to draw a curve each point is charged its
own, the one that a run would make which ends there.

The target is what `random` scores in the end (mean over seeds). Reported: labels to the target and
their ratio to random's (95 % paired bootstrap), wall time, what a run costs that reaches the target
at each price, who is the cheapest, and `auto` against the best of the others at its price.

The last line is one JSON object. `asvp_label_share`: the share of the labels saved by standard
(against random, at the target) that asvp saves too; null where either does not reach the target or
standard saves none. `asvp_compute_share`: operations that asvp is charged over standard's, at the
full budget. Both are means over the studies that have them. A run that was cut off goes on with the
same --out. --quick: one task, the 3-layer encoder, few rows, labels and seeds; some minutes.
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
    LARGE,
    PRICES,
    QUICK,
    RANDOM,
    SMALL,
    WHOLE,
    Arm,
    Cells,
    Size,
    config_of,
    write_material,
)
from provenance import provenance

from enn_finetune import savings
from enn_finetune.files import atomic_write
from enn_finetune.progress import Display
from enn_finetune.records import Record
from enn_finetune.report.curves import MissingMatplotlibError
from enn_finetune.report.money import CostCurve, cheapest, cost_at, draw_money

TASKS = ("sst2", "cola", "rte")
CHARGED = ("encoding", "scoring", "training")
FIXED = ("standard", "svpp", "asvp")
MODES = (("proxy.modes", "lora"),)


def arms_of(*, quick: bool, large: bool) -> list[Arm]:
    """The arms of a study, random first; auto at the middle price only where it is quick."""
    prices = PRICES[1:2] if quick else PRICES
    found = [Arm(RANDOM), *(Arm(policy) for policy in FIXED)]
    found += [Arm("auto", price, keys=() if quick else MODES) for price in prices]
    if large:
        found += [Arm(policy, small=True) for policy in FIXED]
        found.append(Arm("svpp", small=True, keys=(("proxy.pseudo", 0.2),)))
    return found


def hours(record: Record, speed: float) -> float:
    """Hours of computing of a run that ends with this record."""
    return sum(record[part]["flops"] for part in CHARGED) / speed / 3600  # type: ignore[literal-required]


def curve_of(records: Sequence[Record], metric: str, speed: float) -> CostCurve:
    """Mean curve over seeds; all seeds are evaluated at the same labels."""
    by_labels: dict[int, list[Record]] = {}
    for record in records:
        by_labels.setdefault(record["labels_bought"], []).append(record)
    points = sorted(by_labels.items(), key=lambda point: point[0])
    return CostCurve(
        np.array([labels for labels, _ in points], float),
        np.array([np.mean([hours(record, speed) for record in of]) for _, of in points]),
        np.array([np.mean([record["metrics"][metric] for record in of]) for _, of in points]),
    )


def charged(records: Sequence[Record], unit: str) -> float:
    """What a seed is charged at its full budget, mean over seeds."""
    last = max(record["labels_bought"] for record in records)
    ends = [record for record in records if record["labels_bought"] == last]
    return float(np.mean([sum(r[part][unit] for part in CHARGED) for r in ends]))  # type: ignore[literal-required]


def study(records: Mapping[str, list[Record]], metric: str, speed: float) -> dict[str, Any]:
    """The figures of one task and encoder."""
    every = [record for found in records.values() for record in found]
    summary = savings.summarise(every, metric, RANDOM, split="test")
    curves = {name: curve_of(found, metric, speed) for name, found in records.items()}
    arms: dict[str, Any] = {}
    last = max(record["labels_bought"] for record in every)
    for name, found in records.items():
        arm, labels = summary["arms"][name], summary["arms"][name]["labels_to_target"]
        arms[name] = {
            "score": arm["score_mean"],
            "labels_to_target": labels,
            "sample_saving_ratio": arm["system_ratio"],
            "flops": charged(found, "flops"),
            "charged_seconds": charged(found, "seconds"),
            "refreshed": [r["refreshed"] for r in found if r["labels_bought"] == last],
            "money_to_target": {p.name: cost_at(curves[name], labels, p) for p in PRICES},
        }
    return {
        "metric": metric,
        "target": summary["target"],
        "random_labels": summary["baseline_labels"],
        "seeds": summary["seeds"],
        "arms": arms,
        "asvp_label_share": label_share(summary, "asvp", "standard"),
        "asvp_compute_share": arms["asvp"]["flops"] / arms["standard"]["flops"],
        "auto_over_best_fixed": {p.name: auto_over_best(arms, p.name) for p in PRICES},
        "notes": summary["notes"],
        "curves": {name: [list(map(float, part)) for part in c] for name, c in curves.items()},
    }


def label_share(summary: savings.Summary, arm: str, reference: str) -> float | None:
    """Labels that an arm saves over random, over those that the reference saves."""
    need = summary["baseline_labels"]
    took = [summary["arms"][name]["labels_to_target"] for name in (arm, reference)]
    if None in took or need is None or need <= took[1]:
        return None
    return float((need - took[0]) / (need - took[1]))


def auto_over_best(arms: Mapping[str, Any], price: str) -> float | None:
    """What auto costs to the target at its own price, over the best fixed policy's; 1.1 may be."""
    mine = arms.get(f"auto ({price})", {}).get("money_to_target", {}).get(price)
    fixed = [arms[name]["money_to_target"][price] for name in FIXED]
    reached = [cost for cost in fixed if cost is not None]
    return mine / min(reached) if mine is not None and reached and min(reached) > 0 else None


def show(name: str, found: Mapping[str, Any]) -> None:
    """One table a study, and a sentence a price."""
    print(f"\n{name}: {found['metric']}, target {found['target']:.4f} (random at its full budget)")
    heads = (*(price.name for price in PRICES),)
    print(f"{'policy':28}{'score':>8}{'labels':>9}{'ratio':>7}{'TFLOP':>9}{'s':>7}", end="")
    print("".join(f"{head:>16}" for head in heads))
    for arm, row in found["arms"].items():
        labels = "-" if row["labels_to_target"] is None else f"{row['labels_to_target']:.0f}"
        ratio = row["sample_saving_ratio"]["value"]
        shown = "-" if ratio is None else f"{ratio:.2f}"
        line = f"{arm:28}{row['score']:8.4f}{labels:>9}{shown:>7}"
        line += f"{row['flops'] / 1e12:9.2f}{row['charged_seconds']:7.0f}"
        sums = [row["money_to_target"][head] for head in heads]
        print(line + "".join("-".rjust(16) if c is None else f"{c:16.4g}" for c in sums))
    for price in PRICES:
        # auto is run at its own price; at another it is somebody else's policy.
        costs = {
            arm: row["money_to_target"][price.name]
            for arm, row in found["arms"].items()
            if not arm.startswith("auto") or arm == f"auto ({price.name})"
        }
        print(cheapest(costs, price))
        over = found["auto_over_best_fixed"][price.name]
        if over is None and f"auto ({price.name})" in costs:
            missed = costs[f"auto ({price.name})"] is None
            print(f"  auto {'DID NOT REACH' if missed else 'alone reached'} the target")
        if over is not None:
            verdict = "within the 10 % allowed" if over <= 1.1 else "A LOSS: more than 10 % dearer"
            print(f"  auto costs {over:.3f} times the best fixed policy: {verdict}")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue and models")
    parser.add_argument("--out", type=Path, help="default: runs/policies, runs/policies-quick")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--encoders", nargs="+", help="names of folders in DATA/models, or paths")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--small", help="the selector for others; default: the 3-layer encoder")
    given = parser.parse_args(arguments)
    given.tasks = given.tasks or (TASKS[:1] if given.quick else TASKS)
    given.encoders = given.encoders or ([SMALL] if given.quick else [SMALL, LARGE])
    given.out = given.out or Path("runs") / ("policies-quick" if given.quick else "policies")
    return given


def run_study(
    given: argparse.Namespace, task: str, encoder: Path, small: Path, size: Size
) -> dict[str, Any]:
    """All arms and seeds of a task and encoder."""
    out = given.out / f"{task}-{encoder.name}"
    material = write_material(out, given.data, task, size)
    arms = arms_of(quick=given.quick, large=encoder != small)
    records: dict[str, list[Record]] = {arm.name: [] for arm in arms}
    with Display() as display:
        first = config_of(material, encoder, size, arms[0], 0, small)
        cells = Cells(first, out, display)
        for seed in range(size.seeds):
            cells.new_seed()
            for arm in arms:
                config = config_of(material, encoder, size, arm, seed, small)
                records[arm.name] += cells.run(arm, config)
    found = study(records, cells.metric, first.prices.speed)
    return found | {"data_fingerprint": cells.fingerprint, "config_hash": first.hash}


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def main(arguments: Sequence[str] | None = None) -> None:
    given, began = options(arguments), time.monotonic()
    size = QUICK if given.quick else WHOLE
    size = size._replace(seeds=given.seeds or size.seeds)
    small = find(given, given.small or SMALL)
    studies: dict[str, Any] = {}
    for task in given.tasks:
        for encoder in (find(given, name) for name in given.encoders):
            name = f"{task}, {encoder.name}"
            found = studies[name] = run_study(given, task, encoder, small, size)
            show(name, found)
            curves = {arm: CostCurve(*map(np.array, c)) for arm, c in found["curves"].items()}
            path = given.out / f"{task}-{encoder.name}.png"
            try:
                draw_money(
                    curves, PRICES, path, title=name, score=found["metric"], target=found["target"]
                )
            except MissingMatplotlibError as error:
                print(error)
    shares = ("asvp_label_share", "asvp_compute_share")
    line: dict[str, Any] = {
        share: mean([found[share] for found in studies.values()]) for share in shares
    }
    line |= {
        "studies": {
            name: {key: value for key, value in found.items() if key != "curves"}
            for name, found in studies.items()
        },
        "prices": [price._asdict() for price in PRICES],
        "size": size._asdict(),
        "seconds": round(time.monotonic() - began, 1),
        **provenance(),
    }
    atomic_write(given.out / "policies.json", json.dumps({"studies": studies, **line}) + "\n")
    print(f"records and figures: {given.out}")
    print(json.dumps(line))


def find(given: argparse.Namespace, name: str) -> Path:
    """An encoder's folder: one of DATA/models, or a path."""
    inside = given.data / "models" / name
    return inside if inside.is_dir() else Path(name)


if __name__ == "__main__":
    main()
