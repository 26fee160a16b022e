"""Labels towards one domain of reviews: rules that are told which rows matter, and others.

    python benchmarks/transductive.py --data ../shared [--quick] [--without-domain] [--out FOLDER]

A user has unlabelled reviews of four kinds and wants a classifier for one of them, kitchenware. Of
that domain 1,200 rows are held: a third of them, texts only, are the targets that rules may be told
of, and the others are what is scored. The pool is all that is left, of all domains (12 % of it
kitchenware); with --without-domain it has no row of the domain at all, as when the rows that matter
may not be labelled.

What is written to --out is what a user would have: pool.jsonl, targets.jsonl, test.jsonl and
bench.toml, a benchmark that `enn-finetune bench` runs too. Every arm buys with ten seeds on frozen
MiniLM features, 20 labels a round, with K = 100 indices. `epig`, `itl`, `vtl`, `ctl`, their
`_features` forms, `condvar` and `eer_brier` read the targets; the others do not. (`epig_batch`,
which does, is left out: it was too slow for 19 rounds with ten seeds. `condvar` chooses as `vtl`
does where targets are named.)
`replay:kitchen` buys at random within the domain, which nobody needs a rule for if a column names
it: the arm to beat where that is known.

Prints the labels each arm needs for the score that random selection with the plain head ends at,
with paired bootstrap intervals of the ratios, and which domains it bought from. report/report.html
in --out has the curves. The last line is one JSON object.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from provenance import provenance
from rich.console import Console
from rich.table import Table
from starting import run_script

from enn_finetune import report, savings
from enn_finetune.bench import run as bench
from enn_finetune.bench.store import BOUGHT, RECORDS
from enn_finetune.config import load_bench
from enn_finetune.files import atomic_write
from enn_finetune.report.command import run as write_report
from enn_finetune.report.words import interval_text, labels_text, ratio_text
from enn_finetune.sittings import command_line
from enn_finetune.study.arms import uniform_order

DOMAINS = ("books", "dvd", "electronics", "kitchen")
HELD, TARGETS = 1200, 1 / 3  # rows of the domain; the share of them that are targets
K = 100  # indices; with fewer, what they say of targets is noise
TASK = "reviews"
ENCODER = "minilm|sentence-transformers/all-MiniLM-L6-v2"
BASELINE, OWN = "linear/random", "epinet/random"
PLAIN = ("linear/margin", "epinet/margin", "epinet/bald")
TOLD = (
    "epinet/epig",
    "epinet/itl",
    "epinet/vtl",
    "epinet/ctl",
    "epinet/itl_features",
    "epinet/vtl_features",
    "epinet/ctl_features",
    "epinet/condvar",
    "epinet/eer_brier",
)
CONFIG = """# Written by benchmarks/transductive.py.
[task]
name = "{task}"
train = "{folder}/pool.jsonl"
test = "{folder}/test.jsonl"
carve = 0

[backbone]
layers = "auto"
max_tokens = {tokens}

[budget]
labels = {labels}
start = 20
round = 20

[acquisition]
indices = {indices}
targets = "{folder}/targets.jsonl"

[evaluation]
indices = 128

[bench]
tasks = ["{task}"]
backbones = ["{encoder}"]
seeds = {seeds}
baseline = "{baseline}"
own = "{own}"
arms = {arms}
"""
Row = Mapping[str, object]


class Rows(NamedTuple):
    """The four domains, divided up."""

    pool: list[Row]
    targets: list[Row]
    test: list[Row]


class Size(NamedTuple):
    """How much is run."""

    labels: int
    seeds: int
    arms: tuple[str, ...]


WHOLE = Size(400, 10, (BASELINE, OWN, *PLAIN, *TOLD))
QUICK = Size(100, 3, (BASELINE, OWN, "epinet/bald", "epinet/epig", "epinet/itl"))


def read_domain(data: Path, domain: str) -> list[Row]:
    """The rows of one file, those cells of them that are written again."""
    lines = (data / "reviews" / f"{domain}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [{"text": row["text"], "label": row["label"], "domain": domain} for row in rows]


def divide(data: Path, domain: str, held: int, *, without: bool = False) -> Rows:
    """What is held of a domain, always the same rows, and the pool, without copies of those."""
    mine = read_domain(data, domain)
    order = np.argsort(np.random.Philox(4).random_raw(len(mine)), kind="stable").tolist()
    kept = order[:held]
    cut = round(held * TARGETS)
    texts = {mine[row]["text"] for row in kept}
    left = [] if without else [mine[row] for row in sorted(order[held:])]
    others = [row for name in DOMAINS if name != domain for row in read_domain(data, name)]
    return Rows(
        pool=[row for row in (*others, *left) if row["text"] not in texts],
        targets=[{"text": mine[row]["text"]} for row in kept[:cut]],
        test=[mine[row] for row in kept[cut:]],
    )


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """A JSON-lines file; left alone where it is that already."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def in_domain(rows: Rows, domain: str, size: Size) -> list[Row]:
    """Lists of rows to buy, for `bench.replay`: every arm's first rows, then the domain's alone."""
    own = {place for place, row in enumerate(rows.pool) if row["domain"] == domain}
    lines: list[Row] = []
    for seed in range(size.seeds):
        order = uniform_order(len(rows.pool), seed).tolist()
        bought = [*order[:20], *(row for row in order[20:] if row in own)][: size.labels]
        if len(bought) == size.labels:
            same = {"task": TASK, "seed": seed, "rule": domain, "rows": bought}
            lines += [same | {"head": head} for head in ("linear", "epinet")]
    return lines


