"""Convolutions that are fast inside loops and branches on a CPU.

XLA:CPU runs a convolution by a fast kernel where its axes are in one order, batch, space, feature.
It brings others into that order, but not inside loops and branches, where the gradients of a
convolution then take twenty times as long. Here they are in that order from the start.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from jaxmask._types import Array

# Whether what is traced will run inside a loop. It changes how, and never what, is computed.
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside", default=False)


@contextlib.contextmanager
def inside_loop() -> Iterator[None]:
    """For what traces a function that it will run in a loop or a branch."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def convolve(x: Array, kernel: Array, **options: Any) -> Array:
    """`jax.lax.conv_general_dilated` with hashable options."""
    if _inside.get() and jax.default_backend() == "cpu":
        return _convolve(x, kernel, tuple(options.items()))
    return jax.lax.conv_general_dilated(x, kernel, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, options: tuple[tuple[str, Any], ...]) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, **dict(options))


def _forward(x: Array, kernel: Array, options: Any) -> tuple[Array, tuple[Array, Array]]:
    # Not `_convolve`, which would hide the convolution from the policy of a `jax.checkpoint`.
    return jax.lax.conv_general_dilated(x, kernel, **dict(options)), (x, kernel)


def _backward(options: Any, saved: tuple[Array, Array], given: Array) -> tuple[Array, ...]:
    plain = functools.partial(jax.lax.conv_general_dilated, **dict(options))

    def pull(x: Array, kernel: Array, given: Array) -> tuple[Array, Array]:
        return jax.vjp(plain, x, kernel)[1](given)

    return tuple(_run(jax.make_jaxpr(pull)(*saved, given), *saved, given))


_convolve.defvjp(_forward, _backward)


def _run(closed: Any, *arguments: Array) -> list[Array]:
    """A program, with its convolutions in the order of axes that is fast."""
    found = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    found |= dict(zip(closed.jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else found[variable]

    for step in closed.jaxpr.eqns:
        is_convolution = step.primitive.name == "conv_general_dilated"
        run = _reordered if is_convolution else step.primitive.bind
        results = run(*map(read, step.invars), **step.params)
        results = results if step.primitive.multiple_results else [results]
        found |= dict(zip(step.outvars, results, strict=True))
    return [read(variable) for variable in closed.jaxpr.outvars]


def _reordered(x: Array, kernel: Array, *, dimension_numbers: Any, **params: Any) -> Array:
    """A convolution between transpositions."""
    (batch, feature, *space), (out, into, *window), result = dimension_numbers
    spatial = "DHW"[-len(space) :]
    y = jax.lax.conv_general_dilated(
        x.transpose(batch, *space, feature),
        kernel.transpose(*window, into, out),
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        **params,
    )
    order = [0] * y.ndim
    for place, axis in zip(result, (0, y.ndim - 1, *range(1, y.ndim - 1)), strict=True):
        order[place] = axis
    return y.transpose(order)
