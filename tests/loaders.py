"""Small loaders of every kind, and runs of them, for the tests of the loader."""

import numpy as np
from hypothesis import strategies as st

from enn_finetune.loader import PrioritisedLoader


@st.composite
def settings_of_loaders(draw, **fixed):
    """Keyword arguments of a small loader, tiny and exhausted pools included."""
    rows = draw(st.integers(1, 24))
    batch = draw(st.integers(1, rows))
    labels = draw(st.none() | st.integers(1, rows))
    steps = draw(st.none() | st.integers(1, 25))
    found = {
        "rows": rows,
        "batch": batch,
        "candidates": draw(st.integers(batch, rows)),
        "labels": labels,
        "start": draw(st.integers(0, labels or rows)),
        "steps": steps,
        "source": draw(st.sampled_from(["whole", "epoch"])),
        "seed": draw(st.integers(0, 2**32)),
        "uniform": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        "anneal": draw(st.booleans()),
        "revisit": draw(st.sampled_from([0.0, 0.5, 0.7])),
    } | fixed
    if found["source"] == "epoch":
        found["revisit"] = 0.0
    return found | {"anneal": found["anneal"] and found["steps"] is not None}


every_loader = settings_of_loaders()
salts = st.integers(0, 1000)


def priorities(loader: PrioritisedLoader, candidates: np.ndarray, salt: int) -> np.ndarray:
    """Noise that depends on the step and the row; a salt divisible by 3 always likes low rows."""
    if salt % 3 == 0:
        return -candidates.astype(float)
    noise = np.random.default_rng([salt, loader.step]).normal(size=100)
    return noise[candidates]


def step(loader: PrioritisedLoader, salt: int) -> tuple[list[int], list[int]]:
    """One step: (candidates, rows chosen)."""
    candidates = loader.candidates()
    rows = loader.choose(candidates, priorities(loader, candidates, salt))
    return candidates.tolist(), rows.tolist()


def run(loader: PrioritisedLoader, salt: int) -> list[tuple[list[int], list[int]]]:
    """All the steps that are left."""
    trace = []
    while not loader.finished:
        trace.append(step(loader, salt))
    return trace


def uniform_rows(given: dict, step: int) -> int:
    """How many rows of a step are uniform: whole rows of the share, summed over those chosen."""
    per_step = given["batch"] * (1 - given["revisit"])

    def before(step: int) -> int:
        shares = [given["uniform"]] * int(per_step * step + 1e-6)
        if given["anneal"]:  # the share in the middle of each row
            last = int(per_step * given["steps"] + 1e-6)
            done = [min(1, (row + 0.5) / last) for row in range(len(shares))]
            shares = [1 - (1 - given["uniform"]) * (1 - part) for part in done]
        return int(sum(shares) + 1e-6)

    return before(step + 1) - before(step)


def revisited_rows(given: dict, step: int, bought: int) -> int:
    """How many rows of a step are of the `bought` ones: none before the start, no row twice."""
    begun = bought >= max(given["start"], min(given["batch"], given["labels"] or given["rows"]))
    per_step = given["batch"] * (1 - given["revisit"])
    chosen = int(per_step * (step + 1) + 1e-6) - int(per_step * step + 1e-6)
    return begun * min(bought, given["batch"] - chosen)
