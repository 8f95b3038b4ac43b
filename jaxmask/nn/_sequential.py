"""Stacks of layers on pairs: `Sequential` over depth, `TimeDistributed` over an outer axis."""

import math
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _keys, _mask_ops, masks
from jaxmask._types import Array, ArrayLike, Mask, Segments
from jaxmask.nn import _join as join
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._options import Given, NoiseCall, opened
from jaxmask.nn._wrapping import Stack


class Sequential(Stack):
    """Apply layers in order, each to the pair that the one before it returned.

    A layer is any callable `(x, mask) -> (y, mask)`; no base class is needed. Flax's per-step
    layers and JAX's activations work as they are. Any other layer that gets a mask is a
    `MaskError` that names it: a mask is never dropped silently.

    A stack of causal layers streams: `run(carry, x, mask)` continues from `initial_carry(batch)`
    chunk by chunk and gives what one call on the whole gives. A carry is a tuple with one entry
    per layer, `()` for a layer that acts on each step alone.

    The options of a call, `rngs`, `row_ids`, `deterministic`, `use_running_average` and `resets`,
    reach every layer, inside every wrapper too. A layer of yours gets those that its call names.

    A mask of None says that every step is real, so `model(ids)` trains on the padding of `ids`
    unless the first layer makes a mask of it: `Embed(..., mask_zero=True)` or `Masking`. Where rows
    are padded, `needs_mask=True` refuses a call in which the mask was forgotten.

    Args:
      *layers: callables.
      on_unsupported: `"error"`; or Keras's behaviour, where the mask is None after a layer that
        does not support masks, with a warning (`"warn"`) or without (`"drop"`).
      needs_mask: refuse a call, or a `run`, without a mask, unless the first layer makes one.

    Raises:
      MaskError: on call, if a layer that does not support masks gets one, one returns a mask that
        does not belong to its result, or there is none with `needs_mask`; on `run`, if a layer is
        not causal.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = jm.nn.Sequential(
      ...     jm.nn.Embed(100, 8, rngs=rngs),
      ...     jm.nn.LSTM(8, 16, rngs=rngs),
      ...     nnx.LayerNorm(16, rngs=rngs),
      ...     jm.nn.GlobalMeanPool(),
      ...     nnx.Linear(16, 2, rngs=rngs),
      ... )
      >>> logits, row_mask = model(*jm.pad_sequences([[7, 8, 9], [5]]))
      >>> logits.shape, row_mask.tolist()
      ((2, 2), [True, True])
    """

    def __init__(
        self, *layers: Callable[..., Any], on_unsupported: str = "error", needs_mask: bool = False
    ):
        _check.choice(on_unsupported, join.ON_UNSUPPORTED, "Sequential", "on_unsupported")
        for position, layer in enumerate(layers):
            join.require_layer(layer, f"Sequential: layer {position}")
        self.layers = nnx.List(layers)
        self.on_unsupported = on_unsupported
        self.needs_mask = needs_mask

    def _after(
        self, position: int, x: Any, mask: Mask, pair: tuple[Any, Mask], given: Given
    ) -> tuple[Any, Mask]:
        if self.needs_mask and position == 0 and mask is None and pair[1] is None:
            raise _check.MaskError(
                "Sequential: this model was built with `needs_mask=True` and was called without a "
                "mask, which would say that every step is real. Call `model(x, mask)` with the "
                "mask that `jm.pad_sequences` returns, or let the first layer make one: "
                "`jm.nn.Embed(..., mask_zero=True)` or `jm.nn.Masking()`. Where every step is "
                "real, say so: `jnp.ones(x.shape[:2], bool)`."
            )
        return pair


class TimeDistributed(MaskedModule):
    """Apply a layer to each step of an outer axis: to each sentence of a document.

    The outer axis is folded into the batch, so the layer sees ordinary rows.

    Shapes: `x [batch, outer, time, feature...]` and mask `[batch, outer, time]` to what the layer
    makes of rows, unfolded: `y [batch, outer, time, ...]` and a mask of rank 3, or, after pooling,
    `y [batch, outer, ...]` and mask `[batch, outer]`. With a mask `[batch, outer]` the layer gets a
    row mask.

    Args:
      layer: a masked layer, or any layer that `Sequential` takes.

    Raises:
      MaskError: on call, if `mask` does not belong to `x`, or the layer cannot take it.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3, 4), bool)
      >>> y, mask = jm.nn.TimeDistributed(jm.nn.GlobalMeanPool())(x, mask)
      >>> y.shape, mask.shape
      ((2, 3, 5), (2, 3))

    Agrees with `keras.layers.TimeDistributed`, which does not pass masks to layers inside.
    """

    per_step = True

    def __init__(self, layer: Callable[..., Any]):
        join.require_layer(layer, "TimeDistributed: `layer`")
        self.layer = layer

    def __call__(
        self, x: ArrayLike, mask: Mask = None, **options: Unpack[NoiseCall]
    ) -> tuple[Any, Mask]:
        """Run the layer on each outer step and return `(y, mask)`; options as in `Sequential`."""
        model, given = opened(self, options, resets=False)
        x = _check.array(x, "x", "TimeDistributed")
        if mask is not None:
            if isinstance(mask, Segments):
                _check.refuse_segments("TimeDistributed")
            mask = _check.boolean(mask, "TimeDistributed")
            if mask.ndim not in (2, 3) or mask.shape != x.shape[: mask.ndim]:
                raise _check.MaskError(
                    "TimeDistributed: `mask` must be [batch, outer] or [batch, outer, time], the "
                    f"shape of the leading axes of `x`, {x.shape}, got {mask.shape}."
                )
            x = jnp.where(_mask_ops.expand(mask, x.ndim), x, jnp.zeros((), x.dtype))
        if x.ndim < 2:
            raise ValueError(
                f"TimeDistributed: `x` must be [batch, outer, ...], got shape {x.shape}."
            )
        outer = x.shape[:2]

        def fold(a: Array) -> Array:
            return a.reshape(math.prod(outer), *a.shape[2:])

        def unfold(a: Array) -> Array:
            return a.reshape(*outer, *a.shape[1:])

        inner = None if mask is None else fold(mask)
        rows = {"row_ids": fold(_outer_ids(x, mask, given.get("row_ids")))}
        given = {**given, **rows}
        y, out = join.call(model.layer, fold(x), inner, at="TimeDistributed", given=given)
        return jax.tree.map(unfold, y), jax.tree.map(unfold, out)


def _outer_ids(x: Array, mask: Array | None, row_ids: ArrayLike | None) -> Array:
    """`[batch, outer, n]`, the row and the rank of the outer step, which no padding changes."""
    ids = _keys.ids_of_rows(x, "TimeDistributed", row_ids)[:, None]
    if mask is None:
        rank = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    else:
        rank = masks.positions(mask if mask.ndim == 2 else jnp.any(mask, axis=2))
    ids = jnp.broadcast_to(ids, (*x.shape[:2], ids.shape[-1]))
    return jnp.concatenate([ids, rank[..., None].astype(ids.dtype)], axis=-1)
