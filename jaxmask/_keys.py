"""Random keys by row, by sequence, and by step."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks
from jaxmask._types import Array, ArrayLike, Mask, Segments


def row_keys(key: Array, x: Array, where: str, row_ids: ArrayLike | None = None) -> Array:
    """One random key a row, `[batch]`, by its id.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> row_keys(jax.random.key(0), jnp.zeros((2, 3)), "dropout").shape
      (2,)
    """
    ids = ids_of_rows(x, where, row_ids)
    key = _one_key(key, where)
    keys = jnp.broadcast_to(key, x.shape[:1])
    for part in range(ids.shape[1]):
        keys = jax.vmap(jax.random.fold_in)(keys, ids[:, part])
    return keys


def _one_key(key: Array, where: str) -> Array:
    if isinstance(key, jax.Array | np.ndarray):
        if key.dtype == jnp.uint32 and key.ndim == 1:  # of the old style, `PRNGKey`
            return jax.random.wrap_key_data(jnp.asarray(key))
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.ndim:
            return key
    raise TypeError(
        f"{where}: `key` must be one key, as `jax.random.key(0)` makes it, got "
        f"{_check.kind_of(key)}. Rows get keys of their own from it, by `row_ids`."
    )


def ids_of_rows(x: Array, where: str, row_ids: ArrayLike | None = None) -> Array:
    """What to call each row, `[batch, n]`: its place where None.

    A row of a document is named by two numbers, the document's and its own.

    Example:
      >>> import jax.numpy as jnp
      >>> ids_of_rows(jnp.zeros((2, 3)), "dropout").tolist()
      [[0], [1]]
    """
    rows = jnp.arange(x.shape[0]) if row_ids is None else _check.array(row_ids, "row_ids", where)
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise TypeError(f"{where}: `row_ids` must be integers, got dtype {rows.dtype}.")
    if rows.ndim not in (1, 2) or rows.shape[0] != x.shape[0]:
        raise ValueError(
            f"{where}: `row_ids` must be [batch] = {x.shape[:1]}, or [batch, n] for rows that "
            f"several numbers name, got {rows.shape}."
        )
    return rows.reshape(x.shape[0], -1 if rows.size else math.prod(rows.shape[1:]))


def sequence_keys(
    key: Array, x: Array, mask: Mask, where: str, row_ids: ArrayLike | None = None
) -> Array:
    """One random key a sequence: `[batch, 1]`, or `[batch, max_segments]` for packed rows.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> segments = jm.Segments(jnp.array([[1, 2, 3]]), max_segments=3)
      >>> sequence_keys(jax.random.key(0), jnp.zeros((1, 3)), segments, "dropout").shape
      (1, 3)
    """
    keys = row_keys(key, x, where, row_ids)
    if not isinstance(mask, Segments):
        return keys[:, None]
    number = jnp.arange(1, mask.max_segments + 1)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, number))(keys)


def at_steps(values: Array, mask: Mask) -> Array:
    """What is drawn for each sequence, at its steps.

    Args:
      values: `[batch, 1, ...]`, or `[batch, max_segments, ...]` for packed rows.
      mask: boolean, or `Segments`, or None.

    Returns:
      `[batch, time, ...]` for packed rows; `values` as they are otherwise, to be broadcast.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> at_steps(jnp.array([[7, 8]]), jm.Segments(jnp.array([[1, 2, 2]]), 2)).tolist()
      [[7, 8, 8]]
    """
    if not isinstance(mask, Segments):
        return values
    index = _mask_ops.expand(jnp.maximum(mask.ids - 1, 0), values.ndim)
    return jnp.take_along_axis(values, index, axis=1, mode="clip")


def at_features(values: Array, x: Array, mask: Mask) -> Array:
    """What is drawn for the last axis in each sequence, in a shape that selects in `x`.

    Args:
      values: `[batch, 1, feature]`, or `[batch, max_segments, feature]` for packed rows.
      x: `[batch, time, ..., feature]` or `[batch, ..., feature]`.
      mask: boolean, or `Segments`, or None.

    Example:
      >>> import jax.numpy as jnp
      >>> at_features(jnp.zeros((2, 1, 4)), jnp.zeros((2, 3, 5, 4)), None).shape
      (2, 1, 1, 4)
    """
    values = at_steps(values, mask)
    if x.ndim == 2:
        return values[:, 0]
    return jnp.expand_dims(values, tuple(range(2, x.ndim - 1)))


def step_keys(key: Array, x: ArrayLike, mask: Mask, *, row_ids: ArrayLike | None = None) -> Array:
    """One random key a step, the same for a real step whatever the padding.

        keys[b, t] = fold_in(fold_in(key, row_ids[b]), rank of t among the real steps of b)

    Args:
      key: a JAX random key.
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask: gives the shape.
      mask: boolean, or `Segments`, or None (then the first two axes are batch and time, or
        batch alone where `x` has only two axes or fewer).
      row_ids: `[batch]` or `[batch, n]`, integer: what to call each row; its place in the batch
        where None. Name
        rows by their index in the data set and their noise no longer depends on the batch.

    Returns:
      Keys `[batch, time]`, or `[batch]` for rows.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.
      TypeError, ValueError: if `row_ids` is not integer, or not `[batch]`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.zeros((1, 2, 3)), jnp.array([[False, True]])
      >>> late = jm.random.step_keys(jax.random.key(0), x, mask)[:, 1]
      >>> early = jm.random.step_keys(jax.random.key(0), x[:, :1], None)[:, 0]
      >>> bool((late == early).all())
      True
    """
    x, mask = _check.pair(x, mask, "step_keys")
    keys = row_keys(key, x, "step_keys", row_ids)
    if (x.ndim < 3) if mask is None else (mask.ndim == 1):
        return keys
    real = _mask_ops.real_steps(mask, x.shape[:2])
    each_step = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
    return each_step(keys, masks.positions(real))
