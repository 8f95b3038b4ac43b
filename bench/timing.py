"""Interleaved timing in one process, and the name of the machine."""

import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def machine_name() -> str:
    """The accelerator, or the processor where there is none: the key of results."""
    here = machine()
    return here["processor"] if jax.default_backend() == "cpu" else here["device"]


def _processor() -> str:
    """Name, cores, and the family and model, since virtual machines often hide the exact name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    pairs = [tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line]
    names = [value for key, value in pairs if key == "model name"]
    if not names:
        return platform.processor() or platform.machine()
    facts = dict(pairs)
    kind = f"family {facts.get('cpu family')}, model {facts.get('model')}"
    return f"{names[0]} ({kind}), {len(names)} cores"


def time_once(function: Callable, *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def compile_seconds(function: Callable, *args: Any) -> tuple[Callable, float]:
    """Trace, lower and compile, and say how long it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - start


def interleaved(
    functions: dict[str, Callable[[], Any]],
    rounds: int,
    *,
    rest: float = 0.0,
    least: float = 0.0,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, dict]:
    """Call every function in turn, round by round, so that a drift of the machine meets all alike.

    Args:
      functions: what to time, by name.
      rounds: how many samples of each.
      rest: seconds of sleep before each sample. Threads of a library with a pool of its own spin
        for a while after their work, at the cost of whoever comes next.
      least: seconds that a sample takes at least: a shorter function is called several times in a
        row, and the sample is their mean.
      tick: called after each round.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    counts = {name: _calls(function, least) for name, function in functions.items()}
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(rest)
            samples = [time_once(function) for _ in range(counts[name])]
            times[name].append(1e3 * sum(samples) / len(samples))
        tick()
    return {name: spread(values) for name, values in times.items()}


def _calls(function: Callable[[], Any], least: float) -> int:
    """How often to call a function for a sample, after a call that warms it up."""
    jax.block_until_ready(function())
    return max(1, math.ceil(least / time_once(function)))


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, in the unit of the values."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {
        "median": round(float(middle), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "least": round(min(values), 3),
        "rounds": len(values),
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result with the machine's name in it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(as_lines({"machine": machine(), **result}))
    return path


def as_lines(result: dict[str, Any]) -> str:
    """JSON with one line a measurement, so that a change of one shows as one."""
    return "{\n" + ",\n".join(f'"{k}": {_lines(v)}' for k, v in result.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if not (isinstance(value, list) and value):
        return json.dumps(value, allow_nan=False)
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in value) + "\n]"
