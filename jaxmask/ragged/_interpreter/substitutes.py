"""`jax.lax.associative_scan` over an axis whose length is a symbol.

It uses only primitives that have rules, on an axis padded to the longest row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, PyTree
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import stop_gradient

_associative_scan = jax.lax.associative_scan


def associative_scan(
    fn: Callable[[PyTree, PyTree], PyTree], elems: PyTree, reverse: bool = False, axis: int = 0
) -> PyTree:
    """`jax.lax.associative_scan`, also over an axis of symbolic length.

    Inside a row function, `jax.lax.associative_scan` is this function already. Call it by this name
    if you imported `associative_scan` from JAX before the first call of `ragged_vmap`.

    Args:
      fn: an associative function of two pytrees like `elems`, along `axis`.
      elems: a pytree of arrays of the same size along `axis`.
      reverse: whether to scan from the end.
      axis: the axis to scan.

    Returns:
      A pytree like `elems`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.ragged.associative_scan(jnp.multiply, jnp.array([1, 2, 3])).tolist()
      [1, 2, 6]
    """
    leaves, tree = jax.tree.flatten(elems)
    sizes = next(filter(None, map(dims.traced, _sizes(leaves, axis))), None)
    if sizes is None:
        return _associative_scan(fn, elems, reverse=reverse, axis=axis)
    axis = axis % leaves[0].ndim
    length = leaves[0].shape[axis]
    physical = sizes.span(length)[1]
    real = jnp.arange(physical) < length
    padded = [_padded(leaf, axis, physical - length) for leaf in leaves]

    def combine(a: tuple[list, Array], b: tuple[list, Array]) -> tuple[list, Array]:
        (left, is_left), (right, is_right) = a, b
        both = [_beside(is_left & is_right, axis, x.ndim) for x in left]
        safe_left = [jnp.where(m, x, _safe(x, 1)) for m, x in zip(both, left, strict=True)]
        safe_right = [jnp.where(m, x, _safe(x, 2)) for m, x in zip(both, right, strict=True)]
        joined = fn(jax.tree.unflatten(tree, safe_left), jax.tree.unflatten(tree, safe_right))
        # If one side is padding, the result is the other side.
        alone = [
            jnp.where(_beside(is_left, axis, x.ndim), x, y)
            for x, y in zip(left, right, strict=True)
        ]
        merged = zip(both, jax.tree.leaves(joined), alone, strict=True)
        return [jnp.where(m, x, y) for m, x, y in merged], is_left | is_right

    results, _ = _scan_flat(combine, (padded, real), reverse, axis)
    cut = [jax.lax.slice_in_dim(value, 0, length, axis=axis) for value in results]
    return jax.tree.unflatten(tree, cut)


def _sizes(leaves: list[Any], axis: int) -> list[Any]:
    """Sizes along an axis; wrong arguments are left for JAX to refuse."""
    shapes = [jnp.shape(leaf) for leaf in leaves]
    return [shape[axis] for shape in shapes if -len(shape) <= axis < len(shape)]


def _scan_flat(combine: Callable, elems: Any, reverse: bool, axis: int) -> Any:
    """Scan with one-axis flags, reshaped to the rank of the values as JAX requires."""
    values, real = elems
    rank = max(value.ndim for value in values)
    flags = _beside(real, axis, rank)

    def wrapped(a: Any, b: Any) -> Any:
        joined, flag = combine((a[0], a[1].reshape(-1)), (b[0], b[1].reshape(-1)))
        return joined, _beside(flag, axis, rank)

    return _associative_scan(wrapped, (values, flags), reverse=reverse, axis=axis)


def _beside(vector: Array, axis: int, rank: int) -> Array:
    return vector.reshape([-1 if k == axis else 1 for k in range(rank)])


def _padded(leaf: Array, axis: int, missing: Any) -> Array:
    config = [(0, missing if k == axis else 0, 0) for k in range(leaf.ndim)]
    return jax.lax.pad(leaf, jnp.ones((), leaf.dtype), config)


def _safe(value: Array, constant: float) -> Array:
    """What `fn` gets instead of padding; its result is dropped."""
    return stop_gradient(jnp.asarray(constant, value.dtype))
