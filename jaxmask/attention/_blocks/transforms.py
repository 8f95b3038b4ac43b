"""The entry of `method="blocks"`: any map over it, and every derivative but forward mode.

Each of these calls the next, so that `vmap` and derivatives may come in any order:

    _differentiable              custom_vjp: forward, and a backward of its own
      _forward, _backward        custom_jvp: their derivatives are those of the reference
        over_rows                custom_vmap: a mapped axis becomes more rows
          forward, backward      the loops
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap

from jaxmask._derivatives import floats, mapped_again, no_tangent, of_floats, one_batch
from jaxmask._types import Array, PyTree
from jaxmask.attention._blocks import backward as backward_blocks
from jaxmask.attention._blocks import forward as forward_blocks
from jaxmask.attention._blocks.forward import Saved
from jaxmask.attention._pairwise import cotangents
from jaxmask.attention._reference import Given, Setting, reference


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(setting: Setting, given: Given) -> Array:
    """`[batch, query, heads, feature]`, 0 at queries that see no key."""
    return _forward(setting, given)[0]


def _vjp_forward(setting: Setting, given: Given) -> tuple[Array, tuple[Given, Saved]]:
    y, saved = _forward(setting, given)
    return y, (given, saved)


def _vjp_backward(setting: Setting, kept: tuple[Given, Saved], d_y: Array) -> tuple[Any]:
    d_q, d_k, d_v, d_bias = _backward(setting, *kept, d_y)
    nothing = Given(*[None] * len(Given._fields))  # type: ignore[arg-type]
    return (nothing._replace(q=d_q, k=d_k, v=d_v, bias=d_bias),)


run.defvjp(_vjp_forward, _vjp_backward)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forward(setting: Setting, given: Given) -> tuple[Array, Saved]:
    saved = over_rows(functools.partial(_compiled_forward, setting))(given)
    return saved.y, saved


@_forward.defjvp
def _forward_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    y, saved = _forward(setting, *primals)
    plain = lambda given: reference(setting, given, setting.scale)  # noqa: E731
    _, d_y = jax.jvp(*of_floats(plain, primals, tangents))
    # Only `_backward` reads what is saved, and its derivative does not read it.
    return (y, saved), (d_y, jax.tree.map(no_tangent, saved))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(setting: Setting, given: Given, saved: Saved, d_y: Array) -> tuple:
    return over_rows(functools.partial(_compiled_backward, setting))(given, saved, d_y)


@_backward.defjvp
def _backward_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    def pull(given: Given, d_y: Array) -> Any:
        of_bias, replaced = floats(given.bias)

        def plain(q: Array, k: Array, v: Array, of_bias: list[Array]) -> Array:
            given_here = given._replace(q=q, k=k, v=v, bias=replaced(of_bias))
            return reference(setting, given_here, setting.scale)

        *d_qkv, d_bias = jax.vjp(plain, given.q, given.k, given.v, of_bias)[1](d_y)
        return *d_qkv, cotangents(given.bias, d_bias)

    read, d_read = ((tree[0], tree[2]) for tree in (primals, tangents))
    return _backward(setting, *primals), jax.jvp(*of_floats(pull, read, d_read))[1]


# Compiled here, since loops would compile at every call where nothing else is compiled.
_compiled_forward = jax.jit(forward_blocks.forward, static_argnums=0)
_compiled_backward = jax.jit(backward_blocks.backward, static_argnums=0)


def over_rows(f: Callable) -> Callable:
    """Call `f`, whose arrays have a leading axis of rows, which `vmap` multiplies.

    A `vmap` of the loops would have a trip count for every mapped index, and select among whole
    buffers in every iteration.
    """

    @custom_vmap
    def rows(*arrays: PyTree) -> PyTree:
        return f(*arrays)

    @rows.def_vmap
    def rule(size: int, mapped: Any, *arrays: PyTree) -> Any:
        return mapped_again(size, rows(*one_batch(size, tuple(mapped), arrays)))

    return rows
