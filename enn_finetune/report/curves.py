"""Learning curves with their 95 % bands, drawn from a summary. Needs matplotlib (extra: report)."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from enn_finetune.files import atomic_write
from enn_finetune.report.looks import Look, looks
from enn_finetune.report.words import direction, metric_name
from enn_finetune.savings import CurveJson, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_SPAN = 50.0  # a label axis that spans more than this is logarithmic
LABEL_GAP = 0.06  # of the axes' height, between names at the ends of curves


class Theme(NamedTuple):
    """Colours of one appearance."""

    ink: str
    muted: str
    grid: str
    paper: str


THEME = Theme("#1c2430", "#5b6675", "#e3e7ec", "#ffffff")


class MissingMatplotlibError(ImportError):
    """Matplotlib is not installed."""


def draw_curves(summary: Summary, path: str | os.PathLike[str]) -> None:
    """Write the score's and the NLL's learning curves, side by side, to a PNG file, atomically.

    Raises:
      MissingMatplotlibError: matplotlib is not installed.
    """
    metrics = panels(summary)
    figure = figure_of(6.6 * len(metrics), 4.8)
    for index, metric in enumerate(metrics):
        _panel(figure.add_subplot(1, len(metrics), index + 1), summary, metric, THEME)
    atomic_write(Path(path), png(figure, THEME))


def panels(summary: Summary) -> list[str]:
    """The metrics to draw: the score, and the NLL where every arm has it."""
    metrics = [summary["metric"]]
    if all("nll" in arm["curves"] for arm in summary["arms"].values()) and "nll" not in metrics:
        metrics.append("nll")
    return metrics


def figure_of(width: float, height: float) -> "Figure":
    """An empty figure, its size in inches.

    Raises:
      MissingMatplotlibError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise MissingMatplotlibError(
            "drawing learning curves needs matplotlib, which is not installed; install it with "
            "`pip install 'enn-finetune[report]'`, then run the report again: the records are kept"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def png(figure: "Figure", theme: Theme) -> bytes:
    """The bytes of a PNG file of a figure."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=150, facecolor=theme.paper, metadata={"Software": None}
    )
    return buffer.getvalue()


def _panel(axes: "Axes", summary: Summary, metric: str, theme: Theme) -> None:
    curves = {name: arm["curves"][metric] for name, arm in summary["arms"].items()}
    found = looks(summary)
    for name, curve in curves.items():
        _draw(axes, curve, found[name], front=summary["arms"][name]["role"] == "prioritised")
    _furnish(axes, curves, metric, summary, theme)
    if metric == summary["metric"]:
        _draw_target(axes, summary, found, theme)
    _name_ends(axes, curves, found)


def _draw(axes: "Axes", curve: CurveJson, look: Look, *, front: bool) -> None:
    order = 4 if front else 3
    if curve["low"] is not None and curve["high"] is not None:
        axes.fill_between(
            curve["labels"], curve["low"], curve["high"], color=look.light, alpha=0.14, lw=0
        )
    axes.plot(
        curve["labels"],
        curve["mean"],
        color=look.light,
        ls=look.dash,
        lw=2.2 if front else 2.0,
        marker=look.marker or None,
        ms=4.5,
        markevery=max(1, len(curve["labels"]) // 12),
        zorder=order,
    )


def _furnish(
    axes: "Axes", curves: dict[str, CurveJson], metric: str, summary: Summary, theme: Theme
) -> None:
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415  an optional extra

    first = min(curve["labels"][0] for curve in curves.values())
    last = max(curve["labels"][-1] for curve in curves.values())
    if first > 0 and last / first > LOG_SPAN:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    name = metric_name(metric)
    axes.set_title(
        f"{name[0].upper()}{name[1:]} on the {summary['split']} split ({direction(metric)})",
        loc="left",
        color=theme.ink,
        fontsize=11.5,
        fontweight="bold",
        pad=12,
    )
    axes.set_xlabel("labels bought", color=theme.muted, fontsize=10.5)
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=10, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.muted)
    axes.margins(x=0.01)


def _draw_target(axes: "Axes", summary: Summary, styles: dict[str, Look], theme: Theme) -> None:
    target = summary["target"]
    axes.axhline(target, color=theme.muted, lw=1.1, ls=(0, (1, 2)), zorder=2)
    axes.annotate(
        f"target {target:.3f}",
        (0.0, target),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        color=theme.muted,
        fontsize=9,
    )
    floor = axes.get_ylim()[0]
    for name, arm in summary["arms"].items():
        labels = arm["labels_to_target"]
        if labels is None or arm["role"] == "baseline":
            continue
        axes.plot([labels, labels], [floor, target], color=styles[name].light, lw=1, ls=":")
        axes.plot(
            labels, target, "o", ms=7, mfc=theme.paper, mec=styles[name].light, mew=2, zorder=6
        )
    axes.set_ylim(bottom=floor)


def _name_ends(axes: "Axes", curves: dict[str, CurveJson], styles: dict[str, Look]) -> None:
    """Write each arm's name at the end of its curve, pushed apart where they would overlap."""
    bottom, top = axes.get_ylim()
    ends = {name: (curve["mean"][-1] - bottom) / (top - bottom) for name, curve in curves.items()}
    for (name, end), place in zip(ends.items(), spread(list(ends.values())), strict=True):
        axes.plot(
            [1.005, 1.04],
            [end, place],
            color=styles[name].light,
            lw=1.0,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(
            1.05,
            place,
            name,
            transform=axes.transAxes,
            va="center",
            color=styles[name].light,
            fontsize=10,
            fontweight="bold",
        )


def spread(places: list[float], gap: float = LABEL_GAP) -> list[float]:
    """Places at least `gap` apart, in the same order, moved as little as possible.

    Least squares in the same order and within 0..1 is isotonic regression (pool adjacent
    violators) of the places less their due gaps, clipped. Too many for the gap share what there is.
    """
    order = np.argsort(places, kind="stable")
    gap = min(gap, 1.0 / max(len(places) - 1, 1))
    steps = gap * np.arange(len(places))
    pools: list[list[float]] = []
    for value in np.array(places, float)[order] - steps:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    fitted = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    moved = np.clip(fitted, 0.0, 1.0 - steps[-1]) + steps
    result = np.empty(len(moved))
    result[order] = moved
    return result.tolist()
