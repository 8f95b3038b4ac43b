"""Make, combine and ask about masks.

A mask is boolean, `[batch, time]`, True where the step is real. Everything else that the field
calls a mask is turned into that here, once: lengths, paddings (1 = pad), segment ids, row
offsets, 0/1 attention masks, sentinel values.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Shaped

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Ids, Lengths, Mask, RowMask, Segments, StepMask

__all__ = [
    "AttentionPredicate",
    "Segments",
    "both",
    "causal",
    "either",
    "expand",
    "from_attention_mask",
    "from_lengths",
    "from_offsets",
    "from_paddings",
    "from_segments",
    "from_values",
    "is_right_padded",
    "lengths",
    "of_each_segment",
    "positions",
    "rows",
    "same_segment",
    "steps",
    "to_attention_mask",
    "to_paddings",
    "window",
]

# --------------------------------------------------------------------------- making


def from_lengths(lengths: ArrayLike, time: int) -> StepMask:
    """Mark the first `lengths[b]` steps of each row.

        mask[b, t] = t < lengths[b]

    Args:
      lengths: `[batch]`, integer, in steps. SpeechBrain's relative lengths are fractions: turn
        them into counts first, rounding them your way.
      time: the static number of steps of the padded row.

    Returns:
      `[batch, time]`, boolean.

    Raises:
      TypeError: if `lengths` is not integer, or `time` is not a Python int.
      ValueError: if `lengths` is not of rank 1, or holds (in a NumPy array, where it can be
        seen without waiting for a device) a value below 0 or above `time`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_lengths(np.array([2, 0]), time=3).tolist()
      [[True, True, False], [False, False, False]]
    """
    where = "from_lengths"
    time = _check.count(time, where, "time")
    values = _check.array(lengths, "lengths", where)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(
            f"{where}: `lengths` must be integer counts of real steps, got dtype {values.dtype}."
        )
    if values.ndim != 1:
        raise ValueError(f"{where}: `lengths` must be [batch], got shape {values.shape}.")
    if isinstance(lengths, np.ndarray) and lengths.size:
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > time:
            raise ValueError(
                f"{where}: `lengths` must lie in 0..{time} (time), got {low}..{high}. "
                "Nothing is clipped."
            )
    return jnp.arange(time) < values[:, None]


def from_values(x: ArrayLike, padding_value: complex = 0) -> StepMask:
    """Mark the steps that hold anything but `padding_value`.

    Use it where padding was made without a mask; a real step that holds `padding_value` cannot be
    told from padding, which is why `jm.pad_sequences` returns its mask.

    Args:
      x: `[batch, time]`, where a step is one value, or `[batch, time, feature...]`, where a step is
        padding if all its features are `padding_value`.
      padding_value: the sentinel: 0 for token ids, -1 for Fairseq positions, -100 for labels, nan.

    Returns:
      `[batch, time]`, boolean.

    Raises:
      ValueError: if `x` has fewer than 2 axes.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_values(np.array([[7, 8, 0]])).tolist()
      [[True, True, False]]
    """
    values = _check.array(x, "x", "from_values")
    if values.ndim < 2:
        raise ValueError(f"from_values: `x` must be [batch, time, ...], got shape {values.shape}.")
    real = differs_from(values, padding_value)
    return jnp.any(real, axis=tuple(range(2, values.ndim)))


def differs_from(x: Shaped[Array, "*shape"], value: complex) -> Bool[Array, "*shape"]:
    """Elementwise `x != value`, with nan equal to nan.

    Example:
      >>> import jax.numpy as jnp
      >>> differs_from(jnp.array([jnp.nan, 1.0]), float("nan")).tolist()
      [False, True]
    """
    if value != value:  # nan
        return ~jnp.isnan(x)
    return x != value


def from_paddings(paddings: ArrayLike) -> StepMask:
    """Invert the other polarity: 1 (or True) = padding.

    `optax.ctc_loss`, praxis and lingvo have float paddings, AXLearn, ESPnet and PyTorch's
    `key_padding_mask` boolean ones.

    Args:
      paddings: `[batch, time]`; boolean, integer or floating, 1 where the step is padding.

    Returns:
      `[batch, time]`, boolean, True where the step is real.

    Raises:
      ValueError: if `paddings` is not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_paddings(np.array([[0.0, 0.0, 1.0]])).tolist()
      [[True, True, False]]
    """
    values = _steps_shaped(paddings, "paddings", "from_paddings")
    return ~values if values.dtype == jnp.bool_ else values == 0


def to_paddings(mask: Mask, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Write a mask as paddings, 1 = padding, as `optax.ctc_loss` takes them.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.
      dtype: of the result.

    Returns:
      `[batch, time]`, 1 where the step is padding and 0 where it is real.

    Raises:
      TypeError: if `mask` is not boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.to_paddings(np.array([[True, False]])).tolist()
      [[0.0, 1.0]]
    """
    return (~steps(mask)).astype(dtype)


