"""Scoring a large file with `enn-finetune score`: rows a second, and peak memory against its size.

    python benchmarks/score.py --data ../shared

A 3-layer classifier (the encoder under --data, an untrained epinet head) scores a JSON-lines file
of SST-2 train sentences under K = 32 indices, and a file of a quarter of its rows. Each command is
a process of its own, timed from start to exit: imports, compilation and ranks included; rows a
second of processor time are less at the mercy of other processes. Memory is the peak resident set
of that process, and must not grow with the file; where PyTorch is installed, transformers imports
it, which adds to both. Without --data's files, the bundled messages and the encoder of the extra
`demo` (6 layers) stand in.

Last line: one JSON object.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from provenance import provenance
from starting import run_script

INDICES = 32
POLL = 0.02  # seconds between two looks at a process's memory
ROOT = Path(__file__).resolve().parents[1]


class Measured(NamedTuple):
    """One scoring command."""

    rows: int
    seconds: float
    processor_seconds: float  # over all cores; 0 where the system does not tell
    peak_mib: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def save_model(data: Path, folder: Path) -> str:
    """Save an encoder with an untrained epinet head for two classes; returns the encoder's name."""
    from flax import nnx

    from enn_finetune.models.backbone import load_backbone
    from enn_finetune.models.classifier import Classifier
    from enn_finetune.models.heads import make_head
    from enn_finetune.models.places import find_backbone

    encoder = find_backbone((str(data / "models" / "paraphrase-MiniLM-L3-v2"), "minilm"))
    backbone = load_backbone(encoder)
    head = {"kind": "epinet", "features": backbone.width, "classes": 2}
    classifier = Classifier(backbone, make_head(head, rngs=nnx.Rngs(0)))
    classifier.save_pretrained(
        folder, tokenizer=encoder, labels=("negative", "positive"), max_tokens=128
    )
    return encoder.name if encoder.is_relative_to(data) else "all-MiniLM-L6-v2"


def sentences(data: Path) -> tuple[str, list[str]]:
    """Real texts and where they are from."""
    from enn_finetune.data import tasks

    name = "sst2" if (data / "glue" / "SST-2" / "train.tsv").is_file() else "messages"
    return name, tasks.load_split(tasks.find_task(name), "train", (str(data / "glue"),)).text


def write_rows(path: Path, texts: list[str], rows: int) -> None:
    """A JSON-lines file of so many rows, the texts in turn."""
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(itertools.islice(itertools.cycle(texts), rows)):
            file.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")


def peak_mib(pid: int) -> float:
    """The peak resident set of a running process in MiB; 0 where the system does not tell.

    Not getrusage: on Linux a child's figure starts from what its parent held when it was forked.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields.get("VmHWM", "0 kB").split()[0]) / 1024


def children_seconds() -> float:
    """Processor time of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def score(model: Path, source: Path, output: Path, rows: int) -> Measured:
    """Run the command on a file of so many rows and watch it."""
    command = [sys.executable, "-m", "enn_finetune", "score", str(model), "--input", str(source)]
    command += ["--output", str(output), "--indices", str(INDICES)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start, before, peak = time.perf_counter(), children_seconds(), 0.0
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(POLL)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the scoring command failed with status {process.returncode}")
    with output.open("rb") as file:
        scored = sum(1 for _ in file)
    if scored != rows:
        raise SystemExit(f"{output}: found {scored} rows, expected {rows}")
    return Measured(rows, seconds, children_seconds() - before, peak)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has glue/, models/")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    task, texts = sentences(options.data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        encoder = save_model(options.data, folder / "model")
        # Compiles, so that neither figure depends on what an earlier run left in jax's cache.
        sizes = {"first": min(options.rows, 5000), "quarter": options.rows // 4}
        sizes["whole"] = options.rows
        found = {}
        for name, rows in sizes.items():
            write_rows(folder / f"{name}.jsonl", texts, rows)
            output = folder / f"{name}-scored.jsonl"
            found[name] = score(folder / "model", folder / f"{name}.jsonl", output, rows)
    quarter, whole = found["quarter"], found["whole"]
    print(f"{encoder}, texts of {task}, K = {INDICES}")
    print(f"{'rows':>9}{'seconds':>10}{'of processor':>14}{'rows/s':>9}{'peak, MiB':>11}")
    for run in (quarter, whole):
        print(
            f"{run.rows:9,}{run.seconds:10.1f}{run.processor_seconds:14.1f}{run.rows_per_s:9,.0f}"
            f"{run.peak_mib:11,.0f}"
        )
    rows = whole.rows - quarter.rows
    more = rows / (whole.seconds - quarter.seconds)
    work = rows / max(whole.processor_seconds - quarter.processor_seconds, 1e-9)
    print(f"start-up aside: {more:,.0f} rows/s, {work:,.0f} rows a processor second")
    figures: dict[str, object] = {
        "rows": whole.rows,
        "rows_per_s": round(whole.rows_per_s, 1),
        "rows_per_s_without_start": round(more, 1),
        "rows_per_processor_s_without_start": round(work, 1),
        "peak_mib": round(whole.peak_mib, 1),
        "peak_mib_quarter": round(quarter.peak_mib, 1),
        "seconds": round(whole.seconds, 2),
        "seconds_quarter": round(quarter.seconds, 2),
        "indices": INDICES,
        "encoder": encoder,
        "texts": task,
    }
    print(json.dumps(figures | provenance()))


if __name__ == "__main__":
    run_script(main)
