"""Functions of JAX that need a constant size, written anew for sizes that are lengths.

While a row function is traced, `jax.lax.associative_scan` is the function below. It is made of
primitives that have rules: an axis of unknown length is padded to the longest row.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, PyTree
from jaxmask.ragged import dims
from jaxmask.ragged.context import stop_gradient
from jaxmask.ragged.equality import watched_equality

_associative_scan = jax.lax.associative_scan
_tracing = threading.local()
_lock = threading.RLock()


def associative_scan(
    fn: Callable[[PyTree, PyTree], PyTree], elems: PyTree, reverse: bool = False, axis: int = 0
) -> PyTree:
    """`jax.lax.associative_scan`, also over an axis whose length is only known as a symbol.

    Inside a function under `ragged_vmap`, `jax.lax.associative_scan` is this one already; call it
    by this name where the function was imported by its own name earlier.

    Args:
      fn: an associative function of two pytrees like `elems`, along `axis`.
      elems: a pytree of arrays, of one size along `axis`.
      reverse: scan from the end.
      axis: the axis.

    Returns:
      A pytree like `elems`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.ragged.associative_scan(jnp.multiply, jnp.array([1, 2, 3])).tolist()
      [1, 2, 6]
    """
    leaves, tree = jax.tree.flatten(elems)
    axis = axis % leaves[0].ndim if leaves else axis
    if not any(dims.is_symbolic(leaf.shape[axis]) for leaf in leaves):
        return _associative_scan(fn, elems, reverse=reverse, axis=axis)
    length = leaves[0].shape[axis]
    physical = _tracing.sizes.span(length)[1]
    real = jnp.arange(physical) < length
    padded = [_padded(leaf, axis, physical - length) for leaf in leaves]

    def combine(a: tuple[list, Array], b: tuple[list, Array]) -> tuple[list, Array]:
        (left, is_left), (right, is_right) = a, b
        met = [jnp.broadcast_to(is_left & is_right, is_left.shape)] * len(left)
        both = [_beside(m, axis, x.ndim) for m, x in zip(met, left, strict=True)]
        safe_left = [jnp.where(m, x, _point(x, 1)) for m, x in zip(both, left, strict=True)]
        safe_right = [jnp.where(m, x, _point(x, 2)) for m, x in zip(both, right, strict=True)]
        joined = fn(jax.tree.unflatten(tree, safe_left), jax.tree.unflatten(tree, safe_right))
        # One side alone is what stands there already: padding is the identity of any function.
        alone = [
            jnp.where(_beside(is_left, axis, x.ndim), x, y)
            for x, y in zip(left, right, strict=True)
        ]
        rows = zip(both, jax.tree.leaves(joined), alone, strict=True)
        return [jnp.where(m, x, y) for m, x, y in rows], is_left | is_right

    results, _ = _scan_flat(combine, (padded, real), reverse, axis)
    cut = [jax.lax.slice_in_dim(value, 0, length, axis=axis) for value in results]
    return jax.tree.unflatten(tree, cut)


def _scan_flat(combine: Callable, elems: Any, reverse: bool, axis: int) -> Any:
    """The flags have one axis: give them those of the values, of size 1."""
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


def _point(value: Array, number: float) -> Array:
    """Where padding is joined, the function meets these numbers, and its result is dropped."""
    return stop_gradient(jnp.asarray(number, value.dtype))


def nesting() -> int:
    """How many row functions this thread is tracing, one inside the other.

    Example:
      >>> nesting()
      0
    """
    return getattr(_tracing, "depth", 0)


@contextmanager
def substituted(sizes: dims.Sizes) -> Iterator[None]:
    """While a row function is traced by this thread, use the functions of this file.

    Example:
      >>> with substituted(dims.Sizes({})):
      ...     jax.lax.associative_scan(jnp.add, jnp.ones(2)).tolist()
      [1.0, 2.0]
    """
    outer = getattr(_tracing, "sizes", None)
    merged = dims.Sizes({**(outer.bounds if outer else {}), **sizes.bounds})
    with _lock:
        before = jax.lax.associative_scan
        jax.lax.associative_scan = associative_scan
        _tracing.sizes, _tracing.depth = merged, nesting() + 1
        try:
            with watched_equality():
                yield
        finally:
            jax.lax.associative_scan = before
            _tracing.sizes, _tracing.depth = outer, nesting() - 1
