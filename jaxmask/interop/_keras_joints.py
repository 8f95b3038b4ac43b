"""Modules of several inputs, called `module(*pairs)`: merges, attention, recurrence with states."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, attention, masks, merge, nn, ops, pool, recurrent, shape
from jaxmask._types import Array, Mask, Pair
from jaxmask.interop._keras_modules import cast

_MERGES: dict[str, Callable[..., Pair]] = {
    "Add": merge.add,
    "Subtract": merge.subtract,
    "Multiply": merge.multiply,
    "Average": merge.average,
    "Maximum": merge.maximum,
    "Minimum": merge.minimum,
    "Concatenate": merge.concatenate,
}


class MultiInput(nnx.Module):
    """A module of several pairs, cast to the dtype of the layer where one is set."""

    dtype: Any = None

    def __call__(self, *pairs: Pair, **options: Any) -> Any:
        """A pair, or a tuple of pairs."""
        if self.dtype is not None:
            pairs = tuple((cast(x, self.dtype), mask) for x, mask in pairs)
        return self._joined(*pairs, **options)

    def _joined(self, *pairs: Pair, **options: Any) -> Any:
        raise NotImplementedError


class Merge(MultiInput):
    """A merge layer of Keras: a step is real if any pair that has a mask of steps has it.

    A pair without a mask, or one that is spread over time, adds no step.
    """

    def __init__(self, kind: str, axis: int = -1):
        self.kind = kind
        self.axis = axis

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        checked = [_check.pair(x, mask, self.kind, segments=False) for x, mask in pairs]
        if self.kind == "Concatenate":
            axis = self.axis % checked[0][0].ndim
            if axis == 1 and checked[0][0].ndim > 2:
                return shape.concatenate(*checked)
            if axis != checked[0][0].ndim - 1:
                raise ValueError(f"Concatenate: axis {self.axis} is neither time nor features.")
        else:
            checked = _broadcast(checked)
        return _MERGES[self.kind](*_same_rank(checked), combine="or")


def _broadcast(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs in one shape, as Keras broadcasts them: axes are added after the batch."""
    ndim = max(x.ndim for x, _ in pairs)
    wide = [x.reshape(x.shape[0], *(1,) * (ndim - x.ndim), *x.shape[1:]) for x, _ in pairs]
    target = jnp.broadcast_shapes(*(x.shape for x in wide))
    spread = []
    for full, (x, mask) in zip(wide, pairs, strict=True):
        is_spread = full.shape[:2] != target[:2] or x.ndim < ndim
        if mask is not None and is_spread:
            full = ops.fill(x, mask)[0].reshape(full.shape)
        spread.append((jnp.broadcast_to(full, target), None if is_spread else mask))
    return spread