def from_attention_mask(attention_mask: ArrayLike) -> StepMask:
    """Read a tokenizer's `attention_mask`, 1 = real, as Hugging Face makes it.

    Args:
      attention_mask: `[batch, time]`; boolean, integer or floating, 0 where the step is padding.

    Returns:
      `[batch, time]`, boolean.

    Raises:
      ValueError: if `attention_mask` is not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_attention_mask(np.array([[1, 1, 0]])).tolist()
      [[True, True, False]]
    """
    return _steps_shaped(attention_mask, "attention_mask", "from_attention_mask") != 0


def from_segments(ids: ArrayLike, padding_id: int = 0) -> StepMask:
    """Mark the steps that belong to any segment.

    Args:
      ids: `[batch, time]`, integer. 0 is padding in Grain, seqio and MaxText.
      padding_id: -1 for levanter.

    Returns:
      `[batch, time]`, boolean.

    Raises:
      TypeError: if `ids` is not integer.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_segments(np.array([[1, 1, 2, 0]])).tolist()
      [[True, True, True, False]]
    """
    values = _steps_shaped(ids, "ids", "from_segments")
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"from_segments: `ids` must be integers, got dtype {values.dtype}.")
    return values != padding_id


def from_offsets(offsets: ArrayLike, time: int) -> StepMask:
    """Read row offsets: row b holds `offsets[b + 1] - offsets[b]` steps.

    Arrow, Awkward, PyTorch's jagged tensors and the `cu_seqlens` of flash attention store them.

    Args:
      offsets: `[batch + 1]`, integer, not decreasing.
      time: the static number of steps of the padded row.

    Returns:
      `[batch, time]`, boolean, padded on the right.

    Raises:
      TypeError, ValueError: as `from_lengths`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_offsets(np.array([0, 2, 3]), time=2).tolist()
      [[True, True], [True, False]]
    """
    values = offsets if isinstance(offsets, np.ndarray) else _check.array(offsets, "offsets")
    if values.ndim != 1 or not values.shape[0]:
        raise ValueError(
            f"from_offsets: `offsets` must be [batch + 1], got shape {values.shape}."
        )
    return from_lengths(values[1:] - values[:-1], time)


def _steps_shaped(x: ArrayLike, name: str, where: str) -> Array:
    values = _check.array(x, name, where)
    if values.ndim != 2:
        raise ValueError(f"{where}: `{name}` must be [batch, time], got shape {values.shape}.")
    return values


# --------------------------------------------------------------------------- asking


def steps(mask: Mask) -> StepMask:
    """The boolean mask of a mask or of `Segments`.

    Args:
      mask: boolean, or `Segments`.

    Returns:
      Boolean, True where the step is real.

    Raises:
      TypeError: if `mask` is neither.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.steps(jm.Segments(np.array([[1, 2, 0]]), max_segments=2)).tolist()
      [[True, True, False]]
    """
    if isinstance(mask, Segments):
        return jnp.asarray(mask.ids) > 0
    return _check.boolean(mask, "masks")


def rows(mask: Mask) -> RowMask | None:
    """The row mask: True where a row (or a segment) has at least one real step.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      `[batch]`, or `[batch * max_segments]` for `Segments`; None for None.

    Raises:
      TypeError: if `mask` is not boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.rows(np.array([[True, False], [False, False]])).tolist()
      [True, False]
    """
    if mask is None:
        return None
    if isinstance(mask, Segments):
        return jnp.any(of_each_segment(mask), axis=2).reshape(-1)
    return jnp.any(steps(mask), axis=1)


