"""The testbed's agents, their options and rules by name, for studies to be checked without jax.

Tests hold them to `testbed.agents` and `acquisition.choose`, which need jax.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from enn_finetune.config.rules import EPISTEMIC

Option = float | tuple[float, ...]


def _option(value: object) -> Option:
    """A number, or several: a list, or on a command line numbers divided by commas."""
    parts = value.split(",") if isinstance(value, str) else value
    several = list(parts) if isinstance(parts, list | tuple) else [parts]
    given = [part for part in several if isinstance(part, str | float | int)]
    try:
        found = tuple(float(part) for part in given if not isinstance(part, bool))
    except (ValueError, OverflowError):  # a TOML integer may have hundreds of digits
        found = ()
    if not found or len(found) < len(several) or not all(map(math.isfinite, found)):
        raise ValueError("give a finite number, or several divided by commas")
    one = not isinstance(value, list | tuple) and len(found) == 1
    return found[0] if one else found


Options = dict[str, dict[str, Annotated[Option, BeforeValidator(_option)]]]
"""By agent and option."""


class Range(NamedTuple):
    """Which values an option takes."""

    words: str
    least: float = 0.0
    below: float = math.inf
    apart: bool = False  # the least value is none of them
    whole: bool = False
    several: bool = False  # one number or more

    def holds(self, value: Option) -> bool:
        """Whether this is one of them."""
        if isinstance(value, tuple) and not self.several:
            return False
        numbers = value if isinstance(value, tuple) else (value,)
        return bool(numbers) and all(
            self.least <= number < self.below
            and not (self.apart and number == self.least)
            and not (self.whole and number != int(number))
            for number in numbers
        )


COUNT = Range("a whole number from 1", least=1, whole=True)
WIDTHS = Range("whole numbers from 1, one a layer", least=1, whole=True, several=True)
AMOUNT = Range("a number from 0")
POSITIVE = Range("a number above 0", apart=True)
RATE = Range("a number from 0 to below 1", below=1)

OPTIONS: Mapping[str, Mapping[str, Range]] = MappingProxyType(
    {
        "mlp": {"hidden": WIDTHS, "l2": AMOUNT},
        "dropout": {"hidden": WIDTHS, "rate": RATE, "masks": COUNT, "l2": AMOUNT},
        "ensemble": {"members": COUNT, "hidden": WIDTHS, "l2": AMOUNT},
        "ensemble_prior": {
            "members": COUNT,
            "hidden": WIDTHS,
            "prior_scale": AMOUNT,
            "l2": AMOUNT,
        },
        "epinet": {
            "hidden": WIDTHS,
            "sigma_hidden": WIDTHS,
            "prior_hidden": WIDTHS,
            "index_dim": COUNT,
            "indices": COUNT,
            "prior_scale": AMOUNT,
            "l2": AMOUNT,
        },
        # The decay is the prior's precision: without any its posterior has no variance to state.
        "laplace": {"hidden": WIDTHS, "l2": POSITIVE, "widen": POSITIVE},
        "sngp": {
            "width": COUNT,
            "blocks": COUNT,
            "frequencies": COUNT,
            "length": POSITIVE,
            "amplitude": POSITIVE,
            "bound": POSITIVE,
            "l2": AMOUNT,
        },
    }
)
"""What each agent's factory takes beside the problem's numbers."""

ONE_FUNCTION = frozenset({"mlp"})
"""Agents whose predictions do not depend on an index."""

_SCORES = ("entropy", "margin", "least_confidence", "bald", "variance")
RULES: tuple[str, ...] = (
    "random",
    *_SCORES,
    *(
        f"{form}_{score}"
        for form in ("power", "power4", "softmax", "softrank")
        for score in _SCORES
    ),
    "epig",
    "eer",
    "eer_brier",
)
"""Rules that give every candidate a priority: those that one label at a time can be bought by."""


def arguments(agent: str, options: Mapping[str, Option]) -> dict[str, float | tuple[int, ...]]:
    """Options as an agent's factory takes them; all of them must be in their ranges."""
    found: dict[str, float | tuple[int, ...]] = {}
    for name, value in options.items():
        kind = OPTIONS[agent][name]
        if kind.several:
            found[name] = tuple(map(int, value if isinstance(value, tuple) else (value,)))
        elif not isinstance(value, tuple):
            found[name] = int(value) if kind.whole else value
    return found


def option_faults(agents: Options) -> list[str]:
    """A fault for every agent and option that is not known, and every value out of its range."""
    faults: list[str] = []
    for agent, options in agents.items():
        if not _known(agent, OPTIONS, f"agents.{agent}: no agent", faults):
            continue
        for name, value in options.items():
            key = f"agents.{agent}.{name}"
            if not _known(name, OPTIONS[agent], f"{key}: no option", faults):
                continue
            kind = OPTIONS[agent][name]
            if not kind.holds(value):
                given = ",".join(f"{n:g}" for n in value) if isinstance(value, tuple) else value
                words = f"{given:g}" if isinstance(given, float) else given
                faults.append(f"{key}: got {words}; give {kind.words}")
    return faults


def arm_faults(key: str, arms: Iterable[str]) -> list[str]:
    """A fault for every AGENT/RULE that is none, or that its agent cannot answer."""
    faults: list[str] = []
    for arm in dict.fromkeys(arms):
        agent, slash, rule = arm.partition("/")
        if not slash or not rule:
            faults.append(f"{key}: {arm!r}: write an arm as AGENT/RULE, as epinet/variance")
            continue
        known = _known(agent, OPTIONS, f"{key}: {arm}: no agent", faults)
        known &= _known(rule, RULES, f"{key}: {arm}: no rule", faults)
        if known and agent in ONE_FUNCTION and rule in EPISTEMIC:
            faults.append(
                f"{key}: {arm}: {rule} reads the spread over indices, and {agent} has none; "
                "use entropy or margin, or another agent"
            )
    return faults


def agent_faults(key: str, agents: Iterable[str]) -> list[str]:
    """A fault for every name that is no agent's."""
    faults: list[str] = []
    for agent in dict.fromkeys(agents):
        _known(agent, OPTIONS, f"{key}: no agent", faults)
    return faults


def _known(name: str, among: Iterable[str], what: str, faults: list[str]) -> bool:
    names = list(among)
    if name in names:
        return True
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    faults.append(f"{what} {name!r}; the nearest is {near}")
    return False
