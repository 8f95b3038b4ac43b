"""Other conventions for padding, converted to a mask and back."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._mask_ops import checked_bool, differs_from
from jaxmask._types import Array, ArrayLike, Mask, StepMask


def from_lengths(lengths: ArrayLike, time: int) -> StepMask:
    """Mark the first `lengths[b]` steps of each row.

        mask[b, t] = t < lengths[b]

    Args:
      lengths: `[batch]`, integer, in steps. Relative lengths, such as SpeechBrain's, are fractions:
        round them to counts first.
      time: the static number of steps of the padded row.

    Returns:
      `[batch, time]`, boolean.

    Raises:
      ValueError: if `lengths` is not of rank 1, or is a NumPy array (whose values can be checked
        without waiting for a device) with a value below 0 or above `time`.

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
    return jnp.arange(time)[None] < values[:, None]


def from_values(x: ArrayLike, padding_value: complex = 0) -> StepMask:
    """Mark the steps that hold anything but `padding_value`.

    For data that was padded without a mask. A real step that holds `padding_value` cannot be told
    from padding, which is why `jm.pad_sequences` returns its mask.

    Args:
      x: `[batch, time]`, one value per step, or `[batch, time, feature...]`, where a step is
        padding if all its features are `padding_value`.
      padding_value: the sentinel, such as 0 for token ids, -100 for labels, or nan.

    Returns:
      `[batch, time]`, boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_values(np.array([[7, 8, 0]])).tolist()
      [[True, True, False]]
    """
    values = _check.array(x, "x", "from_values")
    _check.number(padding_value, "from_values", "padding_value", real=False)
    if values.ndim < 2:
        raise ValueError(f"from_values: `x` must be [batch, time, ...], got shape {values.shape}.")
    real = _check.unfolded(x, differs_from(values, padding_value))
    return jnp.any(real, axis=tuple(range(2, values.ndim)))


def from_paddings(paddings: ArrayLike) -> StepMask:
    """Convert from the opposite polarity, 1 or True = padding.

    `optax.ctc_loss`, praxis and lingvo have float paddings, AXLearn, ESPnet and PyTorch's
    `key_padding_mask` boolean ones.

    Args:
      paddings: `[batch, time]`; boolean, integer or floating, 1 where the step is padding.

    Returns:
      `[batch, time]`, boolean, True where the step is real.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_paddings(np.array([[0.0, 0.0, 1.0]])).tolist()
      [[True, True, False]]
    """
    values = _steps_shaped(paddings, "paddings", "from_paddings")
    return ~values if values.dtype == jnp.bool_ else values == 0


def to_paddings(mask: Mask, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Convert to paddings, 1 = padding, as `optax.ctc_loss` takes them.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.
      dtype: of the result.

    Returns:
      `[batch, time]`, 1 where the step is padding and 0 where it is real.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.to_paddings(np.array([[True, False]])).tolist()
      [[0.0, 1.0]]
    """
    return (~checked_bool(mask, "to_paddings")).astype(dtype)


def from_attention_mask(attention_mask: ArrayLike) -> StepMask:
    """Convert from a tokenizer's `attention_mask`, 1 = real, as in Hugging Face.

    Args:
      attention_mask: `[batch, time]`; boolean, integer or floating, 0 where the step is padding.

    Returns:
      `[batch, time]`, boolean.

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
      ValueError: if an id is negative and not `padding_id`, where the host can read it.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_segments(np.array([[1, 1, 2, 0]])).tolist()
      [[True, True, True, False]]
    """
    values = _steps_shaped(ids, "ids", "from_segments")
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"from_segments: `ids` must be integers, got dtype {values.dtype}.")
    _check.number(padding_id, "from_segments", "padding_id")
    seen = _check.known(ids)
    if seen is not None and np.any((seen < 0) & (seen != padding_id)):
        raise ValueError(
            f"from_segments: `ids` must be {padding_id} (padding) or not negative, got "
            f"{seen.min()}. Pass `padding_id={seen.min()}` if that marks padding."
        )
    return values != padding_id


def from_offsets(offsets: ArrayLike, time: int) -> StepMask:
    """Convert from row offsets: row b has `offsets[b + 1] - offsets[b]` steps.

    Arrow, Awkward, PyTorch's jagged tensors and the `cu_seqlens` of flash attention have them.

    Args:
      offsets: `[batch + 1]`, integer, non-decreasing.
      time: the static number of steps of the padded row.

    Returns:
      `[batch, time]`, boolean, padded on the right.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.from_offsets(np.array([0, 2, 3]), time=2).tolist()
      [[True, True], [True, False]]
    """
    values = offsets if isinstance(offsets, np.ndarray) else _check.array(offsets, "offsets")
    if values.ndim != 1 or not values.shape[0]:
        raise ValueError(f"from_offsets: `offsets` must be [batch + 1], got shape {values.shape}.")
    if values.dtype.kind not in "iu":
        raise TypeError(f"from_offsets: `offsets` must be integers, got dtype {values.dtype}.")
    return from_lengths(values[1:] - values[:-1], time)


def _steps_shaped(x: ArrayLike, name: str, where: str) -> Array:
    values = _check.array(x, name, where)
    if values.ndim != 2:
        raise ValueError(f"{where}: `{name}` must be [batch, time], got shape {values.shape}.")
    return _check.unfolded(x, values)
