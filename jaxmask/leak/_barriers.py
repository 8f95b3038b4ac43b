"""Run a traced program with barriers between its operations, and perturb its rounding.

XLA rewrites across operations: it turns a product with a converted mask into a select, which hides
that 0 * nan is nan. Here a barrier follows every operation, also within loops, branches and
backward passes, so that each gives what it would give alone.

Rounding is measured by Monte Carlo arithmetic: the result of each operation that rounds, and each
term of a sum, is perturbed at random by up to two units in the last place. Entry by entry, runs
with two seeds differ by about as much as two orders of summation do.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.leak._outputs import is_inexact

Factors: TypeAlias = dict[str, Any]
Known: TypeAlias = tuple[Any, bool]  # a value, and whether it holds integers only

# Calls are inlined. Other primitives that hold a program (a reduction, a sort, a kernel) run as
# they are: there can be no barrier inside.
CALLS = frozenset({
    "call", "checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vmap_call",
    "jit", "pjit", "remat2",
})  # fmt: skip
# These move entries and compute nothing.
MOVING = frozenset({
    "broadcast_in_dim", "concatenate", "copy", "device_put", "dynamic_slice",
    "dynamic_update_slice", "gather", "iota", "optimization_barrier", "pad", "reshape", "rev",
    "slice", "split", "squeeze", "stack", "stop_gradient", "transpose",
})  # fmt: skip
# These do not round; `convert_element_type` does if the new type is less precise than the old.
EXACT = frozenset({
    "abs", "argmax", "argmin", "bitcast_convert_type", "ceil", "clamp", "complex", "conj",
    "convert_element_type", "cummax", "cummin", "floor", "imag", "max", "min", "neg", "nextafter",
    "pmax", "pmin", "real", "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min",
    "rem", "round", "scatter", "scatter-max", "scatter-min", "select_and_gather_add", "select_n",
    "sign", "sort", "top_k",
})  # fmt: skip
# These do not round integers, so counts and positions are exact.
RING = frozenset({
    "add", "add_any", "conv_general_dilated", "cumsum", "dot_general", "integer_pow", "mul",
    "reduce_sum", "reduce_window_sum", "scatter-add", "square", "sub",
})  # fmt: skip
WHOLE = MOVING | EXACT | RING
SUMS = frozenset({
    "conv_general_dilated", "cumlogsumexp", "cumprod", "cumsum", "dot_general", "fft",
    "reduce_prod", "reduce_sum", "reduce_window_sum", "scatter-add",
})  # fmt: skip


def run_with_barriers(program: Any, factors: Factors, *args: Array) -> list[Any]:
    """Run a closed jaxpr, already differentiated, with a barrier after every operation.

    `factors` is what the function of that name returns for a seed.
    """
    return Run(factors).closed(program, *args)


class Run:
    """One run, which numbers its operations from `first`, so that each rounds in another way."""

    def __init__(self, factors: Factors, first: Any = 1):
        self._factors, self._first = factors, first
        self._operations = itertools.count()

    def closed(self, program: Any, *args: Any) -> list[Any]:
        return [value for value, _ in self.run(program, [(arg, _is_whole(arg)) for arg in args])]

    def operation(self, equation: Any, known: list[Known]) -> list[Any]:
        return [value for value, _ in self._equation(equation, known)]

    def run(self, program: Any, args: Sequence[Known]) -> list[Known]:
        """The results of a program, and whether they are whole numbers."""
        jaxpr = getattr(program, "jaxpr", program)
        consts = [(const, _is_whole(const)) for const in getattr(program, "consts", ())]
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def read(atom: Any) -> Known:
            return _literal(atom) if hasattr(atom, "val") else known[atom]

        for equation in jaxpr.eqns:
            results = self._equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, known: list[Known]) -> list[Known]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.run(inside(params), known)
        values = [value for value, _ in known]
        whole = name in WHOLE and all(whole for _, whole in known)
        if name in SUMS and not whole:  # their partial sums round too
            values = [self._rounded(value) for value in values]
        if name in CONTROL:
            results = self._control(equation, values)
            return [(result, _is_whole(result)) for result in results]
        results = self._bind(equation, values)
        exact = whole or name in MOVING or (name in EXACT and not _narrows(equation))
        if not exact:
            results = [self._rounded(result) for result in results]
        if name not in MOVING:
            results = [self._apart(result) for result in results]
        return [(result, whole or _is_whole(result)) for result in results]

    def _control(self, equation: Any, values: list[Any]) -> list[Any]:
        return CONTROL[equation.primitive.name](self.closed, equation.params, values)

    def _bind(self, equation: Any, values: list[Any]) -> list[Any]:
        with equation.ctx.manager:
            return bind(equation, values)

    def _apart(self, x: Any) -> Any:
        traced = isinstance(x, jax.core.Tracer)
        return jax.lax.optimization_barrier(x) if traced and is_inexact(x) else x

    def _rounded(self, x: Any) -> Any:
        if not self._factors or not is_inexact(x):
            return x
        if (name := _name_of(x.dtype)) not in self._factors:
            return x
        if jnp.iscomplexobj(x):
            return self._rounded(x.real) + 1j * self._rounded(x.imag)
        return x * _drawn(self._factors[name], x.shape, self._first + next(self._operations))


def bind(equation: Any, values: list[Any]) -> list[Any]:
    """The results of an equation, without what is inside of it."""
    bound = equation.primitive.get_bind_params(equation.params)
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    results = equation.primitive.bind(*functions, *values, **bound)
    return list(results) if equation.primitive.multiple_results else [results]


def inside(params: dict[str, Any]) -> Any:
    """The program that a call holds."""
    return next(params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call") if k in params)


def compiler_options() -> dict[str, Any] | None:
    """No LLVM optimisations: for few runs on small arrays they would take most of the time."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


