"""What benchmarks/policies.py can be asked for: arms, tasks, encoders and seeds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from policies_cells import LARGE, RANDOM, SMALL, Arm
from policies_shares import FIXED
from pydantic import TypeAdapter

from enn_finetune.config.bench import Span
from enn_finetune.report.money import PRICES

TASKS = ("sst2:rare", "cola", "rte", "sst2")
MODES = (("proxy.modes", "lora"),)


def arms_of(*, quick: bool, small: bool, auto: bool = True) -> list[Arm]:
    """The arms of a study, random first; auto at the middle price only where it is quick.

    `small`: those in which a small encoder selects are among them.
    """
    prices = () if not auto else PRICES[1:2] if quick else PRICES
    found = [Arm(RANDOM), *(Arm(policy) for policy in FIXED)]
    found += [Arm("auto", price, keys=() if quick else MODES) for price in prices]
    if small:
        found += [Arm(policy, small=True) for policy in FIXED]
        found.append(Arm("svpp", small=True, keys=(("proxy.pseudo", 0.2),)))
    return found


def named(arms: Sequence[Arm], names: Sequence[str]) -> list[Arm]:
    """Random, the fixed policies and, of the other arms, those with these names."""
    return [arm for arm in arms if arm.name in (RANDOM, *FIXED, *names)]


def options(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """What is asked for; tasks, encoders and the folder of results are filled in."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue and models")
    parser.add_argument("--out", type=Path, help="default: runs/policies, runs/policies-quick")
    parser.add_argument("--records", type=Path, help="packed cells to go on from and to add to")
    parser.add_argument("--kept", action="store_true", help="the page of --records, nothing is run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--auto", action="store_true", help="with --quick: auto too")
    parser.add_argument("--no-auto", action="store_true", help="no auto, which is half of the time")
    parser.add_argument("--no-small", action="store_true", help="the encoder selects for itself")
    parser.add_argument(
        "--arms", nargs="+", help='of the others these alone, by name, as "auto (crowd)"'
    )
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--encoders", nargs="+", help="names of folders in DATA/models, or paths")
    parser.add_argument("--seeds", type=span, metavar="N", help="how many, or START:STOP")
    parser.add_argument("--small", help="the selector for others; default: the 3-layer encoder")
    given = parser.parse_args(arguments)
    given.tasks = given.tasks or (TASKS[:1] if given.quick else TASKS)
    given.encoders = given.encoders or ([SMALL] if given.quick else [SMALL, LARGE])
    if given.kept and given.records is None:
        parser.error("--kept: name the folder of packed cells with --records")
    known = [arm.name for arm in arms_of(quick=given.quick, small=True)]
    if absent := [name for name in given.arms or () if name not in known]:
        parser.error(f"--arms: no arm is called {absent[0]!r}; there are {', '.join(known)}")
    given.out = given.out or Path("runs") / ("policies-quick" if given.quick else "policies")
    return given


def span(text: str) -> tuple[int, int]:
    """The first seed and the one after the last, as `enn-finetune bench` takes them.

    Raises:
      ArgumentTypeError: neither how many, from 1, nor START:STOP with 0 <= START < STOP.
    """
    try:
        return TypeAdapter(Span).validate_python(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected how many, from 1, or START:STOP with 0 <= START < STOP, got {text!r}"
        ) from None
