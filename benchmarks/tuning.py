"""What every tuning mode costs, beside PyTorch transformers and peft: rows/s, memory, parameters.

    python benchmarks/tuning.py --data ../shared [--peers PYTHON] [--quick]

PYTHON is the interpreter of an environment with torch, transformers and peft; what it lacks is
listed as missing. The encoder is the 3-layer BERT of ../shared/models, on batches of 32 rows of 32
tokens without padding, dropout 0.1, mean pooling, a linear head, float32. All sides run the same
batch from the same weights; none trains the word table.

A training step is the package's own (`train.train_step`: gradients, clipping at norm 1, AdamW, and
the weight average, which the PyTorch side is spared). Scoring is `train.predictions`, with what
a mode added folded into the weights; peft's is merged too. The mode frozen runs on features that
are computed before, as the package does: to make them takes one scoring pass of another mode.
`probe` is a step of `train.probe_steps`, the same under every mode.

Memory of ours is what XLA has assigned to the compiled program: arguments (weights, moments,
average, batch) and temporaries, as `memory_analysis` says. PyTorch has no such figure; theirs is
the sum of weights, gradients, moments and what autograd keeps for the reverse pass, each storage
once: without workspace, so it is a lower bound; of scoring there is none.

Samples of all sides alternate in one run, pinned to the same cores (one, unless asked); peers wait
in a process of their own for their turn. Rows/s are of processor time, over all threads, in the
best of a side's samples: what other work takes of the cores counts for nobody. It still takes of
their caches, so the last line says which share of the wall clock the samples had (`had_the_cores`);
far below 1, differences of some 10 % mean little.

Last line: one JSON object; `ratios` are rows/s over those of our full fine-tuning, `against` our
rows/s over the peer's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tuning_peers import Sample, best, sample

HERE = Path(__file__).parent
ENCODER = Path("models") / "paraphrase-MiniLM-L3-v2"
CLASSES, RANK, ALPHA = 2, 8, 16.0
WORKS = ("train", "score")
PAIRS = {"torch, full": "full", "peft, lora": "lora"}
"""Which mode of ours stands beside which side of theirs."""

MIB = 2**20
Timer = Callable[[str, str], Sample]


class Side(NamedTuple):
    """One way to tune: what does not change from sample to sample."""

    trained: int  # numbers of the encoder
    train_mib: float
    score_mib: float | None = None


def write_batch(path: Path, folder: Path, rows: int, tokens: int) -> None:
    """Random ids and labels that both sides read."""
    words = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    rng = np.random.default_rng(0)
    ids = rng.integers(words // 30, words, (rows, tokens)).astype(np.int32)
    np.savez(path, ids=ids, labels=rng.integers(0, CLASSES, rows))


def our_sides(folder: Path, batch: Path) -> tuple[dict[str, Side], dict[str, dict[str, Any]]]:
    """Every mode, and what its training step and its scoring are called as."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from enn_finetune import compiling, train
    from enn_finetune.config.schema import BackboneConfig, TrainConfig
    from enn_finetune.models.backbone import Identity, load_backbone
    from enn_finetune.models.classifier import Classifier
    from enn_finetune.models.heads import make_head
    from enn_finetune.models.tuning import MODES, adapted

    tokens, labels = _read(batch)
    R = len(labels)
    encoder = load_backbone(folder, pooling="mean")
    features = jax.jit(encoder.__call__)(tokens)
    recipe = TrainConfig(batch=R, lr=1e-6, head_lr=1e-6, weight_decay=0.01, warmup=0)
    key, total = jax.random.key(0), jnp.float32(0)
    sides: dict[str, Side] = {}
    runs: dict[str, dict[str, Any]] = {}

    def memory(call: Callable[[], object]) -> float:
        """MiB of the one program that a call runs."""
        found: list[float] = []

        def note(program: Any, args: Any, kwargs: Any) -> None:
            plan = program.lower(*args, **kwargs).compile().memory_analysis()
            found.append((plan.temp_size_in_bytes + plan.argument_size_in_bytes) / MIB)

        with compiling.watched(note):
            call()
        return found[0]

    def add(name: str, mode: str, *, probe: bool = False) -> None:
        how = BackboneConfig(tune=mode, rank=RANK, lora_alpha=ALPHA)
        frozen = mode == "frozen"
        backbone = Identity(encoder.width) if frozen else adapted(encoder, how, 0)
        head = {"kind": "linear", "features": encoder.width, "classes": CLASSES}
        parts = train.split(Classifier(backbone, make_head(head, rngs=nnx.Rngs(0))), how.embeddings)
        inputs = features if frozen else tokens
        hot = jax.nn.one_hot(labels, CLASSES)
        rows = train.Batch(inputs, hot, jnp.ones(R), jnp.arange(R), jnp.float32(1000))
        held = [train.begin(parts, recipe, how.embeddings)]

        how_to = {"config": recipe, "total": total, "probe": probe}

        def step() -> None:
            held[0], value = train.train_step(
                parts.graph, parts.fixed, held[0], rows, key, **how_to
            )
            jax.block_until_ready((held[0], value))

        def score() -> None:
            now = train.view(parts, held[0], averaged=False)
            jax.block_until_ready(train.predictions(now, inputs, key, indices=1))

        ours = {} if probe else parts.params.get("backbone", {})
        trained = sum(leaf.size for leaf in jax.tree.leaves(ours))
        runs[name] = {"train": step, "score": score}
        sides[name] = Side(trained, memory(step), memory(score))

    for mode in MODES:
        add(mode, mode)
    add("probe", "full", probe=True)
    return sides, runs


