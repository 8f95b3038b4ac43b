"""What `ragged_vmap` costs, and who else is exact on ragged rows.

    python -m bench ragged

First, larger functions under it against the same written by hand on a batch: with selects before
and after, no more. Both must agree in value and gradient before anything is timed.

Then 27 small functions by `jm.ragged_vmap`, by hand, and by `torch.vmap` over a `NestedTensor`. The
oracle is each function on each row alone, in its own framework: value, and gradient in the rows. A
time is one of value and gradient. Masks are arguments of the jitted functions.
"""

import argparse
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import tables, timing
from bench.agreement import Disagreement, distance, require_same, with_gradient
from bench.row_functions import FUNCTIONS, LARGER, Three, wide

ROUNDS, TOLERANCE = 15, 1e-4
SIZE, SMALL = (32, 256, 128), (16, 64, 32)  # batch, time, features
LENGTHS = (64, 1, 17, 40)  # few, since JAX compiles the oracle for each
KINDS = ("forward", "with gradients")
CONTENDERS = ("jaxmask", "by hand", "torch.vmap")


def arguments(size: tuple[int, int, int], lengths: np.ndarray, outputs: int) -> tuple:
    """Values, mask and parameters."""
    draw, (_, time, features) = np.random.default_rng(0), size
    x = jnp.asarray(draw.normal(size=size), jnp.float32)
    w = jnp.asarray(draw.normal(size=(features, outputs)) / np.sqrt(features), jnp.float32)
    return x, jnp.asarray(np.arange(time) < lengths[:, None]), w


def ways(case: Three) -> dict[str, Callable]:
    ragged = jm.ragged_vmap(case.row, (0, None))
    return {
        "jaxmask": lambda x, mask, w: ragged(x, mask, w)[0],
        "by hand": lambda x, mask, w: case.hand(jnp.where(wide(mask), x, 0), mask, w),
    }


# -------------------------------------------------------------------------------------- the cost


def cost(name: str, kind: str, rounds: int) -> dict[str, Any]:
    lengths = np.random.default_rng(0).integers(1, SIZE[1] + 1, SIZE[0])
    lengths[:2] = SIZE[1], 1
    arrays = arguments(SIZE, lengths, 4 * SIZE[2])
    case = LARGER[name]
    ragged, hand = ways(case).values()

    def cleared(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
        y = hand(x, mask, w)
        return jnp.where(wide(case.real(mask, y.shape[1])), y, 0)

    pair = {"ragged": ragged, "hand": cleared}
    if kind == "with gradients":
        pair = {who: with_gradient(function, (0, 2)) for who, function in pair.items()}
    programs, seconds = {}, {who: [] for who in pair}
    for _ in range(3):
        for who, function in pair.items():
            jax.clear_caches()
            programs[who], spent = timing.compiled(function, *arrays)
            seconds[who].append(spent)
    require_same(programs["ragged"](*arrays), programs["hand"](*arrays), f"{name}, {kind}")
    runs = {who: functools.partial(program, *arrays) for who, program in programs.items()}
    times = timing.interleaved(runs, rounds, least=0.02)
    spent = {who: round(sorted(values)[1], 3) for who, values in seconds.items()}
    return {
        "name": name,
        "kind": kind,
        "milliseconds": times,
        "ragged_over_hand": timing.ratio(times, "ragged", "hand"),
        "trace_and_compile_seconds": spent,
        "trace_and_compile_ratio": round(spent["ragged"] / spent["hand"], 2),
    }


def cost_table(found: dict[str, Any]) -> str:
    rows, machine, (batch, time, features) = found["cost"], found["machine"], SIZE

    def cells(name: str) -> list[str]:
        forward, backward = (row for row in rows if row["name"] == name)
        ratios = [row["ragged_over_hand"] for row in (forward, backward)]
        return [name, *(f"{x:.2f}" for x in (*ratios, backward["trace_and_compile_ratio"]))]

    return tables.markdown(
        f"Time under `ragged_vmap` over time by hand, batch {batch}, time {time}, features "
        f"{features}, on {machine['processor']}, jax {machine['jax']}.",
        ["row function", *KINDS, "trace and compile, with gradients"],
        map(cells, dict.fromkeys(row["name"] for row in rows)),
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

    both, _ = timing.compiled(jax.grad(total, has_aux=True), x, mask, w)
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
    arrays = arguments(SMALL, np.resize(LENGTHS, SMALL[0]), SMALL[2])
    found = [of_jax(case, run, *arrays) for run in ways(case).values()]
    both = dict(zip(CONTENDERS, [*found, of_torch(case, *arrays)], strict=True))
    runs = {who: function for who, (exact, function) in both.items() if "error" not in exact}
    exact = {who: exact for who, (exact, _) in both.items()}
    return {
        "name": name,
        "exact": exact,
        "milliseconds": timing.interleaved(runs, rounds, least=0.01),
    }


def comparison_table(found: dict[str, Any]) -> str:
    rows, machine, (batch, time, features) = found["compared"], found["machine"], SMALL
    cells = [[f"`{row['name']}`", *(_cell(row, who) for who in CONTENDERS)] for row in rows]
    exact = [sum(all(row["exact"][who].values()) for row in rows) for who in CONTENDERS]
    return tables.markdown(
        f"Batch {batch}, time {time}, features {features}, value and gradient, on "
        f"{machine['processor']}, jax {machine['jax']}, torch {found['torch']}. Milliseconds "
        "where value and gradient are those of each row alone; what fails is named.",
        ["row function", "`jm.ragged_vmap`", "masks by hand", "`torch.vmap` over `NestedTensor`"],
        [*cells, ["**exact**", *(f"{n} of {len(rows)}" for n in exact)]],
    )


def _cell(row: dict, who: str) -> str:
    exact = row["exact"][who]
    if "error" in exact:
        return "raises"
    wrong = [what for what, right in exact.items() if not right]
    if wrong:
        return "wrong " + " and ".join(wrong)
    return f"{row['milliseconds'][who]['median']:.3g}"


# ------------------------------------------------------------------------------------- the suite


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    warnings.filterwarnings("ignore", module="torch")
    warnings.filterwarnings("ignore", message=".*performance drop.*")
    return {
        "torch": torch.__version__,
        "cost": [cost(name, kind, options.rounds) for name in LARGER for kind in KINDS],
        "compared": [compare(name, options.rounds) for name in FUNCTIONS],
    }


def table(found: dict[str, Any]) -> dict[str, str]:
    return {"ragged": cost_table(found), "ragged-compared": comparison_table(found)}
