"""Many problems at once, a process each: all compile together, then each is timed alone.

For accelerators, where compiling takes most of a benchmark's time and leaves the device idle.
Compile times are left out, since processes that compile together wait for one another.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from bench.problem import Problem
from bench.rivals import program
from bench.store import Row

PATIENCE = 1200.0  # seconds until the slowest has compiled

Measure = Callable[[Problem, Callable[[], None]], Row]


def measure(measure_one: Measure, tasks: list[Problem]) -> Iterator[Row]:
    """Rows as they are done; the error of a problem that fails is printed.

    `measure_one(task, before_timing)` calls the second argument once it has compiled.
    """
    context = multiprocessing.get_context("spawn")
    compiled, device, done = context.Barrier(len(tasks)), context.Lock(), context.SimpleQueue()
    processes = [
        context.Process(target=_measure, args=(measure_one, task, compiled, device, done))
        for task in tasks
    ]
    for process in processes:
        process.start()
    for _ in processes:
        row, failure = done.get()
        if failure is None:
            for rival in row["rivals"].values():
                rival.pop("compile_seconds", None)
            yield row
        else:
            print(failure)
    for process in processes:
        process.join()


def _measure(measure_one: Measure, task: Problem, compiled: Any, device: Any, done: Any) -> None:
    program.COMPILES, waited = 1, False

    def before_timing() -> None:
        nonlocal waited
        waited = True
        compiled.wait(PATIENCE)
        device.acquire()

    try:
        done.put((measure_one(task, before_timing), None))
    except Exception:
        done.put((None, f"{task}\n{traceback.format_exc()}"))
    if waited:
        device.release()
    else:
        compiled.wait(PATIENCE)  # lest the others wait for what failed