@functools.cache
def _name_of(dtype: Any) -> str:
    return str(jnp.finfo(dtype).dtype.name)


def _literal(atom: Any) -> Known:
    value = atom.val
    if isinstance(value, bool | int | float | complex):
        value = np.asarray(value, atom.aval.dtype)
    return value, _is_whole(value)


def _is_whole(x: Any) -> bool:
    if not is_inexact(x):
        return True
    if isinstance(x, jax.core.Tracer) or np.size(x) > 1:
        return False
    host = np.asarray(x)  # JAX would trace the comparison
    return bool((np.round(host) == host).all())


def _narrows(equation: Any) -> bool:
    if equation.primitive.name != "convert_element_type":
        return False
    old, new = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    if not jnp.issubdtype(new, jnp.inexact) or old == np.bool_:
        return False
    return not jnp.issubdtype(old, jnp.inexact) or jnp.finfo(old).eps < jnp.finfo(new).eps


# ------------------------------------------------------------------------- loops and branches

Closed = Callable[..., list[Any]]


def _scan(run: Closed, params: dict[str, Any], values: list[Any]) -> list[Any]:
    consts, carry, xs = split(values, params["num_consts"], params["num_carry"])

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        results = run(params["jaxpr"], *consts, *carry, *x)
        return results[: len(carry)], results[len(carry) :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, ys = jax.lax.scan(step, carry, xs, **options)
    return [*carry, *ys]


def _while(run: Closed, params: dict[str, Any], values: list[Any]) -> list[Any]:
    conditions, consts, carry = split(values, params["cond_nconsts"], params["body_nconsts"])
    return jax.lax.while_loop(
        lambda carry: run(params["cond_jaxpr"], *conditions, *carry)[0],
        lambda carry: run(params["body_jaxpr"], *consts, *carry),
        carry,
    )


def _cond(run: Closed, params: dict[str, Any], values: list[Any]) -> list[Any]:
    branches = [lambda *args, branch=b: run(branch, *args) for b in params["branches"]]
    return jax.lax.switch(values[0], branches, *values[1:])


CONTROL = {"scan": _scan, "while": _while, "cond": _cond}


def split(values: list[Any], first: int, second: int) -> tuple[list[Any], list[Any], list[Any]]:
    """The values before `first`, the `second` after them, and the others."""
    return values[:first], values[first : first + second], values[first + second :]


# ------------------------------------------------------------------------------------ rounding

_LENGTH = 65_537  # no power of two, so that factors do not repeat along an axis
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@functools.cache
def factors(seed: int) -> Factors:
    """For each floating point type, factors 1 + k ε of results with |k| <= 2; none for seed 0."""
    if not seed:
        return {}
    # With only two levels, half of all differences of two results would not change.
    steps = np.random.default_rng(seed).integers(-2, 3, size=_LENGTH)
    types = {name: jnp.dtype(name) for name in _FLOATS}
    return {n: (1 + steps * float(jnp.finfo(t).eps)).astype(t) for n, t in types.items()}


def _drawn(table: Any, shape: tuple[int, ...], operation: Any) -> Any:
    """Factors for the entries of an array, which differ by operation."""
    size, start = math.prod(shape), operation * 257 % _LENGTH
    if not isinstance(start, int):
        return table[(start + jnp.arange(size, dtype=jnp.uint32)) % _LENGTH].reshape(shape)
    if start + size <= _LENGTH:
        return table[start : start + size].reshape(shape)
    both = (table[start:], table[:start])
    if isinstance(table, np.ndarray):
        return np.resize(np.concatenate(both), shape)
    return jnp.resize(jnp.concatenate(both), shape)
