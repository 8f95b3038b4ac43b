"""Rivals in one run: compared with what is expected before anything is timed, and timed in turn."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import timing


class LeftOut(Exception):
    """A rival that cannot take part, and why."""


class Disagreement(Exception):
    """A rival computes something else."""


class Entrant(NamedTuple):
    """`run(*arguments)` computes and waits; `result` of that is what all must agree in."""

    run: Callable[..., Any]
    result: Callable[[Any], Any] = lambda found: found
    cost: dict[str, Any] | None = None


def enter(makers: dict[str, Callable[[], Entrant]]) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Those that can take part, and why the others cannot."""
    found, left_out = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except LeftOut as reason:
            left_out[name] = str(reason)
        except ModuleNotFoundError as missing:
            left_out[name] = f"{missing.name} is not installed"
        except Exception as error:
            if name.startswith("jaxmask"):
                raise
            left_out[name] = f"it fails with {type(error).__name__}: {error}".splitlines()[0]
    return found, left_out


def run(
    entrants: dict[str, Entrant],
    arguments: Sequence[Any],
    about: str,
    rounds: int,
    *,
    expected: Any = None,
    tolerance: float = 1e-3,
    rest: float = 0.05,
    least: float | None = None,
) -> dict[str, dict[str, Any]]:
    """What is stored of each rival; a ratio is its time over that of the first, which is ours.

    `expected` is what all must compute, by default what ours does.
    """
    ours, *_ = entrants
    calls = {name: functools.partial(one.run, *arguments) for name, one in entrants.items()}
    if expected is None:
        expected, about = entrants[ours].result(calls[ours]()), f"{ours} on {about}"
    apart = compare(entrants, arguments, expected, about, tolerance)
    times = timing.interleaved(calls, rounds, rest=rest, least=least)

    def figures(name: str) -> dict[str, Any]:
        ratio = round(times[name]["median"] / times[ours]["median"], 3)
        apart_by = {"difference": float(f"{apart[name]:.2g}")}
        cost = entrants[name].cost or {}
        return {"milliseconds": times[name], "ratio": ratio, **apart_by, **cost}

    return {name: figures(name) for name in times}


def compare(
    entrants: dict[str, Entrant],
    arguments: Sequence[Any],
    expected: Any,
    about: str,
    tolerance: float = 1e-3,
) -> dict[str, float]:
    """The distance of each result from what is expected; raises if one is too large."""

    def apart(name: str, one: Entrant) -> float:
        found = one.result(one.run(*arguments))
        return require_same(found, expected, f"{name} and {about}", tolerance)

    return {name: apart(name, one) for name, one in entrants.items()}


def require_same(ours: Any, theirs: Any, about: str, tolerance: float = 1e-3) -> float:
    """The distance of two trees, which must not exceed the tolerance."""
    worst = distance(ours, theirs)
    if not worst <= tolerance:
        raise Disagreement(f"{about}: they differ by {worst:.1e}, more than {tolerance:.0e}")
    return worst


def distance(ours: Any, theirs: Any) -> float:
    """The largest |a - b| over the largest |b| of any array, nan if there is any nan."""

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        if a.shape != b.shape:
            raise Disagreement(f"expected an array of shape {b.shape}, got {a.shape}")
        return np.max(np.abs(a - b), initial=0) / (np.max(np.abs(b), initial=0) or 1)

    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return float(np.max([apart(np.asarray(a), np.asarray(b)) for a, b in pairs]))


def with_gradient(function: Callable, arguments: Sequence[int]) -> Callable:
    """A sum in which every element counts differently, and its gradient."""

    def total(*given: Any) -> jax.Array:
        y = function(*given)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return jax.value_and_grad(total, argnums=tuple(arguments))
