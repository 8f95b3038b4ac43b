"""Interleaved timing in one process, and the name of the machine."""

import json
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
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = f"{names[0].split(':')[1].strip()}, {len(names)} cores" if names else processor
    return {
        "processor": processor,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def matmul_rate(rows: int, size: int) -> float:
    """GFLOP/s of `[rows, size] @ [size, 4 * size]`, the product inside one LSTM step."""
    a = jax.random.normal(jax.random.key(0), (rows, size))
    b = jax.random.normal(jax.random.key(1), (size, 4 * size))
    product = jax.jit(lambda a, b: a @ b)
    seconds = min(time_once(product, a, b) for _ in range(50))
    return 2 * rows * size * 4 * size / seconds / 1e9


def time_once(function: Callable, *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def compile_seconds(function: Callable, *args: Any) -> tuple[Callable, float]:
    """Trace, lower and compile, and say how long it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - start


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict]:
    """Call every function once a round, in turn, so that a drift of the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(1e3 * time_once(function))
    return {name: spread(values) for name, values in times.items()}


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
    path.write_text(json.dumps({"machine": machine(), **result}, indent=2) + "\n")
    return path
