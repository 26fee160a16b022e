"""Studies to figures: a summary of every split, and all of them together as summary.json."""

import platform
from collections.abc import Mapping
from typing import NamedTuple

from enn_finetune.errors import InputError
from enn_finetune.records import version
from enn_finetune.report import pairing
from enn_finetune.report.studies import Study
from enn_finetune.savings import (
    RESAMPLES,
    ArmJson,
    RatioJson,
    Row,
    Summary,
    over_tasks,
    summarise,
)

BASELINE, OWN = "linear/random", "epinet/random"
FACTS = ("config_hash", "commit", "data_fingerprint", "command", "machine")
Json = dict[str, object]


class Figures(NamedTuple):
    """One study and its summary on each split, the task's own split first."""

    name: str
    study: Study
    summaries: tuple[Summary, ...]

    @property
    def main(self) -> Summary:
        """The summary on the task's own split."""
        return self.summaries[0]

    def facts(self, name: str) -> list[str]:
        """What the study's sources say of something, each saying once.

        Where a source has a list of them (`commands` for `command`), all of it.
        """
        found: list[object] = []
        for source in self.study.sources:
            several = source.get(f"{name}s")
            found += several if isinstance(several, list) else [source.get(name)]
        return list(dict.fromkeys(str(value) for value in found if value))

    @property
    def rows(self) -> dict[str, int]:
        """Rows of the pool and of each evaluation split, as far as the sources say."""
        found: dict[str, int] = {}
        for source in self.study.sources:
            pool, splits = source.get("pool_rows"), source.get("splits")
            found |= {"pool": pool} if isinstance(pool, int) else {}
            if isinstance(splits, dict):
                found |= {str(k): v for k, v in splits.items() if isinstance(v, int)}
        return found

    @property
    def seconds(self) -> float:
        """Wall time of all its runs, as far as their sources say."""
        times = [s.get("seconds", s.get("wall_seconds")) for s in self.study.sources]
        return float(sum(time for time in times if isinstance(time, int | float)))


def figures_of(
    studies: Mapping[str, Study],
    *,
    baseline: str | None = None,
    own: str | None = None,
    resamples: int = RESAMPLES,
) -> list[Figures]:
    """Summaries of all studies.

    Raises:
      InputError: records that cannot be summarised: which study, what and where.
    """
    found = []
    for name, study in studies.items():
        try:
            summaries = [
                _summarise(study, split, baseline, own, resamples) for split in study.splits
            ]
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{name}: {error}") from error
        found.append(Figures(name, study, tuple(summaries)))
    return found


def _summarise(
    study: Study, split: str, baseline: str | None, own: str | None, resamples: int
) -> Summary:
    arms = list(
        dict.fromkeys(str(row.get("arm")) for row in study.records if row["split"] == split)
    )
    wanted = baseline or _named(study, "baseline") or BASELINE
    reference, notes = wanted, []
    if wanted not in arms:
        uniform = [arm for arm in arms if arm.endswith("/random")]
        reference = (uniform or arms)[0]
        notes = [f"There is no arm {wanted}; {reference} stands in for it as the baseline."]
    head = own or _named(study, "own") or OWN
    summary = summarise(
        study.records,
        study.metric,
        reference,
        head if head in arms and head != reference else None,
        split=split,
        resamples=resamples,
    )
    summary["notes"] = notes + pairing.note(study) + summary["notes"]
    return summary


def _named(study: Study, role: str) -> str | None:
    found = [source[role] for source in study.sources if source.get(role)]
    return str(found[0]).replace(" / ", "/") if found else None


def summary_json(figures: list[Figures]) -> Json:
    """Everything as one JSON-able dictionary: figures by task and arm, then where they are from.

    `tasks` holds for every arm its figures on the task's own split, and under `splits` the main
    ones on each split. `studies` says what each task's figures are of and how to make them again.
    `against` has the paired gains in area over the baseline and over margin on the plain head.
    """
    tasks: dict[str, dict[str, Json]] = {}
    for found in figures:
        tasks[found.name] = {
            arm: {**_arm(entry), "splits": _splits(found, arm)}
            for arm, entry in found.main["arms"].items()
        }
    return {
        "tasks": tasks,
        "against": {
            reference: {arm: _row(row) for arm, row in rows.items()}
            for reference, rows in against(figures).items()
        },
        "studies": {found.name: _study(found) for found in figures},
        "resamples": max(found.main["resamples"] for found in figures),
        "version": version(),
        "python": platform.python_version(),
    }


MAIN = (
    "score_mean",
    "score_ci95",
    "auc",
    "auc_gain",
    "labels_to_target",
    "labels_last",
    "system_ratio",
    "acquisition_ratio",
    "losses_to_random",
    "losses_final",
    "seeds",
)


UNKNOWN: RatioJson = {
    "value": None,
    "ci95": None,
    "less_than": None,
    "more_than": None,
    "unreached": 0.0,
}


def _arm(arm: ArmJson) -> Json:
    kept = {name: value for name, value in arm.items() if name not in ("curves", "per_seed")}
    if arm["acquisition_ratio"] is None:  # no arm with the same head at random
        kept["acquisition_ratio"] = UNKNOWN
    return kept


def _splits(found: Figures, arm: str) -> Json:
    return {
        summary["split"]: {name: summary["arms"][arm][name] for name in MAIN}  # type: ignore[literal-required]
        for summary in found.summaries
        if arm in summary["arms"]
    }


def _study(found: Figures) -> Json:
    main = found.main
    return {
        **found.study.key._asdict(),
        "metric": main["metric"],
        "split": main["split"],
        "splits": [summary["split"] for summary in found.summaries],
        "baseline": main["baseline"],
        "own": main["own"],
        "budget": main["budget"],
        "target": main["target"],
        "target_ci95": main["target_ci95"],
        "baseline_labels": main["baseline_labels"],
        "seeds": main["seeds"],
        "notes": main["notes"],
        **{name: found.facts(name) for name in FACTS},
        "rows": found.rows,
        "seconds": found.seconds,
    }


def against(figures: list[Figures]) -> dict[str, dict[str, Row]]:
    """Paired gains in area over the tasks' common baseline, and over margin on its head.

    A reference that no study has is left out.
    """
    studies = {found.name: found.main["arms"] for found in figures}
    heads = list(dict.fromkeys(found.main["baseline"] for found in figures))
    references = list(dict.fromkeys([*heads, *(f"{arm.split('/')[0]}/margin" for arm in heads)]))
    rows = {reference: over_tasks(studies, reference) for reference in references}
    return {reference: found for reference, found in rows.items() if found}


def _row(row: Row) -> Json:
    return {"mean": row.mean, "tasks": row.tasks, "wins": row.wins, "losses": row.losses}
