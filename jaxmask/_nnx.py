"""Flax modules as pure functions, for tools that run them: the one place outside `nn` for Flax."""

from collections.abc import Callable
from typing import Any, TypeAlias

from flax import nnx

from jaxmask._types import PyTree

Call: TypeAlias = Callable[..., tuple[Any, PyTree]]


def is_module(fn: Any) -> bool:
    """Whether `fn` is an `nnx.Module`."""
    return isinstance(fn, nnx.Module)


def functional(module: nnx.Module) -> tuple[PyTree, Call]:
    """Parameters, and a pure `call(params, *args) -> (output, batch statistics after it)`.

    Everything that is no parameter (random streams, statistics) starts from the module's own at
    every call, and the module itself never changes.
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]

    def call(params: PyTree, *args: Any) -> tuple[Any, PyTree]:
        # Without `copy` the merged module would write into the variables of `rest` itself.
        merged: Any = nnx.merge(graphdef, params, rest, copy=True)
        output = merged(*args)
        return output, nnx.state(merged, nnx.BatchStat)

    return params, call
