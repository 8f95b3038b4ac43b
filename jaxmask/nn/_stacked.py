"""Recurrent layers on top of each other."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, random
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn import _join as join
from jaxmask.nn._options import Given, draw
from jaxmask.nn._wrapping import Stack


class StackedRNN(Stack):
    """Recurrent layers on top of each other, with dropout and shortcuts between them.

        y = layer(x);  y = x + y, with `residual` where the shapes agree;  x = dropout(y)

    Dropout is applied between layers, not before the first one or after the last one. A stack of
    causal layers streams (`run`, `initial_carry`); one with `Bidirectional` in it does not.

    Shapes: `x [batch, time, feature]` and mask `[batch, time]` to the result of the last layer.

    Args:
      *layers: masked layers, `LSTM`, `GRU`, `RNN`, `Bidirectional`, ..., or any layer that
        `Sequential` takes; all but the last one give every step.
      residual: add the input of a layer to its output, where both have the same shape.
      dropout_rate: probability of dropping a feature between two layers, while training; from 0 to
        below 1.
      variational: one draw for all steps of a row, not one for each.
      rngs: source of the `dropout` random stream; needed where `dropout_rate` is not 0.

    Raises:
      MaskError: on `run`, if a layer is not causal.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> layers = jm.nn.GRU(3, 4, rngs=rngs), jm.nn.GRU(4, 4, rngs=rngs)
      >>> stack = jm.nn.StackedRNN(*layers, residual=True, dropout_rate=0.1, rngs=rngs)
      >>> y, mask = stack(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))
      >>> carry, (y, mask) = stack.run(stack.initial_carry(2), y[..., :3], mask)
      >>> y.shape, len(carry)
      ((2, 5, 4), 2)

    Source: variational dropout: Gal and Ghahramani, 2016, arXiv:1512.05287; residual: Wu et al.,
    2016, arXiv:1609.08144.
    """

    def __init__(
        self,
        *layers: Callable[..., Pair],
        residual: bool = False,
        dropout_rate: float = 0.0,
        variational: bool = False,
        rngs: nnx.Rngs | None = None,
    ):
        if not layers:
            raise ValueError("StackedRNN: expected at least one layer, got none.")
        if _check.dropout_rate(dropout_rate, "StackedRNN") and rngs is None:
            raise ValueError("StackedRNN: `dropout_rate` needs a random stream: pass `rngs=`.")
        for position, layer in enumerate(layers):
            join.require_layer(layer, f"StackedRNN: layer {position}")
        self.layers = nnx.List(layers)
        self.residual = residual
        self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)
        self.variational = variational

    def _before(self, x: ArrayLike, mask: Mask) -> Pair:
        return _check.pair(x, mask, "StackedRNN", over_time=True)

    def _after(
        self, position: int, x: Any, mask: Mask, pair: tuple[Any, Mask], given: Given
    ) -> tuple[Any, Mask]:
        """The shortcut past a layer and the dropout after it, with new noise at each call."""
        y, after = pair
        if self.residual and jnp.shape(y) == x.shape:
            # Filled twice, since the layer may have turned real steps into padding.
            y, _ = ops.fill(ops.fill(x, mask)[0] + y, after)
        is_last = position == len(self.layers) - 1
        if is_last or self.dropout.deterministic or self.dropout.rate == 0:
            return y, after
        drop = _drop_features if self.variational else random.dropout
        key = draw(self.dropout.rngs, given.get("rngs"), "StackedRNN")
        y = _check.array(y, "x", "StackedRNN")
        return drop(y, after, key, self.dropout.rate, row_ids=given.get("row_ids"))


def _drop_features(
    x: Array, mask: Mask, key: Array, rate: float, *, row_ids: ArrayLike | None
) -> Pair:
    """Dropout with one draw per row, the same at all of its steps."""
    scale, _ = random.dropout(jnp.ones_like(x[:, :1]), None, key, rate, row_ids=row_ids)
    return ops.fill(jnp.where(scale == 0, 0, x * scale).astype(x.dtype), mask)
