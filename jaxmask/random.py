"""Noise that padding cannot change.

Every draw is keyed by the row's id and the rank of the step among the row's real steps, so a real
step gets the same noise wherever the padding lies and however much of it there is.
"""

import jax
import jax.numpy as jnp

from jaxmask import _check, masks, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair

__all__ = ["dropout", "step_keys"]


def step_keys(key: Array, x: ArrayLike, mask: Mask, *, row_ids: ArrayLike | None = None) -> Array:
    """One random key a step, the same for a real step whatever the padding.

        keys[b, t] = fold_in(fold_in(key, row_ids[b]), rank of t among the real steps of b)

    Args:
      key: a JAX random key.
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask: gives the shape.
      mask: boolean, or `Segments`, or None (then the first two axes are batch and time, or
        batch alone where `x` has only two axes or fewer).
      row_ids: `[batch]`, integer: what to call each row; its place in the batch where None. Name
        rows by their index in the data set and their noise no longer depends on the batch.

    Returns:
      Keys `[batch, time]`, or `[batch]` for rows.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.
      ValueError: if `row_ids` is not `[batch]`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.zeros((1, 2, 3)), jnp.array([[False, True]])
      >>> late = jm.random.step_keys(jax.random.key(0), x, mask)[:, 1]
      >>> early = jm.random.step_keys(jax.random.key(0), x[:, :1], None)[:, 0]
      >>> bool((late == early).all())
      True
    """
    x, mask = _check.pair(x, mask, "step_keys")
    rows = jnp.arange(x.shape[0]) if row_ids is None else _check.array(row_ids, "row_ids")
    _check.shape(rows, x.shape[:1], "[batch]", "step_keys", "row_ids")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    if (x.ndim < 3) if mask is None else (mask.ndim == 1):
        return keys
    real = jnp.ones(x.shape[:2], bool) if mask is None else masks.steps(mask)
    each_step = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
    return each_step(keys, masks.positions(real))


def dropout(
    x: ArrayLike, mask: Mask, key: Array, rate: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Zero each feature with probability `rate` and scale the others by `1 / (1 - rate)`.

    Mask class: any. Extra padding changes no noise at a real step.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      key: a JAX random key.
      rate: static, from 0 (keep all) to 1 (drop all).
      row_ids: `[batch]`, integer: what to call each row, its place in the batch where None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `rate` is not within 0 and 1, or `mask` does not belong to `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 4)), jnp.array([[True, True, False]])
      >>> y, _ = jm.random.dropout(x, mask, jax.random.key(0), 0.5)
      >>> sorted(set(y[0, :2].ravel().tolist())), y[0, 2].tolist()
      ([0.0, 2.0], [0.0, 0.0, 0.0, 0.0])

    Source: Srivastava et al., 2014, jmlr.org/papers/v15/srivastava14a.html.
    """
    x, mask = _check.pair(x, mask, "dropout")
    _check.floating(x, "dropout")
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout: `rate` must lie within 0 and 1, got {rate}.")
    x, _ = ops.fill(x, mask)
    if rate == 0:
        return x, mask
    if rate == 1:
        return jnp.zeros_like(x), mask
    keys = step_keys(key, x, mask, row_ids=row_ids)
    features = x.shape[keys.ndim :]
    kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, features))(keys.reshape(-1))
    return jnp.where(kept.reshape(x.shape), x / (1 - rate), 0).astype(x.dtype), mask
