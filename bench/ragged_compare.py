"""Row functions on ragged rows, implemented three times: are they exact, and how fast?

    python -m bench ragged_compare

`jm.ragged_vmap`, masks by hand, and `torch.vmap` over a `NestedTensor`, on the 27 functions of
`bench/row_functions.py`. The oracle is each function on each row alone, in its own framework:
value, and gradient in the rows. A time is one of value and gradient, under `jit` where there is
one.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import suite, tables, timing
from bench.row_functions import FUNCTIONS, Three, wide

BATCH, TIME, FEATURES = 16, 64, 32
LENGTHS = (64, 1, 17, 40)  # few, since JAX compiles the oracle for each
TOLERANCE = 1e-4
CONTENDERS = ("jaxmask", "by hand", "torch.vmap")


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """A weight for each position, the same at any length."""
    return np.cos(sum(np.indices(shape)) + 1.0).astype(np.float32)


def compared(ours: list[Any], theirs: list[Any]) -> bool:
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True)]
    return all(
        a.shape == b.shape and np.allclose(a, b, TOLERANCE, TOLERANCE * max(1.0, np.abs(b).max()))
        for a, b in pairs
    )


def cut(y: Any, case: Three, lengths: np.ndarray) -> list[Any]:
    if case.lengths is None:
        return list(y)
    return [row[: case.lengths(int(n))] for row, n in zip(y, lengths, strict=True)]


def of_jax(case: Three, run: Callable, x: Any, mask: Any, w: Any) -> tuple[dict, Callable]:
    """The verdict on a function of a batch, and what to time."""
    lengths = np.asarray(mask.sum(1))

    def total(x: Any, mask: Any, w: Any) -> Any:
        y = run(x, mask, w)
        weight = weights(y.shape[1:])
        if case.lengths is None:
            return jnp.sum(y * weight), y
        last = jnp.asarray([case.lengths(n) for n in range(TIME + 1)])[mask.sum(1)]
        real = jnp.arange(y.shape[1]) < last[:, None]
        return jnp.sum(jnp.where(wide(real), y, 0) * weight), y

    both = jax.jit(jax.grad(total, has_aux=True)).lower(x, mask, w).compile()
    gradient, y = both(x, mask, w)
    rows = [x[b, :n] for b, n in enumerate(lengths)]
    alone = [case.row(row, w) for row in rows]
    slope = jax.grad(lambda row: jnp.sum((y := case.row(row, w)) * weights(y.shape)))
    slopes = [g[:n] for g, n in zip(gradient, lengths, strict=True)]
    exact = {
        "value": compared(cut(y, case, lengths), alone),
        "gradient": compared(slopes, [slope(row) for row in rows]),
    }
    return exact, lambda: both(x, mask, w)


def of_torch(case: Three, x: Any, lengths: np.ndarray, w: Any) -> tuple[dict, Callable]:
    import torch

    w = torch.tensor(np.asarray(w))
    given = [torch.tensor(np.asarray(x[b, :n])) for b, n in enumerate(lengths)]

    def row(x: Any) -> Any:
        return case.other(torch, x, w)

    def nested(leaves: list) -> list:
        y = torch.vmap(row)(torch.nested.as_nested_tensor(leaves))
        return y.unbind() if y.is_nested else list(y)

    def both(run: Callable = nested) -> tuple[list, list]:
        leaves = [a.clone().requires_grad_() for a in given]
        rows = run(leaves)
        sum((y * torch.tensor(weights(tuple(y.shape)))).sum() for y in rows).backward()
        return [y.detach() for y in rows], [leaf.grad for leaf in leaves]

    expected, wanted = both(lambda leaves: [row(a) for a in leaves])
    try:
        rows, slopes = both()
    except (RuntimeError, TypeError, IndexError) as error:
        return {"value": False, "gradient": False, "error": str(error).splitlines()[0]}, both
    slopes = [
        np.full(a.shape, np.nan) if g is None else g for g, a in zip(slopes, given, strict=True)
    ]
    return {"value": compared(rows, expected), "gradient": compared(slopes, wanted)}, both


def run(name: str, rounds: int) -> dict[str, Any]:
    case, draw = FUNCTIONS[name], np.random.default_rng(0)
    lengths = np.resize(LENGTHS, BATCH)
    x = jnp.asarray(draw.normal(size=(BATCH, TIME, FEATURES)), jnp.float32)
    w = jnp.asarray(draw.normal(size=(FEATURES, FEATURES)) / np.sqrt(FEATURES), jnp.float32)
    mask = jnp.asarray(np.arange(TIME) < lengths[:, None])
    ragged = jm.ragged_vmap(case.row, (0, None))
    found = (
        of_jax(case, lambda x, m, w: ragged(x, m, w)[0], x, mask, w),
        of_jax(case, lambda x, m, w: case.hand(jnp.where(wide(m), x, 0), m, w), x, mask, w),
        of_torch(case, x, lengths, w),
    )
    both = dict(zip(CONTENDERS, found, strict=True))
    runs = {who: function for who, (exact, function) in both.items() if "error" not in exact}
    exact = {who: exact for who, (exact, _) in both.items()}
    times = timing.interleaved(runs, rounds, least=0.01)
    return {"name": name, "exact": exact, "milliseconds": times}


def table(found: dict[str, Any]) -> str:
    rows, machine = found["rows"], found["machine"]
    cells = [[f"`{row['name']}`", *(_cell(row, who) for who in CONTENDERS)] for row in rows]
    exact = [sum(all(row["exact"][who].values()) for row in rows) for who in CONTENDERS]
    return tables.markdown(
        f"Batch {BATCH}, time {TIME}, features {FEATURES}, value and gradient, on "
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


def main() -> None:
    options = suite.parser(__doc__, 9).parse_args()

    def measure() -> dict[str, Any]:
        import torch

        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        rows = [run(name, options.rounds) for name in FUNCTIONS]
        return {"torch": torch.__version__, "rows": rows}

    suite.run("ragged_compare", options, measure, table)


if __name__ == "__main__":
    main()
