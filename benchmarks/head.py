"""The epinet's fast path against plain vmap over indices: K = 100, N = 1024, D = 768, hidden (50,).

    python benchmarks/head.py

Both are jitted and timed in turns in one run; medians. The last line is one JSON object; `ratio` is
plain over fast for two classes, `ratio_10` for ten. Takes about a minute on two cores.
"""

import json
import statistics
import time

import jax
from flax import nnx

from enn_finetune.models.epinet import Epinet

K, N, D, REPEATS = 100, 1024, 768, 9


def milliseconds(function, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return 1e3 * (time.perf_counter() - start)


def compare(classes: int) -> tuple[float, float]:
    """Median milliseconds of the plain definition and of the fast path."""
    head = Epinet(D, classes, rngs=nnx.Rngs(0))
    graph, state = nnx.split(head)
    features = jax.random.normal(jax.random.key(1), (N, D))
    z = head.sample_index(jax.random.key(2), K)

    @jax.jit
    def plain(state, features, z):
        head = nnx.merge(graph, state)
        return jax.vmap(lambda one: head(features, one))(z)

    @jax.jit
    def fast(state, features, z):
        return nnx.merge(graph, state).many(features, z)

    gap = abs(plain(state, features, z) - fast(state, features, z)).max()
    pairs = [
        (milliseconds(plain, state, features, z), milliseconds(fast, state, features, z))
        for _ in range(REPEATS)
    ]
    slow, quick = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"C = {classes}: plain {slow:.1f} ms, fast {quick:.1f} ms, {slow / quick:.0f}x; "
        f"largest difference {gap:.1e}"
    )
    return slow, quick


def main() -> None:
    print(
        f"{jax.default_backend()}, jax {jax.__version__}: K = {K}, N = {N}, D = {D}, hidden (50,)"
    )
    (slow, quick), (slow_10, quick_10) = compare(2), compare(10)
    figures = {
        "ratio": round(slow / quick, 1),
        "ratio_10": round(slow_10 / quick_10, 1),
        "plain_ms": round(slow, 2),
        "fast_ms": round(quick, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
