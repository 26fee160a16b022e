"""What benchmarks/policies.py says of its studies: one text, printed and written as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from policies_shares import FIXED

from enn_finetune.report.money import PRICES, Price, cheapest

MANY = 2
ALLOWED = 1.1
"""auto: how much dearer than the best fixed policy it may end."""


def interval(ends: Sequence[float | None] | None, form: str = ".2f") -> str:
    """A 95 % interval in brackets, nothing where there is none."""
    if not ends or all(end is None for end in ends):
        return ""
    low, high = ("open" if end is None else format(end, form) for end in ends)
    return f" ({low} to {high})"


def table(found: Mapping[str, Any]) -> list[str]:
    """A line a policy."""
    heads = ["policy", found["metric"], "area over random, points", "labels", "fewer than random"]
    heads += ["TFLOP", "seconds", "refreshed at", *(f"to target, {p.name}" for p in PRICES)]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for arm, row in found["arms"].items():
        labels, ratio = row["labels_to_target"], row["sample_saving_ratio"]
        area, sums = row["area_gain"], [row["money_to_target"][price.name] for price in PRICES]
        ends = None if area["ci95"] is None else [100 * end for end in area["ci95"]]
        cells = [
            arm,
            f"{row['score']:.4f}",
            f"{100 * area['mean']:+.2f}{interval(ends, '+.1f')}",
            "not reached" if labels is None else f"{labels:.0f}",
            "-" if ratio["value"] is None else f"{ratio['value']:.2f}x{interval(ratio['ci95'])}",
            f"{row['flops'] / 1e12:.2f}",
            f"{row['charged_seconds']:.0f}",
            refreshed(row["refreshed"]),
            *("-" if cost is None else f"{cost:.4g}" for cost in sums),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def refreshed(seeds: Sequence[Sequence[int]]) -> str:
    """The labels at which each seed computed its features anew; how often, where that is often."""
    if not any(seeds):
        return "-"

    def words(one: Sequence[int]) -> str:
        if len(one) > MANY:
            return f"{one[0]} to {one[-1]}, {len(one)} times"
        return ", ".join(map(str, one)) or "never"

    different = dict.fromkeys(map(words, seeds))
    return "; ".join(words(one) for one in seeds) if len(different) > 1 else next(iter(different))


def auto_line(found: Mapping[str, Any], costs: Mapping[str, float | None], price: Price) -> str:
    """What auto costs at its own price, beside the best fixed policy; "" where it was not run."""
    over = found["auto_over_best_fixed"][price.name]
    if over is None:
        alone = costs.get(f"auto ({price.name})") is not None
        return "auto alone reached the target." if alone else ""
    best = f"the best of {', '.join(FIXED)}"
    if price.name in found["auto_is_a_bound"]:
        return f"auto DID NOT REACH the target: {over:.3f} times {best}, or more."
    verdict = "within the 10 % allowed" if over <= ALLOWED else "A LOSS: more than 10 % dearer"
    return f"auto costs {over:.3f} times {best}: {verdict}."


def price_lines(found: Mapping[str, Any]) -> list[str]:
    """Who is the cheapest at each price, and auto there."""
    lines = []
    for price in PRICES:
        # auto is run at its own price; at another it is somebody else's policy.
        costs = {
            arm: row["money_to_target"][price.name]
            for arm, row in found["arms"].items()
            if not arm.startswith("auto") or arm == f"auto ({price.name})"
        }
        lines.append(f"- {cheapest(costs, price)} {auto_line(found, costs, price)}".rstrip())
    return lines


def share_line(found: Mapping[str, Any]) -> str:
    """What asvp keeps of standard's saving, and takes of its operations."""
    share, compute = found["asvp_label_share"], found["asvp_compute_share"]
    cost = f"takes {compute:.2f} of its operations at the full budget"
    if share is None:
        return f"- standard saves no label here: asvp has no share of that; it {cost}."
    most = " at most: it did not reach the target" if found["asvp_label_share_is_a_bound"] else ""
    ends = interval(found["asvp_label_share_ci95"])
    return f"- asvp saves {share:.2f}{ends} of the labels that standard saves{most}, and {cost}."


def aligned_line(found: Mapping[str, Any]) -> str:
    """What fine-tuning in between, and computing features anew, is worth."""
    gain = found["asvp_area_over_svpp"]
    ends = None if gain["ci95"] is None else [100 * end for end in gain["ci95"]]
    points = f"{100 * gain['mean']:+.2f}{interval(ends, '+.1f')}"
    return f"- asvp over svpp, whose features stay as they are: {points} points of area."


def study_lines(name: str, found: Mapping[str, Any]) -> list[str]:
    """One study: its table, and a sentence a price."""
    title = f"## {name}"
    target = f"Target: {found['metric']} {found['target']:.4f}, what random scores with its"
    target += f" {found['random_labels']:.0f} labels. Seeds: {len(found['seeds'])}."
    size = ", ".join(f"{key} {value:g}" for key, value in found.get("size", {}).items())
    notes = [f"- {note}" for note in found["notes"]]
    commits = [one for one in found.get("commits", ()) if one]
    if commits:
        notes.append(f"- Run with the code of {'; '.join(commits)}.")
    if len(commits) > 1:
        notes.append("- **More than one**: what changed between them may be in the differences.")
    lines = [title, "", *([f"Size: {size}.", ""] if size else []), target, "", *table(found), ""]
    return [*lines, *price_lines(found), share_line(found), aligned_line(found), *notes, ""]


def page(studies: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    lines = ["# Policies: who chooses, and what it costs", ""]
    lines += [
        "Written by `benchmarks/policies.py`; nothing in it was typed in by hand. In brackets:",
        "95 % intervals over paired seeds (bootstrap for ratios and shares, t for areas).",
        "Operations, seconds and money are of a run that ends with the last label, or at the",
        "target; what only draws the curve is charged to nobody. Seconds are of cores that other",
        "work shared: compare operations.",
        "",
    ]
    for name, found in studies.items():
        lines += study_lines(name, found)
    return "\n".join(lines)
