"""What functions with derivatives of their own share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array, PyTree


def floats(arrays: PyTree) -> tuple[list[Array], Callable[[Any], PyTree]]:
    """The floating arrays of a tree, and a function that replaces them."""
    leaves, tree = jax.tree.flatten(arrays)
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def replaced(new: Any) -> PyTree:
        changed = list(leaves)
        for i, array in zip(moving, new, strict=True):
            changed[i] = array
        return jax.tree.unflatten(tree, changed)

    return [leaves[i] for i in moving], replaced


def of_floats(f: Callable, primals: Any, tangents: Any) -> tuple[Callable, Any, Any]:
    """`f` as a function of the floating arrays alone, with those and their tangents."""
    moving, replaced = floats(primals)
    # Others have tangents of `float0`, which is no floating type.
    return lambda *new: f(*replaced(new)), tuple(moving), tuple(floats(tangents)[0])


def one_batch(size: int, mapped: Any, arrays: Any) -> Any:
    """A mapped axis of `size` as more of the leading axis of each array."""

    def fold(a: Array, is_mapped: bool) -> Array:
        a = a if is_mapped else jnp.broadcast_to(a, (size, *a.shape))
        return a.reshape(-1, *a.shape[2:])

    return jax.tree.map(fold, arrays, mapped)


def mapped_again(size: int, out: PyTree) -> tuple[PyTree, PyTree]:
    """Results for `one_batch` with the mapped axis in front, as `custom_vmap` wants them."""
    out = jax.tree.map(lambda a: a.reshape(size, a.shape[0] // size, *a.shape[1:]), out)
    return out, jax.tree.map(lambda _: True, out)


def no_tangent(a: Array) -> Any:
    inexact = jnp.issubdtype(a.dtype, jnp.inexact)
    return jnp.zeros_like(a) if inexact else np.zeros(a.shape, jax.dtypes.float0)
