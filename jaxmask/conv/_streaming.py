"""Causal functions of stride 1, chunk by chunk: the carry is the steps that windows reach back."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask, common_dtype

Past: TypeAlias = tuple[Array, StepMask]


def no_past(batch: int, steps: int, features: tuple[int, ...]) -> Past:
    """The carry before the first step: padding. It takes any features if it is given none.

    Example:
      >>> x, real = no_past(2, 3, (4,))
      >>> x.shape, x.dtype.name, real.tolist()[0]
      ((2, 3, 4), 'float32', [False, False, False])
    """
    return jnp.zeros((batch, steps, *features), jnp.float32), jnp.zeros((batch, steps), bool)


def with_past(
    function: Callable[[Array, StepMask], Array],
    past: Past,
    x: ArrayLike,
    mask: Mask,
    where: str,
) -> tuple[Past, Pair]:
    """Run `function(x, real) -> y` over the past and a chunk; `y` has the steps of the chunk.

    Example:
      >>> past = no_past(1, 1, ())
      >>> total = lambda x, real: x[:, 1:] + x[:, :-1]
      >>> past, (y, _) = with_past(total, past, jnp.array([[1.0, 2.0]]), None, "total")
      >>> y.tolist(), past[0].tolist()
      ([[1.0, 3.0]], [[2.0]])
    """
    x, mask = _check.pair(x, mask, where, over_time=True, segments=False)
    old, old_real = past
    if old.ndim == 2:  # made before the features were known
        old = jnp.broadcast_to(_mask_ops.expand(old, x.ndim), (*old.shape, *x.shape[2:]))
    expected = (x.shape[0], old.shape[1], *x.shape[2:])
    _check.shape(old, expected, "[batch, steps, feature...]", where, "carry")
    real = _mask_ops.real_steps(mask, x.shape[:2])
    # Integers stay what they are, since float32 does not hold them all.
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    wide = common_dtype(old.dtype, x.dtype) if inexact else x.dtype
    longer = jnp.concatenate([old.astype(wide), ops.fill(x, mask)[0].astype(wide)], axis=1)
    longer_real = jnp.concatenate([old_real, real], axis=1)
    y, _ = ops.fill(function(longer, longer_real).astype(x.dtype), mask)
    return (longer[:, x.shape[1] :], longer_real[:, x.shape[1] :]), (y, mask)
