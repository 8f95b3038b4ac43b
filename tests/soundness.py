"""Are the rules of `leak.prove` sound? Each is compared with its primitive.

Wherever a rule is applied, operands are drawn that agree with what it was given: known elements as
they are, clean ones the same in every draw, tainted ones different. Then what it says of the
results must hold: known elements have their value in every draw, clean ones the same bits.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import Value, fingerprint, same_bits
from jaxmask.leak._proof.interpret import Machine

DRAWS = 3
# Loops may not end on operands that are drawn at random; what is inside them is compared.
NOT_RUN = frozenset(
    [
        "while",
        "scan",
        "pallas_call",
        "custom_vmap_call",
        "custom_linear_solve",
        "platform_index",
        "empty2",
        "get",
        "swap",
        "program_id",
        "addupdate",
    ]
)
# XLA rewrites across the operations of a program, which may change the sign of a zero.
PROGRAMS = frozenset({
    "closed_call", "cond", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "remat2",
})  # fmt: skip
WILD = (np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0, 1.0)


class UnsoundError(AssertionError):
    """A rule says more than is true."""


class Checked(Machine):
    """An interpreter that compares each rule with its primitive, once for each case."""

    seen: ClassVar[set[Any]] = set()

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.compared = 0

    def equation(self, equation: Any, ins: list[Value]) -> list[Value]:
        outs = super().equation(equation, ins)
        name = equation.primitive.name
        if name in NOT_RUN or any(_is_odd(v.aval) for v in (*equation.invars, *equation.outvars)):
            return outs
        if self.finite and name in PROGRAMS:  # what is unknown inside need not be finite
            return outs
        shapes = tuple(
            (value.shape, str(var.aval.dtype))
            for value, var in zip(ins, equation.invars, strict=True)
        )
        key = name, shapes, str(equation.params), self.finite, tuple(map(fingerprint, ins))
        if key not in self.seen:
            self.seen.add(key)
            self.compared += 1
            compare(equation, ins, outs, finite=self.finite)
        return outs


def _is_odd(aval: Any) -> bool:
    """Keys of random numbers, and references."""
    dtype = getattr(aval, "dtype", None)
    return dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended) or "Ref" in str(aval)


def compare(equation: Any, ins: list[Value], outs: list[Value], *, finite: bool) -> None:
    """Raise if what is said of the results of an equation does not hold."""
    shared = np.random.default_rng(7)
    avals = [var.aval for var in equation.invars]
    clean = [_drawn(aval, shared, finite=True) for aval in avals]
    results = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(100 + draw)
        operands = [
            _operand(value, c, _drawn(aval, rng, finite=finite))
            for value, c, aval in zip(ins, clean, avals, strict=True)
        ]
        results.append(_run(equation, operands))
    if finite and not all(
        _is_finite(y, v) for ys in results for y, v in zip(ys, outs, strict=True)
    ):
        return
    for number, out in enumerate(outs):
        _hold(equation, out, [np.asarray(result[number]) for result in results], finite=finite)


def _operand(value: Value, clean: np.ndarray, wild: np.ndarray) -> np.ndarray:
    array = np.where(value.bits != 0, wild, clean)
    if value.value is not None:
        array = np.where(value.where_known, value.value, array)
    return array.astype(clean.dtype)


def _drawn(aval: Any, rng: np.random.Generator, *, finite: bool) -> np.ndarray:
    shape, dtype = aval.shape, aval.dtype
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if jnp.issubdtype(dtype, jnp.integer):
        return rng.integers(0, 6, shape).astype(dtype)
    numbers = rng.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return (numbers + 1j * rng.normal(size=shape)).astype(dtype)
    if not finite:
        numbers = np.where(rng.random(shape) < 0.5, rng.choice(WILD, size=shape), numbers)
    return numbers.astype(dtype)


def _run(equation: Any, operands: list[np.ndarray]) -> list[Any]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    found = equation.primitive.bind(*functions, *map(jnp.asarray, operands), **bound)
    return list(found) if equation.primitive.multiple_results else [found]


def _is_finite(result: Any, value: Value) -> bool:
    """In finite mode the draws count only where nothing unknown became infinite or nan."""
    array = np.asarray(result)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return True
    return bool((np.isfinite(array) | value.where_known).all())


def _hold(equation: Any, out: Value, results: list[np.ndarray], *, finite: bool) -> None:
    where = f"{equation.primitive.name} {equation.params}"
    for result in results:
        if result.shape != out.shape:
            raise UnsoundError(f"{where}: the shape is {result.shape} and not {out.shape}")
        if out.value is not None:
            equal = same_bits(np.broadcast_to(out.value, out.shape).astype(result.dtype), result)
            if finite or equation.primitive.name in PROGRAMS:
                equal = equal | (out.value == result)
            if (out.where_known & ~equal).any():
                at = tuple(np.argwhere(out.where_known & ~equal)[0])
                raise UnsoundError(f"{where}: {out.value[at]} is known and {result[at]} comes")
        clean = (out.bits == 0) & ~out.where_known
        if (clean & ~same_bits(result, results[0])).any():
            raise UnsoundError(f"{where}: a clean element differs")


# ------------------------------------------------------------------ whole programs


def paddings(x: list[np.ndarray], masks: list[Any]) -> Iterator[list[np.ndarray]]:
    """The same real steps with three contents of the padding."""
    for draw, wild in enumerate((0.0, np.nan, -3e30)):
        filled = []
        for leaf, mask in zip(x, masks, strict=True):
            real = np.asarray(mask) > 0
            real = real.reshape(real.shape + (1,) * (leaf.ndim - real.ndim))
            fill = wild if leaf.dtype.kind == "f" else (0, 1, 2**30)[draw]
            filled.append(np.where(real, leaf, np.asarray(fill).astype(leaf.dtype)))
        yield filled


def assert_holds(proof: Any, function: Any, x: list, masks: list, params: Any = None) -> None:
    """Run a function on three contents of the padding: what is proved must be the same bits."""
    runs = [
        _results(function, filled, masks, params, k) for k, filled in enumerate(paddings(x, masks))
    ]
    proved = {(claim.what, claim.where) for claim in proof.claims if claim.verdict == "proved"}
    for key in proved & set(runs[0]):
        for run in runs[1:]:
            if not np.array_equal(runs[0][key], run[key], equal_nan=True):
                raise UnsoundError(f"{key} of {proof.name} is proved and differs")


def _results(function: Any, x: list, masks: list, params: Any, draw: int) -> dict[Any, np.ndarray]:
    """The real entries of all results by the names that claims have, and the gradients."""
    floats = [k for k, leaf in enumerate(x) if leaf.dtype.kind == "f"]

    def call(params: Any, given: list) -> Any:
        arrays = [given[floats.index(k)] if k in floats else leaf for k, leaf in enumerate(x)]
        pairs = function(arrays, masks) if params is None else function(params, arrays, masks)
        pairs = [pair if isinstance(pair, tuple) else (pair, None) for pair in pairs]
        return [y for y, _ in pairs if jnp.issubdtype(y.dtype, jnp.floating)], pairs

    given = [jnp.asarray(x[k]) for k in floats]
    ys, pull, pairs = jax.vjp(call, params, given, has_aux=True)
    found: dict[Any, np.ndarray] = {}
    sent, rng = [], np.random.default_rng(1)
    for k, (y, mask) in enumerate(pairs):
        real = np.asarray(True) if mask is None else np.asarray(mask)
        name = f"output[{k}]" if mask is None else f"output[{k}][0]"
        found["value", name] = np.asarray(y)[real]
        found["mask", f"output[{k}][1]"] = real
        if jnp.issubdtype(y.dtype, jnp.floating):
            loud = np.where(real.reshape(real.shape + (1,) * (y.ndim - real.ndim)), 0, 10.0**draw)
            sent.append(jnp.asarray(rng.normal(size=y.shape) + loud, y.dtype))
    assert len(sent) == len(ys)
    _, gradients = pull(sent)
    for k, gradient in zip(floats, gradients, strict=True):
        real = np.asarray(masks[k]) > 0
        found["gradient in x", f"x[{k}]"] = np.asarray(gradient)[real]
    return found
