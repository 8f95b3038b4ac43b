"""Rivals in one run: compared with the first of them, and timed in turn."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import timing
from bench.agreement import require_same


class LeftOut(Exception):
    """A rival that cannot take part, and why."""


class Entrant(NamedTuple):
    """`run(*arguments)` computes and waits; `result` of that is what all must agree in."""

    run: Callable[..., Any]
    result: Callable[[Any], Any]
    cost: dict[str, Any]


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


def figures(
    times: dict[str, dict[str, float]],
    ours: str,
    differences: dict[str, float],
    costs: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """What is stored of each rival."""

    def of(name: str) -> dict[str, Any]:
        ratio = timing.ratio(times, name, ours) if ours in times else None
        apart = {"difference": float(f"{differences[name]:.2g}")}
        return {"milliseconds": times[name], "ratio": ratio, **apart, **costs[name]}

    return {name: of(name) for name in times}


def run(
    entrants: dict[str, Entrant], arguments: Sequence[Any], about: str, rounds: int
) -> dict[str, dict[str, Any]]:
    """Compare all on the same arguments, and time them; the first one is ours."""
    ours, *_ = entrants
    expected = entrants[ours].result(entrants[ours].run(*arguments))
    apart = compare(entrants, arguments, expected, f"{ours} on {about}")
    calls = {name: functools.partial(one.run, *arguments) for name, one in entrants.items()}
    times = timing.interleaved(calls, rounds, rest=0.05, least=None)
    return figures(times, ours, apart, {name: one.cost for name, one in entrants.items()})
