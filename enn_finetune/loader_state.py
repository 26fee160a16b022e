"""What a loader saves of itself, and whether another one can go on from it."""

from typing import TypedDict


class LoaderState(TypedDict):
    """What `PrioritisedLoader.state` returns: plain JSON."""

    rows: int
    batch: int
    candidates: int
    source: str
    seed: int
    uniform: float
    anneal: bool
    revisit: float
    step: int
    bought: list[int]
    epoch: list[int]


SETTINGS = ("rows", "batch", "candidates", "source", "seed", "uniform", "anneal", "revisit")
"""Keys of a state that say how the loader was made; the others say how far it has come."""
LATER = {"revisit": 0.0}
"""Settings that older states lack, and what they had in their place."""


def check_state(state: LoaderState, mine: LoaderState) -> None:
    """Refuse a saved state that the loader whose own state is `mine` cannot go on from.

    Raises:
      ValueError: the state is damaged, or is of a loader with other settings; all differences are
        listed.
    """
    saved = LATER | dict(state)
    missing = sorted(mine.keys() - saved.keys())
    if missing:
        raise ValueError(f"the saved state is damaged: it lacks {', '.join(missing)}")
    here = dict(mine)
    wrong = [
        f"{name}: saved {saved[name]!r}, here {here[name]!r}"
        for name in SETTINGS
        if saved[name] != here[name]
    ]
    if wrong:
        raise ValueError("the saved state is of another loader: " + "; ".join(wrong))
    for name, rows in (("bought", state["bought"]), ("epoch", state["epoch"])):
        if len(set(rows)) < len(rows) or not set(rows) <= set(range(mine["rows"])):
            raise ValueError(
                f"the saved state is damaged: {name} does not list distinct rows "
                f"below {mine['rows']}"
            )
