"""Random keys by row, by sequence, and by step, and what is drawn from them."""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _errors, _mask_ops, masks
from jaxmask._meshes import spread_like
from jaxmask._types import Array, ArrayLike, Mask, Segments


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SequenceIds:
    """The ids of rows that were packed into others, in the place of `row_ids`.

    Attributes:
      ids: `[packed rows, sequences, n]`, as `ids_of_rows` has them of one row.
    """

    ids: Array


# Who requires row ids, because it runs groups of rows in which an index names no row.
_requiring: contextvars.ContextVar[str] = contextvars.ContextVar("requiring", default="")


@contextlib.contextmanager
def ids_required(where: str) -> Iterator[None]:
    """Refuse noise whose rows are named by their index alone."""
    token = _requiring.set(where)
    try:
        yield
    finally:
        _requiring.reset(token)


def row_keys(key: Array, x: Array, where: str, row_ids: ArrayLike | None = None) -> Array:
    """One key for each row, `[batch]`, by its id."""
    return _folded(key, ids_of_rows(x, where, row_ids), where)


def _folded(key: Array, ids: Array, where: str) -> Array:
    """The key by each of the last axis of `ids` in turn."""
    *leading, columns = ids.shape
    keys = _one_key(key, where)
    for column in range(columns):
        fold = jax.vmap(jax.random.fold_in, in_axes=(0 if keys.ndim else None, 0))
        keys = fold(keys, ids[..., column].reshape(-1))
    return keys.reshape(leading)


def _one_key(key: Array, where: str) -> Array:
    if isinstance(key, jax.Array | np.ndarray):
        if key.dtype == jnp.uint32 and key.ndim == 1:  # of the old style, `PRNGKey`
            return jax.random.wrap_key_data(jnp.asarray(key))
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.ndim:
            return key
    raise TypeError(
        f"{where}: `key` must be one key, as `jax.random.key(0)` makes it, got "
        f"{_check.kind_of(key)}. Each row derives its own key from it, by `row_ids`."
    )


def ids_of_rows(x: Array, where: str, row_ids: ArrayLike | None = None) -> Array:
    """The ids of the rows, `[batch, n]`: several numbers may name one; its index where None."""
    if row_ids is None and _requiring.get():
        raise ValueError(
            f"{where}: inside `{_requiring.get()}` noise needs `row_ids`, since a group of rows "
            "has no index in the batch. Let the function take them, `def f(x, mask, row_ids)`, "
            "and pass them on."
        )
    if isinstance(row_ids, SequenceIds):
        raise ValueError(
            f"{where}: its noise is drawn for each row, and these rows hold several sequences "
            "packed by `skip_padding`. Leave `pack` False there."
        )
    rows = jnp.arange(x.shape[0]) if row_ids is None else _check.array(row_ids, "row_ids", where)
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise TypeError(f"{where}: `row_ids` must be integers, got dtype {rows.dtype}.")
    if rows.ndim not in (1, 2) or rows.shape[0] != x.shape[0]:
        raise ValueError(
            f"{where}: `row_ids` must be [batch] = {x.shape[:1]}, or [batch, n] for rows that "
            f"several numbers name, got {rows.shape}."
        )
    return rows.reshape(x.shape[0], -1 if rows.size else math.prod(rows.shape[1:]))


@_errors.refusing_pairs
def step_keys(key: Array, x: ArrayLike, mask: Mask, *, row_ids: ArrayLike | None = None) -> Array:
    """One random key for each step; padding does not change that of a real step.

        keys[b, t] = fold_in(fold_in(key, row_ids[b]), rank of t among the real steps of b)

    Args:
      key: a JAX random key.
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask: gives the shape.
      mask: boolean, or `Segments`, or None. With None, the first two axes of `x` are batch and
        time, or batch alone where `x` has at most two axes.
      row_ids: `[batch]` or `[batch, n]`, integer; the index in the batch where None. Pass the
        index in the data set, and the noise of a row does not depend on its batch.

    Returns:
      Keys `[batch, time]`, or `[batch]` for rows.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.zeros((1, 2, 3)), jnp.array([[False, True]])
      >>> left_padded = jm.random.step_keys(jax.random.key(0), x, mask)[:, 1]
      >>> unpadded = jm.random.step_keys(jax.random.key(0), x[:, :1], None)[:, 0]
      >>> bool((left_padded == unpadded).all())
      True
    """
    x, mask = _check.pair(x, mask, "step_keys")
    return keys_of_steps(key, x, mask, "step_keys", row_ids)


def keys_of_steps(
    key: Array, x: Array, mask: Mask, where: str, row_ids: ArrayLike | None = None
) -> Array:
    """`step_keys` for the function `where`, which has checked the pair."""
    if isinstance(row_ids, SequenceIds) and isinstance(mask, Segments):
        keys = at_steps(sequence_keys(key, x, mask, where, row_ids), mask)
        return jax.vmap(jax.vmap(jax.random.fold_in))(keys, masks.positions(mask))
    keys = row_keys(key, x, where, row_ids)
    if (x.ndim < 3) if mask is None else (mask.ndim == 1):
        return keys
    ranks = masks.positions(_mask_ops.real_steps(mask, x.shape[:2]))
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
    return spread_like((ranks,), fold, keys, ranks)


def sequence_keys(
    key: Array, x: Array, mask: Mask, where: str, row_ids: ArrayLike | None = None
) -> Array:
    """One key for each sequence: `[batch, 1]`, or `[batch, max_segments]` for packed rows."""
    if isinstance(row_ids, SequenceIds) and isinstance(mask, Segments):
        return _folded(key, row_ids.ids, where)
    keys = row_keys(key, x, where, row_ids)
    if not isinstance(mask, Segments):
        return keys[:, None]
    segment_ids = jnp.arange(1, mask.max_segments + 1)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, segment_ids))(keys)


def at_steps(values: Array, mask: Mask) -> Array:
    """Values `[batch, sequence, ...]` at the steps: `[batch, time, ...]`, or `[batch, 1, ...]`.

    An axis of 1, to be broadcast, is what rows of one sequence keep.
    """
    if not isinstance(mask, Segments):
        return values
    index = _mask_ops.expand(jnp.maximum(mask.ids - 1, 0), values.ndim)
    return jnp.take_along_axis(values, index, axis=1, mode="clip")


def at_features(values: Array, x: Array, mask: Mask) -> Array:
    """Values `[batch, sequence, feature]` in a shape that broadcasts against `x`."""
    values = at_steps(values, mask)
    if x.ndim == 2:
        return values[:, 0]
    return jnp.expand_dims(values, tuple(range(2, x.ndim - 1)))
