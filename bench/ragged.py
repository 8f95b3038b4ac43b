"""What `ragged_vmap` costs, and who else is exact on ragged rows.

    python -m bench ragged
    python -m bench ragged --cost flip --exact 'x[-1]'

First, larger functions under it against the same written by hand on a batch: with selects before
and after, no more. Both must agree in value and gradient before anything is timed.

Then 27 small functions by `jm.ragged_vmap`, by hand, and by `torch.vmap` over a `NestedTensor`. The
oracle is each function on each row alone, in its own framework: value, and gradient in the rows. A
time is one of value and gradient. Masks are arguments of the jitted functions.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import contest, store, tables, timing
from bench.contest import Disagreement, Entrant, distance, with_gradient
from bench.row_functions import FUNCTIONS, LARGER, Three, wide
from bench.suite import Suite, some

TOLERANCE = 1e-4
SIZE, SMALL = (32, 256, 128), (16, 64, 32)  # batch, time, features
LENGTHS = (64, 1, 17, 40)  # few, since JAX compiles the oracle for each
KINDS = ("forward", "with gradients")
RAGGED, HAND, TORCH = "jaxmask", "by hand", "torch.vmap"


def arguments(size: tuple[int, int, int], lengths: np.ndarray, outputs: int) -> tuple:
    """Values, mask and parameters."""
    draw, (_, time, features) = np.random.default_rng(0), size
    x = jnp.asarray(draw.normal(size=size), jnp.float32)
    w = jnp.asarray(draw.normal(size=(features, outputs)) / np.sqrt(features), jnp.float32)
    return x, jnp.asarray(np.arange(time) < lengths[:, None]), w


def ways(case: Three) -> dict[str, Callable]:
    ragged = jm.ragged_vmap(case.row, (0, None))
    return {
        HAND: lambda x, mask, w: case.hand(jnp.where(wide(mask), x, 0), mask, w),
        RAGGED: lambda x, mask, w: ragged(x, mask, w)[0],
    }


# -------------------------------------------------------------------------------------- the cost


def cost(name: str, kind: str, rounds: int) -> dict[str, Any]:
    lengths = np.random.default_rng(0).integers(1, SIZE[1] + 1, SIZE[0])
    lengths[:2] = SIZE[1], 1
    given, case = arguments(SIZE, lengths, 4 * SIZE[2]), LARGER[name]
    pair = ways(case)
    hand = pair[HAND]

    def cleared(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
        y = hand(x, mask, w)
        return jnp.where(wide(case.real(mask, y.shape[1])), y, 0)

    pair[HAND] = cleared
    if kind == "with gradients":
        pair = {who: with_gradient(function, (0, 2)) for who, function in pair.items()}
    made = {}
    for who, function in pair.items():
        program, spent = timing.compiled_cost(function, *given, times=3)
        made[who] = Entrant(program, cost=spent)
    return contest.run(made, given, f"{name}, {kind}", rounds, rest=0.0, least=0.02)


def cost_table(found: dict[str, Any]) -> str:
    rivals = {(r["name"], r["kind"]): r["rivals"] for r in found["rows"] if r["what"] == "cost"}

    def cells(name: str) -> list[str]:
        both = [rivals[name, kind] for kind in KINDS]
        compiled = [both[1][who]["compile_seconds"] for who in (RAGGED, HAND)]
        ratios = [f"{one[RAGGED]['ratio']:.2f}" for one in both]
        return [name, *ratios, f"{compiled[0] / compiled[1]:.2f}"]

    batch, time, features = SIZE
    return tables.markdown(
        f"Time under `ragged_vmap` over time by hand, batch {batch}, time {time}, features "
        f"{features}, on {found['on']}, jax {found['machine']['jax']}.",
        ["row function", *KINDS, "trace and compile, with gradients"],
        (cells(name) for name in dict.fromkeys(name for name, _ in rivals)),
    )


# ---------------------------------------------------------------------------------- who is exact


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """A weight for each position, the same at any length."""
    return np.cos(sum(np.indices(shape)) + 1.0).astype(np.float32)


def same(ours: list[Any], theirs: list[Any]) -> bool:
    try:
        return distance(ours, theirs) <= TOLERANCE
    except Disagreement:
        return False


def of_jax(case: Three, run: Callable, x: Any, mask: Any, w: Any) -> tuple[dict, Callable]:
    """The verdict on a function of a batch, and what to time."""
    lengths = np.asarray(mask.sum(1)).tolist()

    def total(x: Any, mask: Any, w: Any) -> Any:
        y = run(x, mask, w)
        real = y if case.lengths is None else jnp.where(wide(case.real(mask, y.shape[1])), y, 0)
        return jnp.sum(real * weights(y.shape[1:])), y

    both = jax.jit(jax.grad(total, has_aux=True)).lower(x, mask, w).compile()
    gradient, y = both(x, mask, w)
    rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
    if case.lengths is not None:
        y = [row[: case.lengths(n)] for row, n in zip(y, lengths, strict=True)]
    slope = jax.grad(lambda row: jnp.sum((y := case.row(row, w)) * weights(y.shape)))
    slopes = [g[:n] for g, n in zip(gradient, lengths, strict=True)]
    exact = {
        "value": same(list(y), [case.row(row, w) for row in rows]),
        "gradient": same(slopes, [slope(row) for row in rows]),
    }
    return exact, lambda: both(x, mask, w)


def of_torch(case: Three, x: Any, mask: Any, w: Any) -> tuple[dict, Callable]:
    import torch

    w = torch.tensor(np.asarray(w))
    given = [torch.tensor(np.asarray(row[real])) for row, real in zip(x, mask, strict=True)]

    def row(x: Any) -> Any:
        return case.other(torch, x, w)

    def nested(leaves: list) -> list:
        y = torch.vmap(row)(torch.nested.as_nested_tensor(leaves))
        return y.unbind() if y.is_nested else list(y)

    def both(run: Callable = nested) -> tuple[list, list]:
        leaves = [a.clone().requires_grad_() for a in given]
        rows = run(leaves)
        sum((y * torch.tensor(weights(tuple(y.shape)))).sum() for y in rows).backward()
        slopes = [torch.full_like(a, torch.nan) if a.grad is None else a.grad for a in leaves]
        return [y.detach() for y in rows], slopes

    expected, wanted = both(lambda leaves: [row(a) for a in leaves])
    try:
        rows, slopes = both()
    except (RuntimeError, TypeError, IndexError) as error:
        return {"value": False, "gradient": False, "error": str(error).splitlines()[0]}, both
    return {"value": same(rows, expected), "gradient": same(slopes, wanted)}, both


def compare(name: str, rounds: int) -> dict[str, Any]:
    case = FUNCTIONS[name]
    given = arguments(SMALL, np.resize(LENGTHS, SMALL[0]), SMALL[2])
    every = {who: of_jax(case, run, *given) for who, run in ways(case).items()}
    every[TORCH] = of_torch(case, *given)
    runs = {who: function for who, (exact, function) in every.items() if "error" not in exact}
    times = timing.interleaved(runs, rounds, least=0.01)
    rivals = {who: {"exact": exact} for who, (exact, _) in every.items()}
    for who, spread in times.items():
        rivals[who]["milliseconds"] = spread
    return rivals


def comparison_table(found: dict[str, Any]) -> str:
    rows = [row for row in found["rows"] if row["what"] == "compared"]
    names, machine, (batch, time, features) = (RAGGED, HAND, TORCH), found["machine"], SMALL
    cells = [[f"`{row['name']}`", *(_cell(row["rivals"][who]) for who in names)] for row in rows]
    exact = [sum(all(row["rivals"][who]["exact"].values()) for row in rows) for who in names]
    return tables.markdown(
        f"Batch {batch}, time {time}, features {features}, value and gradient, on {found['on']}, "
        f"jax {machine['jax']}, torch {machine['versions']['torch']}. Milliseconds "
        "where value and gradient are those of each row alone; what fails is named.",
        ["row function", "`jm.ragged_vmap`", "masks by hand", "`torch.vmap` over `NestedTensor`"],
        [*cells, ["**exact**", *(f"{n} of {len(rows)}" for n in exact)]],
    )


def _cell(rival: dict[str, Any]) -> str:
    if "error" in rival["exact"]:
        return "raises"
    wrong = [what for what, right in rival["exact"].items() if not right]
    if wrong:
        return "wrong " + " and ".join(wrong)
    return f"{tables.median(rival):.3g}"


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    warnings.filterwarnings("ignore", module="torch")
    warnings.filterwarnings("ignore", message=".*performance drop.*")
    for name in options.cost:
        for kind in KINDS:
            rivals = cost(name, kind, options.rounds)
            yield {"what": "cost", "name": name, "kind": kind, "rivals": rivals}
    for name in options.exact:
        rivals = compare(name, options.rounds)
        yield {"what": "compared", "name": name, "kind": KINDS[1], "rivals": rivals}


def table(found: dict[str, Any]) -> dict[str, str]:
    return {"ragged": cost_table(found), "ragged-compared": comparison_table(found)}


OPTIONS = {"--cost": some(LARGER), "--exact": some(FUNCTIONS)}
SUITES = {"ragged": Suite(("what", "name", "kind"), measure, table, OPTIONS, rounds=15)}