def _read(path: Path) -> tuple[Any, np.ndarray]:
    """The batch as our encoder takes it, and the labels (R,)."""
    import jax
    import jax.numpy as jnp

    from enn_finetune.types import TokenBatch

    with np.load(path) as given:
        ids, labels = given["ids"], given["labels"]
    R, T = ids.shape
    owner, places = np.indices((R, T))
    batch = TokenBatch(ids, np.zeros_like(ids), places, owner, np.arange(R) * T)
    return jax.tree.map(lambda part: jnp.asarray(part, jnp.int32), batch), labels


class Peers:
    """The other interpreter, which waits for a line and answers with one."""

    def __init__(self, python: str, folder: Path, batch: Path, given: argparse.Namespace) -> None:
        pools = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
        settings = {f"{pool}_NUM_THREADS": str(given.threads) for pool in pools}
        self.process = subprocess.Popen(
            [python, HERE / "tuning_peers.py", folder, batch, str(given.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings | {"HF_HUB_OFFLINE": "1"},
        )
        self.calls = given.calls
        self.found: dict[str, dict[str, Any]] = self._read()

    def time(self, side: str, work: str) -> Sample:
        """A sample of a side's work."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([side, work, self.calls]) + "\n")
        self.process.stdin.flush()
        return Sample(*self._read())

    def close(self) -> None:
        self.process.communicate()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("{", "[")):  # anything else is a library's own talk
                return json.loads(line)
        raise SystemExit("the peers' process ended; its message is above")


def take_samples(
    sides: list[str], peers: list[str], ours: Timer, theirs: Timer, repeats: int
) -> dict[str, dict[str, Sample]]:
    """The best sample of each side and work."""
    taken: dict[str, dict[str, list[Sample]]] = {
        side: {work: [] for work in WORKS} for side in (*sides, *peers)
    }
    for _ in range(repeats):
        for work in WORKS:
            for side, by_work in taken.items():
                by_work[work].append((theirs if side in peers else ours)(side, work))
    return {side: {work: best(s) for work, s in one.items()} for side, one in taken.items()}


def report(
    sides: dict[str, Side], times: dict[str, dict[str, Sample]], missing: dict[str, str], rows: int
) -> dict[str, Any]:
    """Print the table; what the last line says."""
    speed = {
        side: {work: rows / one.cpu_ms * 1e3 for work, one in by_work.items()}
        for side, by_work in times.items()
    }
    shares = [one.cpu_ms / one.wall_ms for by_work in times.values() for one in by_work.values()]
    print(f"\n{'':13}{'trained':>11} {'train, rows/s':>21} {'score, rows/s':>21} {'MiB':>15}")
    for side, about in sides.items():
        cells = "".join(
            f"{speed[side][w]:13.0f} ({speed[side][w] / speed['full'][w]:5.2f}x)" for w in WORKS
        )
        scored = "-" if about.score_mib is None else f"{about.score_mib:.0f}"
        print(f"{side:13}{about.trained:11,}{cells}{about.train_mib:9.0f}{scored:>7}")
    against: dict[str, dict[str, float]] = {}
    for peer, mode in PAIRS.items():
        if peer in missing:
            print(f"{peer}: {missing[peer]}")
            continue
        against[peer] = {w: round(speed[mode][w] / speed[peer][w], 3) for w in WORKS}
        ratios = ", ".join(f"{work} {ratio}x" for work, ratio in against[peer].items())
        print(f"ours ({mode}) / {peer}: {ratios}")
    return {
        "rows_per_second": {s: {w: round(v, 1) for w, v in o.items()} for s, o in speed.items()},
        "ratios": {
            s: {w: round(v / speed["full"][w], 3) for w, v in o.items()} for s, o in speed.items()
        },
        "against": against,
        "missing": missing,
        "had_the_cores": round(statistics.median(shares), 3),
        "trained": {side: about.trained for side, about in sides.items()},
        "train_mib": {side: round(about.train_mib, 1) for side, about in sides.items()},
        "score_mib": {s: round(a.score_mib, 1) for s, a in sides.items() if a.score_mib},
    }


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="has models/")
    parser.add_argument("--encoder", type=Path, help="another encoder's folder")
    parser.add_argument("--peers", default=sys.executable, help="the peers' interpreter")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="samples of each side")
    parser.add_argument("--calls", type=int, default=3, help="calls a sample")
    parser.add_argument("--quick", action="store_true", help="few samples")
    given = parser.parse_args(arguments)
    if given.quick:
        given.repeats, given.calls = 3, 2
    return given


def main(arguments: list[str] | None = None) -> None:
    given, start = options(arguments), time.perf_counter()
    if hasattr(os, "sched_setaffinity"):  # before jax counts cores for its own threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-given.threads :])
    from provenance import provenance

    folder = given.encoder or given.data / ENCODER
    with tempfile.TemporaryDirectory() as temporary:
        batch = Path(temporary) / "batch.npz"
        write_batch(batch, folder, given.rows, given.tokens)
        sides, runs = our_sides(folder, batch)
        peers = Peers(given.peers, folder, batch, given)
        missing = {n: str(f["missing"]) for n, f in peers.found.items() if "missing" in f}
        theirs = {n: Side(**f) for n, f in peers.found.items() if n not in missing}

        def ours(side: str, work: str) -> Sample:
            return sample(runs[side][work], given.calls)

        times = take_samples(list(sides), list(theirs), ours, peers.time, given.repeats)
        peers.close()
    last = {"rows": given.rows, "tokens": given.tokens, "threads": given.threads, "rank": RANK}
    last |= report(sides | theirs, times, missing, given.rows)
    last |= {"seconds": round(time.perf_counter() - start)}
    print(json.dumps(last | provenance()))


if __name__ == "__main__":
    from starting import run_script

    run_script(main)