def _same_rank(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs without a mask get the steps that any other pair has."""
    given = [mask for _, mask in pairs if mask is not None]
    if not given or len({mask.ndim for mask in given}) > 1:
        return list(pairs)
    either = functools.reduce(jnp.logical_or, [masks.as_bool(mask) for mask in given])
    return [(x, either if mask is None else mask) for x, mask in pairs]


class DotRows(MultiInput):
    """The dot product of the features of two rows."""

    def __init__(self, normalize: bool):
        self.normalize = normalize

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        return merge.dot(*_same_rank(pairs), combine="or", normalize=self.normalize)


class Cross(MultiInput):
    """A layer `(x, mask, memory, memory_mask)` on two pairs."""

    def __init__(self, layer: nn.CrossAttention):
        self.layer = layer

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        (x, mask), (memory, memory_mask) = pairs
        return self.layer(x, mask, memory, memory_mask, **options)


class DotAttention(MultiInput):
    """Keras's `Attention` of `[query, value]` or `[query, value, key]`: dot products, unscaled."""

    def __init__(self, scale: Any, causal: bool, dropout_rate: float, rngs: nnx.Rngs):
        self.scale = nnx.data(None) if scale is None else nnx.Param(jnp.asarray(scale))
        self.causal = causal
        self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        (q, q_mask), (v, v_mask), *rest = pairs
        k = rest[0][0] if rest else v
        q, q_mask = _check.pair(q, q_mask, "Attention", over_time=True)
        if self.scale is not None:
            q = ops.fill(q, q_mask)[0] * self.scale[...].astype(q.dtype)
        heads = (jnp.asarray(a)[:, :, None] for a in (q, k, v))
        q, k, v = heads
        noise = self._noise(options)
        how = {"causal": self.causal, "scale": 1.0, **noise}
        y, mask = attention.attend(q, q_mask, k, v, v_mask, **how)
        return y[:, :, 0], mask

    def _noise(self, options: dict[str, Any]) -> dict[str, Any]:
        given = options.get("deterministic")
        if not self.dropout.rate or (self.dropout.deterministic if given is None else given):
            return {}
        rngs = options.get("rngs")
        key = rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs
        key = self.dropout.rngs() if key is None else key
        return {"dropout_rate": self.dropout.rate, "key": key, "row_ids": options.get("row_ids")}


class Additive(MultiInput):
    """Keras's `AdditiveAttention` of `[query, value]` or `[query, value, key]`."""

    def __init__(self, scale: Any, causal: bool, is_trained: bool):
        kind = nnx.Param if is_trained else nnx.Variable
        self.scale = kind(jnp.asarray(scale))
        self.causal = causal

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        (q, q_mask), (v, v_mask), *rest = pairs
        k = rest[0][0] if rest else v
        scale = self.scale[...]
        same = jnp.eye(scale.size, dtype=scale.dtype)
        weights = attention.AdditiveWeights(same, same, scale)
        return attention.additive(q, q_mask, k, v, v_mask, weights, causal=self.causal)


class Recurrence(MultiInput):
    """A recurrent layer, or one for each direction, with initial and final states.

    It is called `(pair, *states)`, each state a pair of rows, and returns one pair, or with
    `return_state` a tuple of pairs, the states after the result.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        before: Sequence[Sequence[Any]],
        merge: str | None,
        *,
        return_sequences: bool,
        return_state: bool,
    ):
        self.layers = nnx.List(layers)
        self.before = nnx.List([nn.Sequential(*parts) for parts in before])
        self.merge = merge
        self.return_sequences = return_sequences
        self.return_state = return_state

    def _joined(self, *pairs: Pair, **options: Any) -> Any:
        pair, *states = pairs
        each = len(states) // len(self.layers)
        ys, lasts = [], []
        for place, layer in enumerate(self.layers):
            x, mask = self.before[place](*pair, **options)
            y, last = self._run(layer, x, mask, states[place * each : (place + 1) * each])
            ys.append(y)
            lasts += last
        y = ys[0] if len(ys) == 1 else self._merged(ys)
        return (y, *lasts) if self.return_state else y

    def _run(self, layer: Any, x: Any, mask: Mask, states: list[Pair]) -> tuple[Pair, list[Pair]]:
        x, mask = _check.pair(x, mask, type(layer).__name__, over_time=True, segments=False)
        carry = layer.initial_carry(x.shape[0])
        if states:
            given = [h.astype(jax.tree.leaves(carry)[0].dtype) for h, _ in states]
            carry = recurrent.LSTMCarry(*given) if len(given) == 2 else given[0]
        carry, (y, mask) = layer.run(carry, x, mask)
        if not self.return_sequences:
            y, out = pool.first(y, mask) if layer.reverse else pool.last(y, mask)
        else:
            # Alone, Keras returns reversed outputs in processing order; `Bidirectional` restores
            # time order.
            alone = layer.reverse and len(self.layers) == 1
            y, out = ops.flip(y, mask) if alone else (y, mask)
        rows: Any = masks.rows(mask)
        for _, row in states:
            rows = None if row is None or rows is None else rows | row
        parts = carry if isinstance(carry, tuple) else (carry,)
        return (y, out), [ops.fill(h.astype(x.dtype), rows) for h in parts]

    def _merged(self, pairs: list[Pair]) -> Pair:
        if self.merge == "concat":
            return merge.concatenate(*pairs)
        y, mask = (merge.multiply if self.merge == "mul" else merge.add)(*pairs)
        return (y / 2 if self.merge == "ave" else y), mask


class Elementwise(MultiInput):
    """A function of one tensor and constants, step by step."""

    def __init__(self, function: Callable[[Any], Array]):
        self.inside = nn.Passthrough(function)

    def _joined(self, *pairs: Pair, **options: Any) -> Pair:
        ((x, mask),) = pairs
        return self.inside(x, mask)
