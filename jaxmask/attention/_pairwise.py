"""Predicates and biases traced as functions of one query position and one key position.

So they can be evaluated block by block.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Int, Shaped

from jaxmask._types import Array, PyTree

# Primitives that act on each (query, key) pair independently.
_BY_PAIR = """
    abs acos acosh add and asin asinh atan atan2 atanh broadcast_in_dim cbrt ceil clamp concatenate
    convert_element_type copy copy_p cos cosh custom_jvp_call div eq erf erf_inv erfc exp exp2
    expand_dims expm1 floor gather ge gt integer_pow is_finite jit le log log1p logistic lt max min
    mul ne neg nextafter not or pjit population_count pow rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square squeeze stop_gradient sub
    tan tanh xor
"""
_PAIRWISE = frozenset(_BY_PAIR.split())
# Their number depends on sizes, so the comparison skips them.
_SHAPE_ONLY = ("broadcast_in_dim", "expand_dims", "squeeze")
# Unusual, distinct sizes: a function that confuses queries with keys fails to broadcast.
_SIZES = 3, 5


@dataclasses.dataclass(frozen=True)
class PairFunction:
    """A static function of positions; the arrays it closes over are arguments.

    Equal programs compare equal, so they share one compilation.
    """

    program: Any = dataclasses.field(compare=False)
    axes: int  # the rank of positions
    lead: tuple[int, ...]  # leading axes of the result, before queries and keys
    key: tuple

    def __call__(
        self, arrays: tuple[Array, ...], query: Int[Array, "query"], key: Int[Array, "key"]
    ) -> Shaped[Array, "*lead query key"]:
        shape = (1,) * self.axes

        def pair(q: Array, k: Array) -> Array:
            (out,) = jax.core.eval_jaxpr(self.program, arrays, q.reshape(shape), k.reshape(shape))
            return out.reshape(self.lead)

        by_key = jax.vmap(pair, (None, 0), -1)
        return jax.vmap(by_key, (0, None), -2)(query, key)


def as_pair_function(f: Callable, axes: int) -> tuple[PairFunction, tuple[Array, ...]] | None:
    """`f` as a `PairFunction`, with the arrays it closes over, each with a leading axis of 1.

    None unless `f` provably acts on each pair independently; evaluate it on all pairs at once then.
    `axes`: the rank of the positions, `[..., query, 1]` and `[..., 1, key]`.
    """
    try:
        one, many = (_traced(f, axes, *sizes) for sizes in ((1, 1), _SIZES))
    except (TypeError, ValueError):  # such as from a full-size array that it closes over
        return None
    (out,), (out_of_many,) = one.out_avals, many.out_avals
    fits = out.shape[-2:] == (1, 1) and out_of_many.shape == (*out.shape[:-2], *_SIZES)
    if not fits or _outline(one.jaxpr) is None or _outline(one.jaxpr) != _outline(many.jaxpr):
        return None
    arrays = tuple(jnp.asarray(array)[None] for array in one.consts)
    avals = tuple((array.shape, str(array.dtype)) for array in arrays)
    key = str(one.jaxpr), avals
    return PairFunction(one.jaxpr, axes, out.shape[:-2], key), arrays


def _traced(f: Callable, axes: int, queries: int, keys: int) -> Any:
    lead = (1,) * (axes - 2)
    query, key = (
        jax.ShapeDtypeStruct((*lead, *size), jnp.int32) for size in ((queries, 1), (1, keys))
    )
    return jax.make_jaxpr(lambda q, k: jnp.asarray(f(q, k)))(query, key)


def _outline(program: Any) -> list | None:
    """The operations and literals of a program; None if one may mix pairs."""
    found: list = []
    for equation in program.eqns:
        name = equation.primitive.name
        literals = [v.val for v in equation.invars if isinstance(v, core.Literal)]
        if name not in _PAIRWISE or any(np.ndim(value) for value in literals):
            return None
        closed = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
        inner = [_outline(p.jaxpr) for p in closed]
        if None in inner or any(p.consts for p in closed):
            return None
        if name not in _SHAPE_ONLY:
            found.append((name, [np.asarray(value).item() for value in literals], inner))
    return found


def cotangents(arrays: PyTree, of_floats: Any) -> PyTree:
    """The cotangents of the floating arrays of a tree, in its structure; None elsewhere."""
    given = iter(of_floats)
    pick = lambda a: next(given) if jnp.issubdtype(a.dtype, jnp.inexact) else None  # noqa: E731
    return jax.tree.map(pick, arrays)
