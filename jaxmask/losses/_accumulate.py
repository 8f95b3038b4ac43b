"""Loss and gradients over micro-batches and devices, in which every step has equal weight."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._sums import accumulator, divide
from jaxmask._types import Array, PyTree, Scalar

_Total = Callable[[PyTree, PyTree], tuple[Array, tuple[Array, Array]]]
AxisName = str | tuple[str, ...]


def accumulate(
    loss: Callable[[PyTree, PyTree], tuple[Scalar, Scalar]],
    params: PyTree,
    batches: PyTree,
    *,
    axis_name: AxisName | None = None,
) -> tuple[Scalar, PyTree]:
    """Loss and gradients of several batches, as those of one batch that holds all their steps.

        value     = sum of totals / sum of counts
        gradients = sum of the gradients of the totals / sum of counts

    over micro-batches, and over devices with `axis_name`. Averaging per-batch means instead
    would give more weight to steps in batches with few real steps. The batches run one after
    another, in the memory of one.

    Args:
      loss: `(params, batch) -> (total, count)`, two scalars, as `sum_and_count` gives them. The
        count gets no gradient.
      params: pytree of floating arrays.
      batches: pytree of arrays `[micro, ...]`, one slice for each call of `loss`; masks are among
        them. A micro-batch may have no real step.
      axis_name: one or several `shard_map` axes over which the batches are sharded; results are
        then global and replicated. Leave None under plain `jit`, where arrays are global.

    Returns:
      `(value, gradients)`: a scalar, and a pytree like `params`, added up in at least float32.
      Where nothing was counted both are 0.

    Raises:
      TypeError: if `loss` does not return a pair.
      ValueError: if a total or count is not a scalar, or leading axes of `batches` differ or are 0.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> def loss(w, batch):
      ...     x, mask, y = batch
      ...     return jm.losses.sum_and_count(*jm.losses.squared_error(w * x, mask, y))
      >>> x, y = jnp.ones((2, 1, 3)), jnp.array([[[1.0, 1.0, 1.0]], [[5.0, 9.0, 9.0]]])
      >>> mask = jnp.array([[[True, True, True]], [[True, False, False]]])
      >>> value, gradient = jm.losses.accumulate(loss, jnp.array(0.0), (x, mask, y))
      >>> float(value), float(gradient)  # (1 + 1 + 1 + 25) / 4; the mean of means is 13
      (7.0, -4.0)
    """
    where = "accumulate"
    _check.function(loss, where, "loss")
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(batches)}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"{where}: all arrays of `batches` must have the same leading axis, [micro, ...], got "
            f"leading axes {sorted(sizes)}."
        )
    if sizes == {(0,)}:
        raise ValueError(
            f"{where}: `batches` must hold at least one micro-batch, got leading axes of 0. A "
            "micro-batch may be without real steps."
        )
    if axis_name is not None:
        # Mark params as device-varying: `shard_map` would otherwise sum the gradients of replicated
        # params itself, before our `psum`.
        here = functools.reduce(jnp.maximum, map(jax.lax.axis_index, _names(axis_name)))
        params = jax.tree.map(lambda x: _varying_like(x, here), params)

    def step(sums: PyTree, batch: PyTree) -> tuple[PyTree, None]:
        run = jax.value_and_grad(_checked(loss, where), has_aux=True)
        (_, pair), gradients = run(params, batch)
        return jax.tree.map(lambda x, y: x + y.astype(x.dtype), sums, (pair, gradients)), None

    def zeros(x: Array) -> Array:
        return _varying_like(jnp.zeros(jnp.shape(x), accumulator(jnp.asarray(x).dtype)), x)

    pair = jax.eval_shape(_checked(loss, where), params, jax.tree.map(lambda x: x[0], batches))[1]
    nothing = [jnp.zeros(x.shape, accumulator(x.dtype)) for x in pair]
    for leaf in jax.tree.leaves((params, batches)):
        nothing = [_varying_like(x, jnp.ravel(_numbers(leaf))[:1].sum()) for x in nothing]
    start = tuple(nothing), jax.tree.map(zeros, params)
    ((total, count), gradients), _ = jax.lax.scan(step, start, batches)
    if axis_name is not None:
        total, count, gradients = jax.lax.psum((total, count, gradients), axis_name)
    gradients = jax.tree.map(lambda g, p: divide(g, count).astype(p.dtype), gradients, params)
    return divide(total, count), gradients


def _checked(loss: Callable[..., Any], where: str) -> _Total:
    def total_and_count(params: PyTree, batch: PyTree) -> tuple[Array, tuple[Array, Array]]:
        pair = loss(params, batch)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(
                f"{where}: `loss` must give a pair `(total, count)`, as `sum_and_count` does, got "
                f"{_check.kind_of(pair)}."
            )
        total, count = (jnp.asarray(x) for x in pair)
        if total.ndim or count.ndim:
            raise ValueError(
                f"{where}: the total and the count of `loss` must be scalars, got shapes "
                f"{total.shape} and {count.shape}."
            )
        return total, (total, jax.lax.stop_gradient(count.astype(total.dtype)))

    return total_and_count


def _names(axis_name: AxisName) -> tuple[str, ...]:
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def _numbers(x: Array) -> Array:
    is_key = jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def _varying_like(x: Array, like: Array) -> Array:
    """`x` cast to vary over the `shard_map` axes that `like` varies over.

    A scan carry needs one type, and JAX versions name this cast differently.
    """
    return jnp.where(like == like, x, x)
