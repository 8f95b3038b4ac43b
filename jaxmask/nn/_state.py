"""The one place where the state of a module is taken apart, for tools that run it as a function."""

from collections.abc import Callable
from typing import Any, TypeAlias

from flax import nnx

from jaxmask._types import PyTree

Call: TypeAlias = Callable[..., tuple[Any, PyTree]]


def is_module(fn: Any) -> bool:
    """Whether `fn` is an `nnx.Module`.

    Example:
      >>> is_module(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), is_module(len)
      (True, False)
    """
    return isinstance(fn, nnx.Module)


def functional(module: nnx.Module) -> tuple[PyTree, Call]:
    """Take a module apart into its parameters and a pure function of them.

    Everything that is no parameter (random streams, statistics) starts anew from the module's own
    at every call, and the module itself never changes.

    Args:
      module: any NNX module, in training mode or not.

    Returns:
      `params`, a pytree of arrays, and `call(params, *args) -> (output, statistics)`, where
      `statistics` is a pytree of what the `nnx.BatchStat` variables hold after the call.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params, call = functional(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> y, statistics = jax.jit(call)(params, jnp.ones((1, 2)))
      >>> y.shape, jax.tree.leaves(statistics)
      ((1, 3), [])
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]

    def call(params: PyTree, *args: Any) -> tuple[Any, PyTree]:
        # Without `copy` the merged module would write into the variables of `rest` itself.
        merged: Any = nnx.merge(graphdef, params, rest, copy=True)
        output = merged(*args)
        return output, nnx.state(merged, nnx.BatchStat)

    return params, call
