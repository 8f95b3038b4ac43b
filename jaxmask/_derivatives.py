"""What functions with derivatives of their own share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array


def of_floats(f: Callable, primals: Any, tangents: Any) -> tuple[Callable, Any, Any]:
    """`f` as a function of the floating arrays alone, with those and their tangents."""
    leaves, tree = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents)
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def inner(*arrays: Array) -> Any:
        changed = list(leaves)
        for i, array in zip(moving, arrays, strict=True):
            changed[i] = array
        return f(*jax.tree.unflatten(tree, changed))

    return inner, tuple(leaves[i] for i in moving), tuple(d_leaves[i] for i in moving)


def no_tangent(a: Array) -> Any:
    inexact = jnp.issubdtype(a.dtype, jnp.inexact)
    return jnp.zeros_like(a) if inexact else np.zeros(a.shape, jax.dtypes.float0)
