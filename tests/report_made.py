"""Bench folders with records as a benchmark writes them, of curves that are made up."""

import gzip
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

Line = dict[str, object]
SPEEDS = {
    "linear/random": 300.0,
    "epinet/random": 290.0,
    "ensemble/random": 310.0,
    "mc_dropout/random": 340.0,
    "epinet/margin": 150.0,
    "epinet/entropy": 180.0,
    "epinet/least_confidence": 170.0,
    "epinet/bald": 420.0,
    "epinet/variance": 260.0,
    "epinet/power_margin": 160.0,
    "epinet/power_bald": 220.0,
    "epinet/badge": 200.0,
    "linear/margin": 170.0,
    "linear/entropy": 200.0,
    "ensemble/bald": 230.0,
    "mc_dropout/bald": 380.0,
}
LABELS = (20, 40, 60, 80, 100, 150, 200, 300, 400, 500, 700, 1000)


def study_records(
    task: str = "sst2",
    speeds: Mapping[str, float] = SPEEDS,
    *,
    seeds: Iterable[int] = range(10),
    splits: Sequence[str] = ("dev",),
    labels: Sequence[int] = LABELS,
    metric: str = "accuracy",
    noise: float = 0.008,
    **key: str,
) -> list[Line]:
    """Learning curves .85 - .35 exp(-sqrt(labels / speed)), with luck shared by a seed's arms."""
    named = {"task": task, "pool": "plain", "backbone": "gte-small", "tune": "frozen"}
    named |= {"regime": "pool"} | key
    found: list[Line] = []
    for arm, speed in speeds.items():
        head, rule = arm.split("/")
        for seed in seeds:
            rng = np.random.default_rng([seed, len(arm), int(speed)])
            luck = np.random.default_rng(seed).normal(0, 0.006)
            for split in splits:
                for step, count in enumerate(labels):
                    score = 0.85 - 0.35 * np.exp(-np.sqrt(count / speed))
                    score += luck * np.exp(-count / 300) + rng.normal(0, noise)
                    metrics = {
                        metric: score,
                        "nll": 1.15 - score + rng.normal(0, 0.004),
                        "brier": 0.9 - score,
                        "ece": 0.04 + abs(rng.normal(0, 0.01)),
                        "joint_nll_dyadic": 2.5 - score,
                        "joint_nll_near": 1.9 - score,
                        "joint_nll_random": 2.1 - score,
                    }
                    cost = {"seconds": 0.02 * count, "flops": 1e9 * count}
                    found.append(
                        {
                            **named,
                            "head": head,
                            "rule": rule,
                            "seed": seed,
                            "step": step,
                            "labels_bought": count,
                            "split": split,
                            "metrics": metrics,
                            "seconds": 0.1 * (step + 1),
                            "scoring": cost,
                            "training": cost,
                        }
                    )
    return found


def bought(records: Iterable[Line], rows: int = 12) -> list[Line]:
    """A bought-rows list for each cell and seed."""
    kept = ("task", "pool", "backbone", "tune", "regime", "head", "rule", "seed")
    cells = {tuple(r[name] for name in kept): r for r in records}
    found: list[Line] = []
    for cell, record in cells.items():
        random = record["rule"] == "random"
        shift = 0 if random else len(str(record["rule"]))
        examples = [
            [f"a sentence that was bought, number {n + shift}", "negative"] for n in range(8)
        ]
        found.append(
            {
                **dict(zip(kept, cell, strict=True)),
                "rows": [int(str(record["seed"])) + n + shift for n in range(rows)],
                "rounds": [rows],
                "classes": {"negative": 500 + 9 * shift, "positive": 500 - 9 * shift},
                "examples": examples,
            }
        )
    return found


def source(records: Sequence[Line], metric: str = "accuracy", **more: object) -> Line:
    """An entry of studies.json."""
    kept = ("task", "pool", "backbone", "tune", "regime")
    return {
        **{name: records[0][name] for name in kept},
        "metric": metric,
        "classes": ["negative", "positive"],
        "config_hash": "3f9a12c0",
        "commit": "d791626",
        "data_fingerprint": "sha256:53aa5117",
        "command": "enn-finetune bench configs/quick.toml --out runs/quick",
        "seconds": 141.4,
        "machine": "2 cores, CPU",
        "budget": {"labels": 1000},
        "pool_rows": 67349,
        "splits": {"dev": 872},
        **more,
    }


def write(
    folder: Path,
    records: Sequence[Line],
    *,
    purchases: Sequence[Line] = (),
    sources: Sequence[Line] = (),
    suffix: str = "",
) -> Path:
    """A bench folder; `suffix` is "", ".gz" or ".xz"."""
    folder.mkdir(parents=True, exist_ok=True)
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    for name, lines in (("records.jsonl", records), ("bought.jsonl", purchases)):
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{name}{suffix}").write_bytes(pack(text.encode()))
    if sources:
        (folder / "studies.json").write_text(json.dumps(list(sources)))
    return folder
