"""Many problems at once, a process each: all compile together, then each is timed alone.

For accelerators, where compiling takes most of a benchmark's time and leaves the device idle. How
long it took is not told, since processes that compile together wait for one another.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from bench.problem import Problem
from bench.rivals import program
from bench.store import Row

STARTS_TIMING = "measuring rates"  # the first stage that wants the device for itself
PATIENCE = 1200.0  # seconds until the slowest has compiled

Tick = Callable[[str], None]
Measure = Callable[[Problem, Tick], Row]


def measure(measure_one: Measure, tasks: list[Problem]) -> Iterator[Row]:
    """Rows as they are done; a problem that fails is told on the screen and leaves none."""
    context = multiprocessing.get_context("spawn")
    compiled, turn, done = context.Barrier(len(tasks)), context.Lock(), context.SimpleQueue()
    processes = [
        context.Process(target=_measure, args=(measure_one, task, compiled, turn, done))
        for task in tasks
    ]
    for process in processes:
        process.start()
    for _ in processes:
        row, failure = done.get()
        if failure is None:
            yield _without_compile_time(row)
        else:
            print(failure)
    for process in processes:
        process.join()


def _measure(measure_one: Measure, task: Problem, compiled: Any, turn: Any, done: Any) -> None:
    program.COMPILES, waited = 1, False

    def tick(stage: str) -> None:
        nonlocal waited
        if stage == STARTS_TIMING:
            waited = True
            compiled.wait(PATIENCE)
            turn.acquire()

    try:
        done.put((measure_one(task, tick), None))
    except Exception:
        done.put((None, f"{task}\n{traceback.format_exc()}"))
    if waited:
        turn.release()
    else:
        compiled.wait(PATIENCE)  # lest the others wait for what failed


def _without_compile_time(row: Row) -> Row:
    for rival in row["rivals"].values():
        rival.pop("compile_seconds", None)
    return row
