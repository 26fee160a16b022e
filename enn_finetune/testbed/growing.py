"""How a study may grow from sitting to sitting: what its folder is said to hold.

A sitting may ask for fewer arms, agents, settings or problems than there are in the folder. What
study.json says of the folder is then the study of all its sittings together, of which some runs may
be missing: those that no sitting asked for.
"""

import dataclasses
from collections.abc import Mapping
from typing import cast

from enn_finetune.config import ConfigError, TestbedConfig
from enn_finetune.config.testbed import ActiveConfig, SupervisedConfig

LISTS: Mapping[str, tuple[str, ...]] = {
    "active": ("arms", "again"),
    "supervised": ("agents", "input_dims", "temperatures", "ratios"),
}
"""Keys, by section, whose values are added to."""

GROWING = frozenset(
    {"parts"}
    | {f"{part}.{key}" for part, keys in LISTS.items() for key in keys}
    | {f"{part}.{key}" for part in LISTS for key in ("problems", "first_problem")}
)
"""Keys that may change in a study that has begun: they add runs and leave those there are."""


def together(config: TestbedConfig, before: Mapping[str, object]) -> TestbedConfig:
    """The study of a sitting and of all before it, which differ in keys of `GROWING` only.

    Args:
      config: of this sitting.
      before: what study.json holds as the config of all sittings before.

    Raises:
      ConfigError: problems that leave a gap to those in the folder, named by their key.
    """
    found = [str(part) for part in cast(list, before.get("parts", []))]
    sections: dict[str, ActiveConfig | SupervisedConfig] = {}
    for part in LISTS:
        now = cast("ActiveConfig | SupervisedConfig", getattr(config, part))
        then = cast(Mapping[str, object], before.get(part, {}))
        if part in found:
            sections[part] = _section(part, now, then, asked=part in config.parts)
    parts = tuple(part for part in LISTS if part in found or part in config.parts)
    return dataclasses.replace(config, parts=parts, **sections)  # type: ignore[arg-type]


def _section(
    part: str,
    now: ActiveConfig | SupervisedConfig,
    then: Mapping[str, object],
    *,
    asked: bool,
) -> ActiveConfig | SupervisedConfig:
    """One part's section, with what the folder has of it; nothing is added if it is not asked."""
    added: dict[str, object] = {}
    for key in LISTS[part]:
        mine = getattr(now, key) if asked else ()
        added[key] = tuple(dict.fromkeys((*cast(list, then.get(key, ())), *mine)))
    first, count = cast(int, then["first_problem"]), cast(int, then["problems"])
    if asked:
        ends = first + count, now.first_problem + now.problems
        if max(first, now.first_problem) > min(ends):
            raise ConfigError(
                f"{part}.first_problem: the folder holds problems {first} to {ends[0] - 1}, this "
                f"asks for {now.first_problem} to {ends[1] - 1}, which leaves a gap; ask for those "
                "between as well, or give another --out"
            )
        first = min(first, now.first_problem)
        count = max(ends) - first
    return dataclasses.replace(now, **added, first_problem=first, problems=count)  # type: ignore[arg-type]
