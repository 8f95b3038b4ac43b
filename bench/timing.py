"""Interleaved timing in one process."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

Times = dict[Any, dict[str, float]]  # the spread of milliseconds, by name


def timed(function: Callable, *args: Any) -> tuple[Any, float]:
    """The result of a call, and the seconds until it is ready."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - start


def seconds_of(function: Callable, *args: Any) -> float:
    return timed(function, *args)[1]


def compiled_cost(function: Callable, *args: Any, times: int = 1) -> tuple[Any, dict[str, Any]]:
    """A program; the least seconds to trace, lower and compile it, and MiB that it uses inside.

    With `times=0` it is compiled without a look at the clock, beside others in other threads.
    """
    seconds, cost = [], {}
    for _ in range(times or 1):
        if times:
            jax.clear_caches()
        start = time.perf_counter()
        program = jax.jit(function).lower(*args).compile()
        seconds.append(time.perf_counter() - start)
    if times:
        cost["compile_seconds"] = round(min(seconds), 3)
    memory = program.memory_analysis()
    if memory is not None:
        cost["temporary_mebibytes"] = round(memory.temp_size_in_bytes / 2**20, 3)
    return program, cost


def interleaved(
    functions: dict[Any, Callable[[], Any]],
    rounds: int,
    *,
    rest: float = 0.0,
    least: float | None = 0.0,
) -> Times:
    """Milliseconds of every function, called in turn so that drift of the machine meets all alike.

    Args:
      functions: what to time, by name.
      rounds: samples of each.
      rest: seconds of sleep before each sample: the thread pools of some libraries spin for a
        while after their work and slow down whatever runs next.
      least: minimal seconds of a sample; a shorter function is called several times, and the
        sample is the mean. None: each is warm, and long enough.
    """
    counts = {name: _calls(function, least) for name, function in functions.items()}
    times: dict[Any, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(rest)
            seconds = [seconds_of(function) for _ in range(counts[name])]
            times[name].append(1e3 * sum(seconds) / len(seconds))
    return {name: spread(values) for name, values in times.items()}


def _calls(function: Callable[[], Any], least: float | None) -> int:
    """Calls in a sample, found after a warm-up."""
    if least is None:
        return 1
    jax.block_until_ready(function())
    return max(1, math.ceil(least / seconds_of(function))) if least else 1


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, in the unit of the values."""
    names, figures = ("low", "median", "high"), np.percentile(values, [25, 50, 75])
    found = {name: round(float(figure), 3) for name, figure in zip(names, figures, strict=True)}
    return {**found, "least": round(min(values), 3), "rounds": len(values)}
