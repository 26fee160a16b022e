"""Active learning on the testbed: many runs in compiled programs against one run at a time.

    python benchmarks/testbed.py [--quick]

An environment step is one label: all 200 candidates are scored, the label of one is read, and the
agent takes a gradient step on a minibatch of what it knows. Three ways to take the same steps, on
the same problems and agents, with the same keys:

*ours*: a chunk of runs vmapped, their steps in `lax.scan`, as the study runs them; on each core one
chunk at a time, small enough for its cache. The host waits once a chunk, at the end.
*reference*: one run at a time in the loop of the Neural Testbed's `active_learning`: a jitted
choice whose result the host waits for, a replay in host memory, a jitted gradient step on the
minibatch read from it. Its keys and the places of its minibatches are drawn beforehand, untimed.
*fused*: one run at a time, all of a step in one jitted call (`active.step`), after which the host
waits for the candidate. The leanest form of the same loop.

All must choose the same candidates, step by step: `agree` is the share of choices that are alike.
Runs part for good once two priorities are so near that rounding decides between them, as happens at
the entropy's maximum; below .75 the exit status is 1, where sides that differ in substance lie.
Compiling is not timed. The sides are measured in turns, each for the best of its repeats.

What batching saves is the cost of starting operations, not arithmetic: the gain is largest for
small networks. `small` is an MLP of 16-16 units, ample for 2 inputs; `mlp` has the 50-50 of the
testbed, `epinet` its epinet. On a busy machine the threads of *ours* wait for one another.

The last line is one JSON object: `steps_per_second` (ours), `one_at_a_time` (reference), `ratio`,
and `ratio_to_fused`, of the first agent; `agents` has all of them.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from provenance import provenance
from starting import run_script

from enn_finetune.acquisition.choose import RULES
from enn_finetune.testbed import active, fitting
from enn_finetune.testbed.active import Course, Learner, Steps, World
from enn_finetune.testbed.agents import AGENTS
from enn_finetune.testbed.types import Agent, Data, Spec

SMALL = (16, 16)
LEARNING_RATE = 1e-3
ALIKE = 0.75  # least share of choices that have to agree


def agent_of(name: str, spec: Spec) -> tuple[Agent, str]:
    """An agent and the rule it asks by."""
    if name == "small":
        return AGENTS["mlp"](spec, hidden=SMALL), "entropy"
    return AGENTS[name](spec), "entropy" if name == "mlp" else "variance"


def course(runs: int) -> Course:
    """All runs have the first rule, each candidate once."""
    rates = jnp.full(runs, LEARNING_RATE)
    return Course(jnp.zeros(runs, jnp.int32), jnp.zeros(runs, bool), rates)


class Setting(NamedTuple):
    """What all sides are given."""

    agent: Agent
    steps: Steps
    worlds: World  # (R, ...)
    learners: Learner

    def run(self, number: int) -> tuple[World, Learner]:
        """One of them."""
        return jax.tree.map(lambda a: a[number], (self.worlds, self.learners))


class Ours:
    """All runs, some in a program, as many programs at a time as there are cores."""

    def __init__(self, given: Setting, size: int, threads: int):
        runs = len(given.worlds.data.y)
        self.parts = [
            jax.tree.map(lambda a: a[start : start + size], (given.worlds, given.learners))  # noqa: B023
            for start in range(0, runs, size)
        ]
        self.course, self.steps, self.threads = course(size), runs * given.steps.length, threads
        made = active.segment(given.agent, given.steps)
        worlds, learners = self.parts[0]
        self.program = made.lower(worlds, self.course, learners).compile()  # type: ignore[attr-defined]

    def measure(self) -> tuple[float, np.ndarray]:
        """Steps per second, and the candidates (R, steps)."""
        given = [(worlds, jax.tree.map(jnp.copy, learners)) for worlds, learners in self.parts]
        jax.block_until_ready(given)  # copies, for the program takes its learners' memory

        def one(part: tuple[World, Learner]) -> np.ndarray:
            return np.asarray(self.program(part[0], self.course, part[1])[1].rows)

        with ThreadPoolExecutor(self.threads) as pool:
            start = time.perf_counter()
            rows = np.concatenate(list(pool.map(one, given)))
            seconds = time.perf_counter() - start
        return self.steps / seconds, rows.reshape(len(rows), -1)


class Fused:
    """A few of the same runs, one after the other, a jitted call a step."""

    def __init__(self, given: Setting, few: int):
        self.given, self.few = given, few
        self.course = jax.tree.map(lambda a: a[0], course(1))

        def step(world: World, one: Course, learner: Learner) -> tuple[Learner, Array]:
            drawn = active.draw(given.steps, 2, learner.key, learner.taken[None])
            drawn = jax.tree.map(lambda a: a[0], drawn)
            return active.step(given.agent, given.steps, world, one, learner, drawn)

        self.step = jax.jit(step)

    def measure(self) -> tuple[float, np.ndarray]:
        """Steps per second, and the candidates (few, steps)."""
        runs = [self.given.run(number) for number in range(self.few)]
        jax.block_until_ready(runs)
        chosen, length = [], self.given.steps.length
        start = time.perf_counter()
        for world, learner in runs:
            mine = []
            for _ in range(length):
                learner, row = self.step(world, self.course, learner)  # noqa: PLW2901
                mine.append(int(row))
            chosen.append(mine)
        return self.few * length / (time.perf_counter() - start), np.asarray(chosen)


class Reference:
    """The same runs as the reference's loop takes them: choose, read, replay, gradient step."""

    def __init__(self, given: Setting, few: int):
        self.given, self.few = given, few
        agent, steps = given.agent, given.steps
        rule = RULES[steps.rules[0]]

        def choose(state: fitting.State, x: Array, known: Array, keys: Array) -> Array:
            weight = jnp.zeros(2 * len(known))  # what no agent of this benchmark looks at
            fit = agent.finish(state.params, state.fixed, x, weight, weight)
            log_probs = agent.log_probs(fit, keys[0], x, steps.functions)
            return jnp.argmax(jnp.where(known, -jnp.inf, rule(log_probs, keys[1])))

        def update(
            state: fitting.State, x: Array, y: Array, share: Array, key: Array
        ) -> fitting.State:
            return fitting.update(agent, state, key, Data(x, y), share, LEARNING_RATE)

        self.choose, self.update = jax.jit(choose), jax.jit(update)
        self.keys = [self._keys(given.run(number)[1].key) for number in range(few)]

    def _keys(self, key: Array) -> list[tuple[Array, list[tuple[np.ndarray, Array]]]]:
        """Of each step: the keys of choosing, and of each gradient step its places and its key."""
        numbers = jnp.arange(self.given.steps.length)
        drawn = active.draw(self.given.steps, 2, key, numbers)
        found = []
        for taken in range(self.given.steps.length):
            one = jax.tree.map(lambda a: a[taken], drawn)  # noqa: B023
            places = np.asarray(active.place_of(one.places, taken + 1))
            found.append(
                (jnp.stack([one.indices, one.rule]), list(zip(places, one.loss, strict=True)))
            )
        return found

    def measure(self) -> tuple[float, np.ndarray]:
        """Steps per second, and the candidates (few, steps)."""
        runs = [self.given.run(number) for number in range(self.few)]
        jax.block_until_ready(runs)
        chosen, length, batch = [], self.given.steps.length, self.given.steps.batch
        start = time.perf_counter()
        for (world, learner), keys in zip(runs, self.keys, strict=True):
            x, y = np.asarray(world.data.x), np.asarray(world.data.y)
            known, state = np.zeros(len(y), bool), learner.state
            replay_x, replay_y = np.zeros((length, x.shape[1]), x.dtype), np.zeros(length, y.dtype)
            mine: list[int] = []
            for taken, (choosing, updates) in enumerate(keys):
                row = int(self.choose(state, world.data.x, known, choosing))
                known[row] = True
                replay_x[taken], replay_y[taken] = x[row], y[row]
                mine.append(row)
                share = np.full(batch, (taken + 1) / batch, np.float32)
                for places, key in updates:
                    state = self.update(state, replay_x[places], replay_y[places], share, key)
            chosen.append(mine)
            jax.block_until_ready(state)
        return self.few * length / (time.perf_counter() - start), np.asarray(chosen)


