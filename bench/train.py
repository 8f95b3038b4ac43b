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
from rich.progress import track

from bench import chart, learners, store, tables, tasks, timing
from bench.agreement import require_same
from bench.learners import Learner
from bench.rivals.models import Weights
from bench.tasks import Batch, Task

KEY = ("task", "library", "kind")
ARMS = (
    *itertools.product(("jaxmask", "flax", "keras", "torch"), ("random", "bucketed")),
    ("jaxmask", "packed"),
)
COMPARED, TOLERANCE = 3, 1e-3  # losses of the first steps
PICTURE = "\n![Real steps a second of training](../bench/results/train.png)\n"
LIBRARIES = list(dict.fromkeys(library for library, _ in ARMS))
ROUNDS = 5
OPTIONS = {
    "--tasks": {"nargs": "+", "choices": tasks.TASKS, "default": list(tasks.TASKS)},
    "--libraries": {"nargs": "+", "choices": LIBRARIES, "default": LIBRARIES},
    "--count": {"type": int, "help": "how many words or sequences (default: all, or 20,000)"},
    "--batches": {"type": int, "default": 12, "help": "of each kind"},
    "--shapes": {"type": int, "default": 3, "help": "of bucketed batches"},
}
COLOURS = {**chart.COLOURS, "torch": chart.COLOURS["torch packed"]}


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.tasks:
        yield from run(tasks.TASKS[name](options.count), options)


def run(task: Task, options: argparse.Namespace) -> list[store.Row]:
    """Compile, compare and time all arms on one task."""
    params = learners.initial_params(task)
    made = {
        kind: tasks.batches(task, kind, options.batches, options.shapes) for kind in tasks.KINDS
    }
    arms = [arm for arm in ARMS if arm[0] in options.libraries]
    trained: dict[tuple[str, str], Learner] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    compiling = {}
    for arm in track(arms, f"Compiling, {task.name}"):
        library, kind = arm
        start = time.perf_counter()
        trained[arm] = learners.learner(task, library, params)
        losses[arm] = train(trained[arm], made[kind][:COMPARED])
        train(trained[arm], list({batch.ids.shape: batch for batch in made[kind]}.values()))
        compiling[arm] = time.perf_counter() - start
    compare(losses)
    if ("jaxmask", "packed") in losses:
        compare_packed(task, params, made["packed"][0], losses["jaxmask", "packed"][0])
    seconds: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    # A whole round of one arm at a time: PyTorch's threads spin for a while after their work.
    for _ in track(range(options.rounds), f"Training, {task.name}"):
        for library, kind in arms:
            seconds[library, kind].append(
                timing.seconds_of(train, trained[library, kind], made[kind])
            )
            time.sleep(0.2)
    return [row(task, arm, made[arm[1]], seconds[arm], compiling[arm], losses[arm]) for arm in arms]


def train(learner: Learner, batches: Sequence[Batch]) -> list[float]:
    """The losses."""
    return [float(learner.step(batch)) for batch in batches]


def compare(losses: dict[tuple[str, str], list[float]]) -> None:
    """All libraries agree on the batches of a kind; later losses would drift apart by rounding."""
    for kind in tasks.KINDS:
        arms = [arm for arm in losses if arm[1] == kind]
        for arm in arms[1:]:
            about = f"losses of {arm[0]} and {arms[0][0]}, {kind}"
            require_same(losses[arm], losses[arms[0]], about, TOLERANCE)


def compare_packed(task: Task, params: Weights, batch: Batch, packed: float) -> None:
    """The loss of a packed batch is that of its sequences, one a row."""
    loss = learners.loss_of(task, learners.jaxmask_model(task))
    padded = jax.jit(loss)(params, tasks.alone(task, batch))
    require_same(padded, packed, "packed and padded sequences", TOLERANCE)


def row(
    task: Task,
    arm: tuple[str, str],
    batches: Sequence[Batch],
    seconds: Sequence[float],
    compiling: float,
    losses: Sequence[float],
) -> store.Row:
    library, kind = arm
    real = sum(batch.real for batch in batches)
    rates = timing.spread([real / s for s in seconds])
    return {
        "task": task.name,
        "library": library,
        "kind": kind,
        "real_steps_per_second": rates,
        "share_of_real_steps": round(real / sum(batch.mask.size for batch in batches), 3),
        "real_steps_of_a_batch": round(real / len(batches)),
        "shapes": sorted({batch.ids.shape for batch in batches}),
        "first_seconds": round(compiling, 2),
        "losses": [round(loss, 5) for loss in losses],
    }


def rate(rows: list[store.Row], task: str, library: str, *kinds: str) -> float:
    """The best of some kinds of batches; nan where none was measured."""
    found = chart.chosen(rows, task=task, library=library)
    speeds = [r["real_steps_per_second"]["median"] for r in found if r["kind"] in kinds]
    return max(speeds, default=float("nan"))


def goals(rows: list[store.Row], task: str) -> dict[str, float]:
    """How many times as fast as each of the other JAX libraries."""
    ours = rate(rows, task, "jaxmask", "bucketed", "packed")
    same = rate(rows, task, "jaxmask", "bucketed")
    found = {}
    for library in ("flax", "keras"):
        found[f"best over {library} padded at random"] = ours / rate(rows, task, library, "random")
        found[f"bucketed over {library} bucketed"] = same / rate(rows, task, library, "bucketed")
    return {name: value for name, value in found.items() if value == value}  # not nan


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
    about = f"On {found['machine']['processor']}."
    text = tables.markdown(about, head, map(cells, sorted(rows, key=order)))
    for task in tasks.TASKS:
        ratios = [f"{name} {value:.2f}" for name, value in goals(rows, task).items()]
        text += f"\n{task}: {', '.join(ratios)}.\n" if ratios else ""
    return text + PICTURE


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel a task, a bar an arm, its quartiles on top."""
    rows = found["rows"]
    names = sorted({row["task"] for row in rows}, reverse=True)
    figure, axes = chart.panels(1, len(names), found["machine"]["processor"], size=(5.5, 2.6))
    for axis, name in zip(axes.flat, names, strict=True):
        by_arm = {(row["library"], row["kind"]): row for row in rows if row["task"] == name}
        arms = sorted(filter(by_arm.get, ARMS), key=lambda arm: LIBRARIES.index(arm[0]))
        spreads = [by_arm[arm]["real_steps_per_second"] for arm in arms]
        medians = [spread["median"] / 1e3 for spread in spreads]
        errors = [
            [m - s["low"] / 1e3 for m, s in zip(medians, spreads, strict=True)],
            [s["high"] / 1e3 - m for m, s in zip(medians, spreads, strict=True)],
        ]
        heights = range(len(arms))[::-1]
        colours = [COLOURS[library] for library, _ in arms]
        bars = axis.barh(heights, medians, xerr=errors, color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=4, fontsize=8)
        shares = [f"{' '.join(arm)}, {by_arm[arm]['share_of_real_steps']:.0%} real" for arm in arms]
        axis.set_yticks(heights, shares, fontsize=8)
        axis.set(title=name, xlabel="thousand real steps a second of training")
        axis.margins(x=0.15)
    chart.finish(figure, axes, path)
