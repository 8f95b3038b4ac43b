"""The feature axes of each step; time stays."""

import math
from collections.abc import Sequence

import jax.export
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._types import ArrayLike, Mask, Pair


@refusing_pairs
def reshape(x: ArrayLike, mask: Mask, feature_shape: Sequence[int]) -> Pair:
    """Give the features of each step another shape; batch and time stay.

    Mask class: any.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None (then the first two axes are batch and time).
      feature_shape: the new feature axes; one may be -1.

    Returns:
      The pair `(y, mask)`, `y [batch, time, *feature_shape]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.shape.reshape(jnp.zeros((2, 3, 8)), jnp.ones((2, 3), bool), (2, 4))[0].shape
      (2, 3, 2, 4)
    """
    x, mask = _check.pair(x, mask, "reshape")
    leading = x.shape[: 2 if mask is None else mask.ndim]
    features = x.shape[len(leading) :]
    target = tuple(
        n
        if jax.export.is_symbolic_dim(n)
        else _check.count(n, "reshape", "feature_shape", least=-1)
        for n in feature_shape
    )
    known = math.prod(size for size in target if size != -1)
    size = math.prod(features)
    if target.count(-1) > 1 or (size % known if -1 in target and known else size != known):
        raise ValueError(
            f"reshape: `feature_shape` {target} does not hold the {size} features of a step, "
            f"{features}. Batch and time stay: name the feature axes only."
        )
    target = tuple(size // known if n == -1 and known else n for n in target)
    return filled(x, mask).reshape(*leading, *target), mask


@refusing_pairs
def permute(x: ArrayLike, mask: Mask, axes: Sequence[int]) -> Pair:
    """Reorder the feature axes.

    Mask class: any.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None.
      axes: all axes in their new order, as in `jnp.transpose`; those of the mask must stay first.

    Returns:
      The pair `(y, mask)`, `y` with its axes in that order.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.shape.permute(jnp.zeros((2, 3, 4, 5)), jnp.ones((2, 3), bool), (0, 1, 3, 2))[0].shape
      (2, 3, 5, 4)
    """
    x, mask = _check.pair(x, mask, "permute")
    order = tuple(axis + x.ndim if axis < 0 else axis for axis in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: `axes` must order all of {x.ndim} axes, got {tuple(axes)}.")
    fixed = 1 if mask is None else mask.ndim
    if order[:fixed] != tuple(range(fixed)):
        raise _check.MaskError(
            f"permute: `axes` {tuple(axes)} moves batch or time, and the mask cannot follow: it "
            f"must begin with {tuple(range(fixed))}. End the mask first (`jm.nn.DropMask`, or a "
            "function that consumes it) if the array is to be transposed."
        )
    return jnp.transpose(filled(x, mask), order), mask