def lengths(mask: Mask) -> Lengths:
    """Count the real steps of each row.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch]`, int32.

    Raises:
      TypeError: if `mask` is not boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.lengths(np.array([[True, True, False], [False, True, False]])).tolist()
      [2, 1]
    """
    return jnp.sum(steps(mask), axis=1, dtype=jnp.int32)


def is_right_padded(mask: Mask) -> RowMask:
    """True for each row whose real steps come first, without a hole.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch]`, boolean. Full and empty rows are right-padded.

    Raises:
      TypeError: if `mask` is not boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.is_right_padded(np.array([[True, False], [False, True]])).tolist()
      [True, False]
    """
    real = steps(mask)
    return jnp.all(real[:, :-1] | ~real[:, 1:], axis=1)


def positions(mask: Mask) -> Ids:
    """Rank of each real step among the real steps of its row, or of its segment.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch, time]`, int32: 0, 1, 2, ... at real steps, 0 at padding. Left padding and holes
      do not count, so a left-padded row has the positions of a right-padded one.

    Raises:
      TypeError: if `mask` is not boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.positions(np.array([[False, True, True]])).tolist()
      [[0, 0, 1]]
      >>> jm.masks.positions(jm.Segments(np.array([[1, 1, 2, 0]]), max_segments=2)).tolist()
      [[0, 1, 0, 0]]
    """
    if isinstance(mask, Segments):
        each = of_each_segment(mask)
        return jnp.sum(jnp.where(each, jnp.cumsum(each, axis=2, dtype=jnp.int32) - 1, 0), axis=1)
    real = steps(mask)
    return jnp.where(real, jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1, 0)


def of_each_segment(segments: Segments) -> Bool[Array, "batch segment time"]:
    """One boolean mask for each segment of each row.

    Args:
      segments: ids `[batch, time]`.

    Returns:
      `[batch, max_segments, time]`, boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.of_each_segment(jm.Segments(np.array([[1, 2, 0]]), max_segments=2)).tolist()
      [[[True, False, False], [False, True, False]]]
    """
    numbers = jnp.arange(1, segments.max_segments + 1)
    return jnp.asarray(segments.ids)[:, None, :] == numbers[:, None]


def expand(mask: Bool[Array, "*leading"], ndim: int) -> Bool[Array, "*leading_and_ones"]:
    """Give a mask trailing axes of 1, so that it selects in an array of rank `ndim`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.masks.expand(jnp.ones((2, 3), bool), 4).shape
      (2, 3, 1, 1)
    """
    return jnp.expand_dims(mask, tuple(range(mask.ndim, ndim)))


# ---------------------------------------------------------------- attention-mask algebra

AttentionPredicate: TypeAlias = Callable[
    [Int[Array, "query 1"], Int[Array, "1 key"]], Bool[Array, "*batch query key"]
]


def causal() -> AttentionPredicate:
    """A query sees itself and the keys before it.

    Returns:
      A predicate of query and key positions, to compose and to hand to `to_attention_mask`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.array([[True, True]])
      >>> jm.masks.to_attention_mask(mask, predicate=jm.masks.causal())[0, 0].tolist()
      [[True, False], [True, True]]
    """
    return lambda query, key: key <= query


def window(left: int, right: int = 0) -> AttentionPredicate:
    """A query sees keys from `left` positions before it to `right` positions after it.

    Args:
      left: positions before the query.
      right: positions after the query.

    Returns:
      A predicate of query and key positions.

    Raises:
      TypeError, ValueError: if one is not an int, or is negative.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.ones((1, 3), bool)
      >>> jm.masks.to_attention_mask(mask, predicate=jm.masks.window(1))[0, 0].tolist()
      [[True, False, False], [True, True, False], [False, True, True]]
    """
    left = _check.count(left, "window", "left")
    right = _check.count(right, "window", "right")
    return lambda query, key: (key >= query - left) & (key <= query + right)