def run_arms(out: Path, size: Size, encoder: str, tokens: int, *, replay: bool) -> list[Row]:
    """Write the config, run what is missing of it, and write the report: the rows bought."""
    settings = {"labels": size.labels, "seeds": size.seeds, "arms": json.dumps(size.arms)}
    settings |= {"indices": K}
    names = {"task": TASK, "folder": out.as_posix(), "encoder": encoder, "tokens": tokens}
    text = CONFIG.format(**settings, **names, baseline=BASELINE, own=OWN)
    atomic_write(out / "bench.toml", text)
    more = [f"replay={(out / 'domain.jsonl').as_posix()}"] if replay else []
    file, folder = load_bench(out / "bench.toml", more), out / "bench"
    command = command_line("bench", str(out / "bench.toml"), more, folder)
    done = bench.run(file, folder, resume=True, command=command)
    if done.failed:
        raise SystemExit("\n".join(done.failed))
    write_report(
        [folder],
        out / "report" / "report.html",
        results=out / "report" / "RESULTS.md",
        title="Labels towards one domain",
    )
    return [json.loads(line) for line in (folder / BOUGHT).read_text("utf-8").splitlines()]


def shares(rows: Rows, bought: Sequence[Row], start: int = 20) -> dict[str, dict[str, float]]:
    """The share of each domain in what each arm's rule chose, all seeds together."""
    counts: dict[str, Counter[str]] = {}
    for line in bought:
        chosen = cast(list[int], line["rows"])[start:]
        found = counts.setdefault(f"{line['head']}/{line['rule']}", Counter())
        found.update(str(rows.pool[row]["domain"]) for row in chosen)
    return {
        arm: {domain: round(found[domain] / found.total(), 4) for domain in DOMAINS}
        for arm, found in counts.items()
    }


def table_of(summary: savings.Summary, parts: Mapping[str, Mapping[str, float]]) -> Table:
    """One line an arm: score, labels, both ratios with intervals, per cent of each domain."""
    result = Table(caption_justify="left")
    result.caption = (
        f"target: accuracy {summary['target']:.3f}, {summary['baseline']} with "
        f"{summary['budget']:,.0f} labels, mean of {len(summary['seeds'])} seeds; ratios with 95 % "
        "intervals; bought: per cent of what the rule chose"
    )
    for name in ("arm", "accuracy", "labels", "system ratio", "acquisition alone", *DOMAINS):
        result.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for name, arm in summary["arms"].items():
        result.add_row(
            name,
            f"{arm['score_mean']:.3f}",
            labels_text(arm["labels_to_target"], arm["labels_last"]),
            *(_ratio(arm[kind]) for kind in ("system_ratio", "acquisition_ratio")),
            *(f"{100 * parts[name][domain]:.0f}" for domain in DOMAINS),
        )
    return result


def _ratio(ratio: savings.RatioJson | None) -> str:
    if ratio is None:
        return ratio_text(None)
    return f"{ratio_text(ratio)} ({interval_text(ratio['ci95'])})"


def figures(
    summary: savings.Summary, parts: Mapping[str, Mapping[str, float]], rows: Rows, domain: str
) -> dict[str, Any]:
    """The JSON line's part on what was measured."""
    kept = ("score_mean", "labels_to_target", "system_ratio", "acquisition_ratio")
    counts = Counter(str(row["domain"]) for row in rows.pool)
    return {
        "domain": domain,
        "rows": {"pool": dict(counts), "targets": len(rows.targets), "test": len(rows.test)},
        "budget": summary["budget"],
        "seeds": len(summary["seeds"]),
        "target": summary["target"],
        "arms": {
            name: {key: arm[key] for key in kept} | {"bought": parts[name]}  # type: ignore[literal-required]
            for name, arm in summary["arms"].items()
        },
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has reviews/")
    parser.add_argument("--out", type=Path, help="default: runs/towards-DOMAIN and what is asked")
    parser.add_argument("--quick", action="store_true", help="3 seeds, 5 arms, 100 labels")
    parser.add_argument("--domain", choices=DOMAINS, default="kitchen")
    parser.add_argument("--without-domain", action="store_true", help="none of it in the pool")
    parser.add_argument("--held", type=int, default=HELD, help="rows of the domain not in the pool")
    parser.add_argument("--encoder", default=ENCODER, help="places of one encoder, divided by |")
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args(arguments)
    kinds = ["without"] * options.without_domain + ["quick"] * options.quick
    options.out = options.out or Path("runs") / "-".join(("towards", options.domain, *kinds))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Divide the rows, run the arms, print what they reach and what they bought."""
    options = parse(arguments)
    size, out = QUICK if options.quick else WHOLE, cast(Path, options.out)
    rows = divide(options.data, options.domain, options.held, without=options.without_domain)
    out.mkdir(parents=True, exist_ok=True)
    for name in Rows._fields:
        write_rows(out / f"{name}.jsonl", getattr(rows, name))
    lists = in_domain(rows, options.domain, size)
    write_rows(out / "domain.jsonl", lists)
    bought = run_arms(out, size, options.encoder, options.tokens, replay=bool(lists))
    lines = (out / "bench" / RECORDS).read_text("utf-8").splitlines()
    records = [{**json.loads(line)} for line in lines]
    for line in records:
        line["arm"] = f"{line['head']}/{line['rule']}"
    summary = savings.summarise(cast(Any, records), "accuracy", BASELINE, OWN)
    parts = shares(rows, bought)
    console = Console(width=150)
    console.print(table_of(summary, parts))
    for verdict in report.verdicts(summary):
        console.print(f"{verdict.arm}: {verdict.sentence}", highlight=False)
    print(f"pages and records: {out}")
    print(json.dumps(figures(summary, parts, rows, options.domain) | provenance()))


if __name__ == "__main__":
    run_script(main)
