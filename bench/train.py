"""End to end: real steps a second of training, padded at random, bucketed and packed.

    python -m bench train
    python -m bench train --tasks words --count 3000 --batches 4 --rounds 1     a quick look

The same bidirectional LSTM, weights, batches, loss and optimizer in jaxmask, Flax, Keras and
PyTorch (`bench/learners.py`), on two tasks (`bench/tasks.py`). Libraries that train on the same
batches must have the same first losses, and a packed batch the loss of its sequences padded, before
anything is timed. Compiling is not timed, nor is making batches: `bench packing` times that.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from bench import chart, learners, store, tables, tasks, timing
from bench.contest import require_same
from bench.learners import Step
from bench.rivals.models import Weights
from bench.suite import Suite, some
from bench.tasks import Batch, Task

LIBRARIES = ("jaxmask", "flax", "keras", "torch")
ARMS = (*itertools.product(LIBRARIES, ("random", "bucketed")), ("jaxmask", "packed"))
COMPARED, TOLERANCE = 3, 1e-3  # losses of the first steps
PICTURE = "\n![Real steps a second of training](../bench/results/train.png)\n"


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.tasks:
        yield from run(tasks.TASKS[name](options.count), options)


def run(task: Task, options: argparse.Namespace) -> Iterator[store.Row]:
    """Compile, compare and time all arms on one task."""
    params, sizes = learners.initial_params(task), (options.batches, options.shapes)
    made = {kind: tasks.batches(task, kind, *sizes) for kind in tasks.KINDS}
    arms = [arm for arm in ARMS if arm[0] in options.libraries]
    steps, losses, compiling = {}, {}, {}
    for arm in arms:
        start, batches = time.perf_counter(), made[arm[1]]
        steps[arm] = learners.learner(task, arm[0], params)
        losses[arm] = train(steps[arm], batches[:COMPARED])
        train(steps[arm], list({batch.ids.shape: batch for batch in batches}.values()))
        compiling[arm] = time.perf_counter() - start
    compare(losses)
    if ("jaxmask", "packed") in losses:
        compare_packed(task, params, made["packed"][0], losses["jaxmask", "packed"][0])
    seconds: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    # A whole round of one arm at a time: PyTorch's threads spin for a while after their work.
    for _ in range(options.rounds):
        for arm in arms:
            seconds[arm].append(timing.seconds_of(train, steps[arm], made[arm[1]]))
            time.sleep(0.2)
    for library, kind in arms:
        arm, batches = (library, kind), made[kind]
        real = sum(batch.real for batch in batches)
        yield {
            "task": task.name,
            "library": library,
            "kind": kind,
            "real_steps_per_second": timing.spread([real / s for s in seconds[arm]]),
            "share_of_real_steps": round(real / sum(batch.mask.size for batch in batches), 3),
            "real_steps_of_a_batch": round(real / len(batches)),
            "shapes": sorted({batch.ids.shape for batch in batches}),
            "first_seconds": round(compiling[arm], 2),
            "losses": [round(loss, 5) for loss in losses[arm]],
        }


def train(step: Step, batches: Sequence[Batch]) -> list[float]:
    """The losses."""
    return [float(step(batch)) for batch in batches]


def compare(losses: dict[tuple[str, str], list[float]]) -> None:
    """All libraries agree on the batches of a kind; later losses would drift apart by rounding."""
    for kind in tasks.KINDS:
        first, *others = [arm for arm in losses if arm[1] == kind] or [None]
        for arm in others:
            about = f"losses of {arm[0]} and {first[0]}, {kind}"
            require_same(losses[arm], losses[first], about, TOLERANCE)


def compare_packed(task: Task, params: Weights, batch: Batch, packed: float) -> None:
    """The loss of a packed batch is that of its sequences, one a row."""
    loss = learners.loss_of(task, learners.jaxmask_model(task))
    padded = jax.jit(loss)(params, tasks.alone(task, batch))
    require_same(padded, packed, "packed and padded sequences", TOLERANCE)


def rate(rows: list[store.Row], task: str, library: str, *kinds: str) -> float:
    """The best of some kinds of batches; nan where none was measured."""
    found = chart.chosen(rows, task=task, library=library)
    speeds = [r["real_steps_per_second"]["median"] for r in found if r["kind"] in kinds]
    return max(speeds, default=float("nan"))


def goals(rows: list[store.Row], task: str) -> Iterator[str]:
    """How many times as fast as each of the other JAX libraries."""
    ours = rate(rows, task, "jaxmask", "bucketed", "packed")
    same = rate(rows, task, "jaxmask", "bucketed")
    for library in ("flax", "keras"):
        ratios = {
            f"best over {library} padded at random": ours / rate(rows, task, library, "random"),
            f"bucketed over {library} bucketed": same / rate(rows, task, library, "bucketed"),
        }
        yield from (f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio == ratio)


def table(found: dict[str, Any]) -> str:
    rows = found["rows"]

    def order(row: store.Row) -> tuple[int, int]:
        return list(tasks.TASKS).index(row["task"]), ARMS.index((row["library"], row["kind"]))

    def cells(row: store.Row) -> list[str]:
        speed = row["real_steps_per_second"]["median"]
        share = speed / rate(rows, row["task"], "jaxmask", *tasks.KINDS)
        figures = f"{row['share_of_real_steps']:.0%}", f"{speed:,.0f}", f"{share:.2f}"
        return [row["task"], row["library"], row["kind"], *figures]

    head = ["task", "library", "batches", "real", "real steps a second", "over the best of jaxmask"]
    text = tables.markdown(f"On {found['on']}.", head, map(cells, sorted(rows, key=order)))
    for task in tasks.TASKS:
        ratios = list(goals(rows, task))
        text += f"\n{task}: {', '.join(ratios)}.\n" if ratios else ""
    return text + PICTURE


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel a task, a bar an arm, its quartiles on top."""
    names = sorted({row["task"] for row in found["rows"]}, reverse=True)
    figure, axes = chart.panels(1, len(names), found["on"], size=(5.5, 2.6))
    for panel, name in zip(axes.flat, names, strict=True):
        rows = chart.chosen(found["rows"], task=name)
        rows.sort(key=lambda row: (LIBRARIES.index(row["library"]), tasks.KINDS.index(row["kind"])))
        spreads = [row["real_steps_per_second"] for row in rows]
        thousands = [{name: rate / 1e3 for name, rate in spread.items()} for spread in spreads]
        libraries = [row["library"] for row in rows]
        labels = [
            f"{row['library']} {row['kind']}, {row['share_of_real_steps']:.0%} real" for row in rows
        ]
        chart.bars(panel, thousands, libraries, labels)
        panel.set(title=name, xlabel="thousand real steps a second of training")
    chart.finish(figure, axes, path)


OPTIONS = {
    "--tasks": some(tasks.TASKS),
    "--libraries": some(LIBRARIES),
    "--count": {"type": int, "help": "how many words or sequences (default: all, or 20,000)"},
    "--batches": {"type": int, "default": 12, "help": "of each kind"},
    "--shapes": {"type": int, "default": 3, "help": "of bucketed batches"},
}
SUITES = {"train": Suite(("task", "library", "kind"), measure, table, OPTIONS, 5, draw)}