def same_segment(query: Segments, key: Segments | None = None) -> AttentionPredicate:
    """A query sees the keys of its own segment, and padding sees nothing.

    Args:
      query: ids `[batch, query]`.
      key: ids `[batch, key]`; the query's own where None.

    Returns:
      A predicate with a batch axis: its ids are looked up by position.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> segments = jm.Segments(np.array([[1, 2, 2]]), max_segments=2)
      >>> own_past = jm.masks.both(jm.masks.same_segment(segments), jm.masks.causal())
      >>> jm.masks.to_attention_mask(np.ones((1, 3), bool), predicate=own_past)[0, 0].tolist()
      [[True, False, False], [False, True, False], [False, True, True]]
    """
    query_ids = jnp.asarray(query.ids)
    key_ids = query_ids if key is None else jnp.asarray(key.ids)

    def predicate(q: Array, k: Array) -> Array:
        left, right = query_ids[:, q[:, 0], None], key_ids[:, None, k[0]]
        return (left == right) & (left > 0)

    return predicate


def both(*predicates: AttentionPredicate) -> AttentionPredicate:
    """A query sees a key where every predicate allows it.

    Args:
      *predicates: at least one.

    Returns:
      The predicate that is their conjunction.

    Raises:
      ValueError: if there is none.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> near = jm.masks.both(jm.masks.causal(), jm.masks.window(1, 1))
      >>> jm.masks.to_attention_mask(np.ones((1, 3), bool), predicate=near)[0, 0].tolist()
      [[True, False, False], [True, True, False], [False, True, True]]
    """
    return _combined(jnp.logical_and, predicates, "both")


def either(*predicates: AttentionPredicate) -> AttentionPredicate:
    """A query sees a key where any predicate allows it.

    Args:
      *predicates: at least one.

    Returns:
      The predicate that is their disjunction.

    Raises:
      ValueError: if there is none.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> either = jm.masks.either(jm.masks.causal(), lambda query, key: key == 2)
      >>> jm.masks.to_attention_mask(np.ones((1, 3), bool), predicate=either)[0, 0].tolist()
      [[True, False, True], [True, True, True], [True, True, True]]
    """
    return _combined(jnp.logical_or, predicates, "either")


def _combined(
    join: Callable[[Array, Array], Array], predicates: tuple[AttentionPredicate, ...], where: str
) -> AttentionPredicate:
    if not predicates:
        raise ValueError(f"{where}: expected at least one predicate, got none.")

    def predicate(query: Array, key: Array) -> Array:
        result = predicates[0](query, key)
        for other in predicates[1:]:
            result = join(result, other(query, key))
        return result

    return predicate


def to_attention_mask(
    mask: Mask, kv_mask: Mask = None, *, predicate: AttentionPredicate | None = None
) -> Bool[Array, "batch 1 query key"]:
    """Spell out which key each query sees, as `nnx.MultiHeadAttention` and `jax.nn` take it.

        seen[b, 0, q, k] = mask[b, q] and kv_mask[b, k] and predicate(q, k)

    `Segments` see only their own segment. Padded queries see nothing: Flax and `jax.nn.dot_product_attention` give such a query the mean
    of all values, padding included: mask the result.

    Args:
      mask: `[batch, query]`, boolean, or `Segments`.
      kv_mask: `[batch, key]`; the query's own where None.
      predicate: of physical positions `[query, 1]` and `[1, key]`.

    Returns:
      `[batch, 1, query, key]`, boolean.

    Raises:
      TypeError: if a mask is not boolean.
      MaskError: if only one of the two is `Segments`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.to_attention_mask(np.array([[True, False]]))[0, 0].tolist()
      [[True, False], [False, False]]
    """
    queries = steps(mask)
    keys = queries if kv_mask is None else steps(kv_mask)
    seen = queries[:, :, None] & keys[:, None, :]
    if isinstance(mask, Segments) or isinstance(kv_mask, Segments):
        if not isinstance(mask, Segments) or isinstance(kv_mask, jax.Array | np.ndarray):
            raise _check.MaskError(
                "to_attention_mask: `mask` and `kv_mask` must both be `Segments` or both boolean: "
                "a boolean mask does not say which sequence of a packed row a step belongs to."
            )
        own = same_segment(mask, kv_mask)
        predicate = own if predicate is None else both(own, predicate)
    if predicate is not None:
        query, key = jnp.arange(queries.shape[1]), jnp.arange(keys.shape[1])
        seen = seen & predicate(query[:, None], key[None, :])
    return seen[:, None]