def compare(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """All sides of one agent, in turns."""
    spec = Spec(given.inputs, 2, 0.1)
    agent, rule = agent_of(name, spec)
    steps = Steps(
        rules=(rule,),
        candidates=given.candidates,
        updates=given.updates,
        batch=given.batch,
        functions=given.functions,
        exam_functions=1,
        exam_groups=1,
        every=given.candidates,
        evaluations=1,
    )
    keys = jax.random.split(jax.random.key(0), 2 * given.runs)
    start = active.starter(agent, spec, steps)
    setting = Setting(agent, steps, *start(keys[: given.runs], keys[given.runs :]))
    sides = (
        Ours(setting, given.chunk, given.threads),
        Reference(setting, given.few),
        Fused(setting, given.few),
    )
    rows = [side.measure()[1][: given.few] for side in sides]  # compiles, too
    turns = [[side.measure()[0] for side in sides] for _ in range(given.repeats)]
    ours, reference, fused = (max(speeds) for speeds in zip(*turns, strict=True))
    agree = min(float(np.mean(rows[0] == other)) for other in rows[1:])
    print(
        f"{name:8} {ours:9,.0f} steps/s; reference {reference:7,.0f}: {ours / reference:5.1f}x; "
        f"fused {fused:7,.0f}: {ours / fused:5.1f}x; {100 * agree:.1f} % of choices alike",
        flush=True,
    )
    return {
        "steps_per_second": round(ours, 1),
        "one_at_a_time": round(reference, 1),
        "ratio": round(ours / reference, 2),
        "fused": round(fused, 1),
        "ratio_to_fused": round(ours / fused, 2),
        "agree": round(agree, 4),
        "rule": rule,
        "all_turns": [[round(speed, 1) for speed in turn] for turn in turns],
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first agent only")
    parser.add_argument("--agents", nargs="+", choices=("small", "mlp", "epinet"))
    parser.add_argument("--runs", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=8, help="runs in a program; divides --runs")
    parser.add_argument("--few", type=int, default=8, help="of them, run one at a time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--updates", type=int, default=1, help="gradient steps a label")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--functions", type=int, default=8, help="that variance is taken over")
    given = parser.parse_args()
    given.agents = given.agents or (["small"] if given.quick else ["small", "mlp", "epinet"])
    if given.runs % given.chunk or given.few > given.runs:
        parser.error(f"--runs {given.runs}: no multiple of --chunk {given.chunk}, or too few")
    return given


def main() -> None:
    given = options()
    found = {name: compare(name, given) for name in given.agents}
    first = found[given.agents[0]]
    print(json.dumps(first | {"agents": found, "settings": vars(given)} | provenance()))
    if min(one["agree"] for one in found.values()) < ALIKE:
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)
