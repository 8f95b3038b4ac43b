"""Recurrent layers on top of each other."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, random
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree
from jaxmask.nn import foreign, join, streaming
from jaxmask.nn._base import MaskedModule


class StackedRNN(MaskedModule):
    """Recurrent layers on top of each other, with dropout and shortcuts between them.

        y = layer(x);  y = x + y, with `residual` where the shapes agree;  x = dropout(y)

    Dropout stands between layers: not before the first one and not after the last one. A stack of
    causal layers streams (`run`, `initial_carry`); one with `Bidirectional` in it does not.

    Shapes: `x [batch, time, feature]` and mask `[batch, time]` to what the last layer makes of it.

    Args:
      *layers: masked layers, `LSTM`, `GRU`, `RNN`, `Bidirectional`, ..., or any layer that
        `Sequential` takes; all but the last one give every step.
      residual: add what a layer gets to what it gives, where both have the same shape.
      dropout: probability of dropping a feature between two layers, while training.
      variational: one draw for all steps of a row, not one for each.
      rngs: source of the `dropout` random stream; needed where `dropout` is not 0.

    Raises:
      ValueError: if there is no layer, or `dropout` is not within 0 and 1 or lacks `rngs`.
      MaskError: on `run`, if a layer is not causal.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> layers = jm.nn.GRU(3, 4, rngs=rngs), jm.nn.GRU(4, 4, rngs=rngs)
      >>> stack = jm.nn.StackedRNN(*layers, residual=True, dropout=0.1, rngs=rngs)
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
        dropout: float = 0.0,
        variational: bool = False,
        rngs: nnx.Rngs | None = None,
    ):
        if not layers:
            raise ValueError("StackedRNN: expected at least one layer, got none.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"StackedRNN: `dropout` must lie within 0 and 1, got {dropout}.")
        if dropout and rngs is None:
            raise ValueError("StackedRNN: `dropout` needs a random stream: pass `rngs=`.")
        self.layers = nnx.List(layers)
        self.residual = residual
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.variational = variational

    def __call__(
        self, x: ArrayLike, mask: Mask = None, *, resets: ArrayLike | None = None
    ) -> tuple[Any, Mask]:
        """Run the layers and return `(y, mask)`; `resets` as in `jaxmask.recurrent.lstm`."""
        y, mask = _check.pair(x, mask, "StackedRNN", over_time=True)
        for position, layer in enumerate(self.layers):
            at = f"StackedRNN: layer {position}"
            adapted = join.adapted(layer)
            if resets is None or join.acts_on_each_step(adapted):
                pair = join.call(layer, y, mask, at=at)
            else:
                pair = join.checked(adapted(y, mask, resets=resets), layer, at)
            y, mask = self._joined(position, y, mask, pair)
        return y, mask

    def initial_carry(self, batch: int) -> tuple[PyTree, ...]:
        """What `run` starts from: a tuple with the carry of each layer."""
        return tuple(
            streaming.initial_carry(layer, batch, at=f"StackedRNN: layer {position}")
            for position, layer in enumerate(self.layers)
        )

    def run(
        self, carry: tuple[PyTree, ...], x: ArrayLike, mask: Mask = None
    ) -> tuple[tuple[PyTree, ...], Pair]:
        """Run from `carry` and return `(carry, (y, mask))`. Dropout draws anew at each call."""
        y, mask = _check.pair(x, mask, "StackedRNN", over_time=True)
        _check.carries(carry, len(self.layers), "StackedRNN")
        after = []
        for position, (layer, held) in enumerate(zip(self.layers, carry, strict=True)):
            at = f"StackedRNN: layer {position}"
            held, pair = streaming.run(layer, held, y, mask, at=at)
            y, mask = self._joined(position, y, mask, pair)
            after.append(held)
        return tuple(after), (y, mask)

    def _joined(self, position: int, x: Array, mask: Mask, pair: tuple[Any, Mask]) -> Any:
        """What a layer gives, with the shortcut past it and the dropout after it."""
        y, after = pair
        if self.residual and jnp.shape(y) == x.shape:
            # Filled twice, since the layer may have made padding of steps that came in real.
            y, _ = ops.fill(ops.fill(x, mask)[0] + y, after)
        is_last = position == len(self.layers) - 1
        if is_last or self.dropout.deterministic or self.dropout.rate == 0:
            return y, after
        drop = _drop_features if self.variational else random.dropout
        key = foreign.next_key(self.dropout.rngs, "StackedRNN", takes_rngs=False)
        return drop(_check.array(y, "x", "StackedRNN"), after, key, self.dropout.rate)


def _drop_features(x: Array, mask: Mask, key: Array, rate: float) -> Pair:
    """Dropout with one draw a row, the same at all of its steps."""
    scale, _ = random.dropout(jnp.ones_like(x[:, :1]), None, key, rate)
    return ops.fill(jnp.where(scale == 0, 0, x * scale).astype(x.dtype), mask)
