"""Assertions on masked functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, leak
from jaxmask._types import Mask


def assert_row_alone(
    fn: Callable[[Any, Any], tuple[Any, Mask]],
    x: np.ndarray,
    mask: np.ndarray,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that each row of a batch gives the same as that row alone and unpadded.

    Args:
      fn: `(x, mask) -> (y, mask)`, over time or pooled.
      x: `[batch, time, ...]`.
      mask: `[batch, time]`, boolean.
      rtol: relative tolerance, since sums of other shapes may be taken in another order. Integers
        and booleans must be equal.
      atol: absolute tolerance.

    Raises:
      AssertionError: if a row differs, or a row without a real step has a real result.
      TypeError: if `fn` does not return a pair with a boolean mask.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> x, mask = np.arange(6.0).reshape(2, 3), np.array([[True, True, False], [True] * 3])
      >>> jm.testing.assert_row_alone(jm.ops.cumsum, x, mask)
      >>> try:
      ...     jm.testing.assert_row_alone(lambda x, mask: (x - x.mean(), mask), x, mask)
      ... except AssertionError as error:
      ...     print(str(error).splitlines()[0])
      row 0 of the batch is not that row alone
    """
    together = _real_rows(fn(x, mask))
    for row, real in enumerate(np.asarray(mask)):
        if not real.any():
            assert not len(together[row]), (
                f"row {row} has no real step, but the mask of the result marks "
                f"{len(together[row])} values of it as real."
            )
            continue
        alone = _real_rows(fn(x[row : row + 1, real], np.ones((1, int(real.sum())), bool)))[0]
        message = f"row {row} of the batch is not that row alone"
        assert together[row].shape == alone.shape, (
            f"{message}: it has shape {together[row].shape} in the batch, {alone.shape} alone."
        )
        if not _close(together[row], alone, rtol, atol):
            raise AssertionError(f"{message}\nin the batch: {together[row]}\nalone: {alone}")


def assert_lawful(
    fn: Callable[[Any, Any], tuple[Any, Mask]],
    x: np.ndarray,
    mask: np.ndarray,
    *,
    moves: tuple[str, ...] = (),
) -> None:
    """Assert that padding changes nothing, by `assert_row_alone` and `jaxmask.leak.check`.

    The latter also poisons the padding and compares gradients; it is left out for a batch without
    any real step, in which there is nothing to compare.

    Args:
      fn: `(x, mask) -> (y, mask)`, which `jax.jit` can trace.
      x: `[batch, time, ...]`.
      mask: `[batch, time]`, boolean.
      moves: as in `jaxmask.leak.check`: further layouts that the function supports.

    Raises:
      AssertionError: if a row differs from that row alone, or padding leaks.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> x, mask = np.arange(6.0).reshape(2, 3), np.array([[True, True, False], [True] * 3])
      >>> jm.testing.assert_lawful(jm.pool.mean, x, mask, moves=("left", "holes"))
    """
    assert_row_alone(fn, x, mask)
    if np.asarray(mask).any():
        leak.assert_padding_invariant(fn, x, mask, moves=moves, poison="all")


def _close(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> bool:
    """Equal within the tolerance, which integers and booleans do not have."""
    if a.dtype == b.dtype and a.dtype.kind in "biu":
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol, atol, equal_nan=True)


def _real_rows(pair: Any) -> list[np.ndarray]:
    """The real values of each row of a result."""
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(
            f"testing: the function must return a pair `(y, mask)`, got {_check.kind_of(pair)}."
        )
    y, mask = jax.device_get(pair)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError("testing: the mask of the result must be a boolean array.")
    if mask.ndim == 1:  # one value per row, or none
        y, mask = y[:, None], mask[:, None]
    y = np.asarray(y)
    # NumPy cannot compare JAX's 16-bit floats.
    wide = y.astype(np.float64) if jnp.issubdtype(y.dtype, jnp.floating) else y
    return [values[real] for values, real in zip(wide, mask, strict=True)]
