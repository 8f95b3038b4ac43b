"""Small masked modules for what Keras's layers do and `jaxmask.nn` does otherwise or not."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, masks, nn, ops, shape
from jaxmask._steps import gather
from jaxmask._types import Array, Mask, Pair, Segments
from jaxmask._windows import edges


class Cast(nnx.Module):
    """Floating inputs in the dtype of the layer, as Keras casts them."""

    per_step = True

    def __init__(self, dtype: str):
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        return cast(x, self.dtype), mask


def cast(x: Any, dtype: Any) -> Array:
    """An array, in `dtype` if it is floating."""
    x = jnp.asarray(x)
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


class Softmax(nnx.Module):
    """Softmax over an axis: over the real steps if it is time, else over features."""

    def __init__(self, axis: int = -1, log: bool = False):
        self.axis = axis
        self.log = log

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        x, mask = _check.pair(x, mask, "Softmax")
        axis = self.axis % x.ndim
        if mask is not None and axis == 1 and mask.ndim == 2:
            return ops.log_softmax(x, mask) if self.log else ops.softmax(x, mask)
        function = jax.nn.log_softmax if self.log else jax.nn.softmax
        if mask is None:
            return function(x, axis=axis), None
        if axis < mask.ndim:
            raise _check.MaskError(f"Softmax: axis {self.axis} is the batch, which a mask splits.")
        return ops.each_step(lambda safe: function(safe, axis=axis), x, mask)


class FlattenRows(nnx.Module):
    """All that a row holds as its features: `[batch, ...]` to `[batch, n]`, 0 in the padding.

    `jm.nn.Flatten` keeps a mask of the elements; the dense layer that follows in models of Keras
    needs a row.
    """

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        x, mask = _check.pair(x, mask, "FlattenRows", segments=False)
        y = ops.fill(x, mask)[0].reshape(x.shape[0], math.prod(x.shape[1:]))
        return y, masks.rows(mask) if getattr(mask, "ndim", 1) == 2 else mask


class Reshape(nnx.Module):
    """Another shape for all but the batch; a mask of steps follows if time stays."""

    def __init__(self, target: tuple[int, ...]):
        self.target = target

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        x, mask = _check.pair(x, mask, "Reshape", segments=False)
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in self.target if n != -1)
        target = tuple(size // known if n == -1 else n for n in self.target)
        if mask is not None and mask.ndim == 2:
            if target[0] != x.shape[1]:
                raise _check.MaskError(
                    f"Reshape: {x.shape[1:]} to {target} moves steps, and the mask cannot follow. "
                    "End the mask first, `jm.nn.DropMask()`, or keep the time axis."
                )
            return shape.reshape(x, mask, target[1:])
        y = ops.fill(x, mask)[0].reshape(x.shape[0], *target)
        if mask is None or len(target) < 2:
            return y, mask
        return y, jnp.repeat(masks.as_bool(mask)[:, None], target[0], axis=1)


class ZeroPadding(nnx.Module):
    """Zeros before the first and after the last step of each row, which are steps like any other.

    `jm.nn.Pad` makes more padding instead.
    """

    def __init__(self, width: tuple[int, int]):
        self.width = width

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        """Add the steps and return `(y, mask)`; rows are moved to the left."""
        x, mask = _check.pair(x, mask, "ZeroPadding", over_time=True, segments=False)
        ends = ((0, 0), self.width)
        if mask is None or isinstance(mask, Segments):
            return jnp.pad(x, (*ends, *((0, 0),) * (x.ndim - 2))), None
        first, end = (edge[:, None] for edge in edges(mask))
        left, right = self.width
        place = jnp.arange(x.shape[1] + left + right, dtype=jnp.int32)[None] - left
        inside = (place >= 0) & (place < end - first)
        real = inside & gather(mask, place + first)
        added = (first < end) & ~inside & (place < end - first + right)
        y = gather(ops.fill(x, mask)[0], place + first)
        return ops.fill(y, real)[0], real | added


class FactorNoise(nnx.Module):
    """Each value times a draw from a normal distribution around 1 (Keras's `GaussianDropout`)."""

    def __init__(self, stddev: float, rngs: nnx.Rngs):
        self.noise = nn.GaussianNoise(stddev, rngs=rngs)

    def __call__(
        self,
        x: Any,
        mask: Mask = None,
        *,
        deterministic: bool | None = None,
        rngs: Any = None,
        row_ids: Any = None,
    ) -> Pair:
        options = {"deterministic": deterministic, "rngs": rngs, "row_ids": row_ids}
        x, mask = ops.fill(x, mask)
        return x * self.noise(jnp.ones_like(x), mask, **options)[0], mask


class AlphaDropout(nnx.Module):
    """Dropout to the value that keeps the mean and variance of a SELU network."""

    def __init__(self, dropout_rate: float, rngs: nnx.Rngs):
        self.dropout = nn.Dropout(dropout_rate, rngs=rngs)

    def __call__(
        self,
        x: Any,
        mask: Mask = None,
        *,
        deterministic: bool | None = None,
        rngs: Any = None,
        row_ids: Any = None,
    ) -> Pair:
        x, mask = _check.pair(x, mask, "AlphaDropout")
        rate, lowest = self.dropout.dropout_rate, -1.6732632423543772 * 1.0507009873554805
        if self.dropout.deterministic if deterministic is None else deterministic:
            return ops.fill(x, mask)
        ones = jnp.ones_like(x)
        kept = self.dropout(ones, mask, deterministic=False, rngs=rngs, row_ids=row_ids)[0] > 0
        scale = ((1 - rate) * (1 + rate * lowest**2)) ** -0.5
        y = scale * jnp.where(kept, x, lowest) - scale * lowest * rate
        return ops.fill(y.astype(x.dtype), mask)


class PReLU(nnx.Module):
    """`x`, and `alpha [feature]` times it where it is negative."""

    per_step = True

    def __init__(self, alpha: Array):
        self.alpha = nnx.Param(alpha)

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        x, mask = ops.fill(x, mask)
        return ops.fill(jnp.where(x < 0, self.alpha[...] * x, x), mask)


class Affine(nnx.Module):
    """`x * scale + offset` with constants, numbers or `[feature]`."""

    per_step = True

    def __init__(self, scale: Any, offset: Any):
        self.scale = nnx.Variable(jnp.asarray(scale))
        self.offset = nnx.Variable(jnp.asarray(offset))

    def __call__(self, x: Any, mask: Mask = None) -> Pair:
        x, mask = ops.fill(x, mask)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else self.scale.dtype
        scale, offset = (v[...].astype(dtype) for v in (self.scale, self.offset))
        return ops.fill(x.astype(dtype) * scale + offset, mask)
