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


def enter(
    makers: dict[str, Callable[[], Entrant]],
) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Those that can take part, and why the others cannot."""
    found, left_out = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except LeftOut as reason:
            left_out[name] = str(reason)
        except ModuleNotFoundError as missing:
            left_out[name] = f"{missing.name} is not installed"
    return found, left_out


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
    found = {name: one.result(one.run(*arguments)) for name, one in entrants.items()}
    apart = {
        name: require_same(result, found[ours], f"{about}: {name} and {ours}")
        for name, result in found.items()
    }
    calls = {name: functools.partial(one.run, *arguments) for name, one in entrants.items()}
    times = timing.interleaved(calls, rounds, rest=0.05, least=None)
    return figures(times, ours, apart, {name: one.cost for name, one in entrants.items()})
