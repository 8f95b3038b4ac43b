"""Windowed modules that run chunk by chunk: the carry is the steps that windows reach back to."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops
from jaxmask._steps import filled
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask, common_dtype
from jaxmask._windows import Padding
from jaxmask.nn._base import MaskedModule

Past: TypeAlias = tuple[Array, StepMask]


class Causal(MaskedModule):
    """A windowed module that runs chunk by chunk if it is causal and has stride 1."""

    padding: Padding
    strides: int
    mask_rule: str | None
    dtype: jax.typing.DTypeLike | None = None  # what a call casts `x` to, and so a chunk

    def _reach(self) -> int:
        """Steps that a window reaches back."""
        raise NotImplementedError

    def _past_features(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _over_chunk(self, x: Array, real: Array) -> Array:
        """The results for a chunk that is preceded by `_reach()` more steps."""
        raise NotImplementedError

    def _require_causal(self) -> None:
        if self.padding != "causal" or self.strides != 1 or self.mask_rule not in (None, "anchor"):
            raise _check.MaskError(
                f"{type(self).__name__}: only a causal layer of stride 1, whose mask comes out as "
                'it went in, runs chunk by chunk. Use padding="causal", strides=1, mask_rule=None; '
                f"this one has padding={self.padding!r}, strides={self.strides}, "
                f"mask_rule={self.mask_rule!r}."
            )

    def initial_carry(self, batch: int) -> Past:
        """What a call starts from, for `batch` rows: padding, float32."""
        self._require_causal()
        steps = self._reach()
        past = jnp.zeros((batch, steps, *self._past_features()), jnp.float32)
        return past, jnp.zeros((batch, steps), bool)

    def run(self, carry: Past, x: ArrayLike, mask: Mask = None) -> tuple[Past, Pair]:
        """Run a chunk from `carry` and return `(carry, (y, mask))`."""
        self._require_causal()
        where = type(self).__name__
        if self.dtype is not None:
            x = _check.array(x, "x", where).astype(self.dtype)
        return _with_past(self._over_chunk, carry, x, mask, where)


def _with_past(
    function: Callable[[Array, StepMask], Array], past: Past, x: ArrayLike, mask: Mask, where: str
) -> tuple[Past, Pair]:
    """Run `function(x, real) -> y` over the past and a chunk; `y` has the steps of the chunk."""
    x, mask = _check.pair(x, mask, where, over_time=True, segments=False)
    old, old_real = past
    if old.ndim == 2:  # made before the features were known
        old = jnp.broadcast_to(_mask_ops.expand(old, x.ndim), (*old.shape, *x.shape[2:]))
    expected = (x.shape[0], old.shape[1], *x.shape[2:])
    _check.shape(old, expected, "[batch, steps, feature...]", where, "carry")
    # Integers keep their dtype, since float32 does not hold them all.
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    wide = common_dtype(old.dtype, x.dtype) if inexact else x.dtype
    longer = jnp.concatenate([old.astype(wide), filled(x, mask).astype(wide)], axis=1)
    real = jnp.concatenate([old_real, _mask_ops.real_steps(mask, x.shape[:2])], axis=1)
    y = filled(function(longer, real).astype(x.dtype), mask)
    return (longer[:, x.shape[1] :], real[:, x.shape[1] :]), (y, mask)
