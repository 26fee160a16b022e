"""Small studies of an intended task: rows of letters with a label and an attribute, a tiny BERT."""

import json
from pathlib import Path

import numpy as np
import tiny_runs

from enn_finetune.bench.jobs import Outcome
from enn_finetune.bench.store import BOUGHT, RECORDS
from enn_finetune.config import load_intended
from enn_finetune.intended import run as intended

TIMES = ("seconds", "scoring", "training", "encoding", "evaluation")
SETTINGS = """
[task]
name = "letters"
data = ["WORLD/rows.jsonl"]
labels = ["low", "high"]
attribute = "place"
attributes = ["hello", "world"]
pool_agreement = 0.8
pool = 20
test = 10
[intended]
encoders = ["WORLD/bert"]
[backbone]
max_tokens = 16
cache = "none"
[budget]
labels = 10
start = 4
round = 3
[acquisition]
indices = 4
[head]
hidden = [5]
index_dim = 4
[train]
batch = 4
warmup = 2
indices = 2
min_steps = 3
epochs = 1
[evaluation]
indices = 4
batch = 8
[frozen]
seeds = 2
arms = ["linear/random", "linear/least_confidence"]
[trained]
seeds = 1
arms = ["linear/random", "linear/least_confidence"]
"""


def rows(count: int = 260, seed: int = 3) -> list[dict[str, object]]:
    """Rows whose label goes by their letters; the attribute is the word they begin with.

    All texts are distinct, so that rows keep their numbers.
    """
    rng = np.random.default_rng(seed)
    found: list[dict[str, object]] = []
    for number in range(count):
        label = ("low", "high")[number % 2]
        letters = rng.choice(list("abcd" if label == "low" else "efgh"), 7)
        place = ("hello", "world")[number // 2 % 2]
        found.append({"text": f"{place} {' '.join(letters)}", "label": label, "place": place})
    assert len({row["text"] for row in found}) == count
    return found


def write_world(folder: Path) -> Path:
    """The encoder and the file of rows."""
    tiny_runs.write_world(folder)
    tiny_runs.write_rows(folder / "rows.jsonl", rows())
    return folder


def write_config(folder: Path, world: Path, more: str = "") -> Path:
    """The TOML file of a small study."""
    path = folder / "intended.toml"
    path.write_text(SETTINGS.replace("WORLD", str(world)) + more, encoding="utf-8")
    return path


def run(config: Path, out: Path, *overrides: str, resume: bool = False) -> Outcome:
    """A quiet run."""
    return intended.run(load_intended(config, overrides), out, resume=resume, quiet=True)


def lines(out: Path, name: str) -> list[dict[str, object]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]


def left_by(out: Path, backbone: str) -> dict[str, list[str]]:
    """One encoder's records and bought rows without times, in an order of their own."""
    kept = {
        kind: [
            {key: value for key, value in line.items() if key not in TIMES}
            for line in lines(out, file)
            if line["backbone"] == backbone
        ]
        for kind, file in (("records", RECORDS), ("bought", BOUGHT))
    }
    texts = {name: [json.dumps(x, sort_keys=True) for x in found] for name, found in kept.items()}
    return {name: sorted(found) for name, found in texts.items()}
