"""Test your own masked functions: Hypothesis strategies of ragged batches, and what to assert.

    @hypothesis.given(jaxmask.testing.ragged_batches(features=(3,)))
    def test_my_layer(batch):
        jaxmask.testing.assert_lawful(my_layer, *batch)

Needs `hypothesis`, which `pip install jaxmask[testing]` brings.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, leak
from jaxmask._types import Mask

__all__ = ["assert_lawful", "assert_row_alone", "masks", "ragged_batches"]

LAYOUTS = ("right", "left", "holes")
POISONS = (0.0, math.nan, math.inf, -math.inf, 1e30)


@st.composite
def masks(
    draw: st.DrawFn,
    *,
    batch: tuple[int, int] = (1, 4),
    time: tuple[int, int] = (1, 6),
    layouts: Sequence[str] = LAYOUTS,
) -> np.ndarray:
    """Masks of ragged batches: full rows, short ones, and rows without a real step.

    Args:
      draw: Hypothesis gives it; leave it out.
      batch: the fewest and the most rows.
      time: the fewest and the most steps of the rectangle.
      layouts: where padding may lie: "right", "left", "holes". Name those that your function
        claims to take.

    Returns:
      A strategy of boolean NumPy arrays `[batch, time]`, which shrink to few and short rows.

    Raises:
      ValueError: if a layout is none of the three.

    Example:
      >>> import hypothesis, jaxmask as jm
      >>> @hypothesis.settings(max_examples=10, database=None, deadline=None)
      ... @hypothesis.given(jm.testing.masks(layouts=("right",)))
      ... def test(mask):
      ...     assert jm.masks.is_right_padded(mask).all()
      >>> test()
    """
    for layout in layouts:
        _check.choice(layout, LAYOUTS, "masks", "layouts")
    rows, steps = draw(st.integers(*batch)), draw(st.integers(*time))
    lengths = draw(st.lists(st.integers(0, steps), min_size=rows, max_size=rows))
    mask = np.arange(steps) < np.array(lengths, int).reshape(-1, 1)
    layout = draw(st.sampled_from(list(layouts)))
    if layout == "left":
        return mask[:, ::-1].copy()
    if layout == "holes":
        shuffled = [draw(st.permutations(range(steps))) for _ in range(rows)]
        return np.take_along_axis(mask, np.array(shuffled, int).reshape(mask.shape), axis=1)
    return mask


@st.composite
def ragged_batches(
    draw: st.DrawFn,
    *,
    features: tuple[int, ...] = (3,),
    dtype: Any = np.float32,
    high: int = 5,
    batch: tuple[int, int] = (1, 4),
    time: tuple[int, int] = (1, 6),
    layouts: Sequence[str] = LAYOUTS,
    poisons: Sequence[float] = POISONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Ragged batches `(x, mask)`, with nan, infinities or huge values in the padding.

    Args:
      draw: Hypothesis gives it; leave it out.
      features: the axes of a step.
      dtype: floating (normal values), or integer (ids from 0 to `high - 1`, 0 and the limits of the
        dtype in the padding).
      high: the number of ids.
      batch: the fewest and the most rows.
      time: the fewest and the most steps of the rectangle.
      layouts: where padding may lie, as in `masks`.
      poisons: what may stand in the padding of floating values.

    Returns:
      A strategy of pairs of NumPy arrays, `x [batch, time, *features]` and `mask [batch, time]`.

    Raises:
      ValueError: if a layout is none of the three.

    Example:
      >>> import hypothesis, numpy as np, jaxmask as jm
      >>> @hypothesis.settings(max_examples=10, database=None, deadline=None)
      ... @hypothesis.given(jm.testing.ragged_batches(features=()))
      ... def test(batch):
      ...     x, mask = batch
      ...     assert x.shape == mask.shape and np.isfinite(x[mask]).all()
      >>> test()
    """
    mask = draw(masks(batch=batch, time=time, layouts=layouts))
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (*mask.shape, *features)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        poison: Any = draw(st.sampled_from([0, limits.max, limits.min]))
        x = values.integers(0, high, shape).astype(dtype)
    else:
        poison = draw(st.sampled_from(list(poisons)))
        x = values.normal(size=shape).astype(dtype)
    with np.errstate(over="ignore"):
        x[~mask] = np.asarray(poison).astype(dtype)
    return x, mask


def assert_row_alone(
    fn: Callable[[Any, Any], tuple[Any, Mask]],
    x: np.ndarray,
    mask: np.ndarray,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Assert that each row of a batch gives what that row gives alone and unpadded.

    Args:
      fn: `(x, mask) -> (y, mask)`, over time or pooled.
      x: `[batch, time, ...]`.
      mask: `[batch, time]`, boolean.
      rtol: relative tolerance; shapes differ, so sums may be taken in another order. Integers and
        booleans must be equal.
      atol: absolute tolerance.

    Raises:
      AssertionError: with the row, if a row differs, or one without a real step has a real result.
      TypeError: if `fn` gives no pair with a boolean mask.

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
    """Assert that padding changes nothing: `assert_row_alone`, and the check of `jaxmask.leak`.

    The check also poisons the padding and reads the gradients; a batch without any real step has
    nothing for it to compare.

    Args:
      fn: `(x, mask) -> (y, mask)`, which `jax.jit` can trace.
      x: `[batch, time, ...]`.
      mask: `[batch, time]`, boolean.
      moves: as in `jaxmask.leak.check`: where padding may lie, for a function that promises more.

    Raises:
      AssertionError: if a row differs from that row alone, or padding leaks.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> x, mask = np.arange(6.0).reshape(2, 3), np.array([[True, True, False], [True] * 3])
      >>> jm.testing.assert_lawful(jm.pool.mean, x, mask, moves=("left", "holes"))
    """
    assert_row_alone(fn, x, mask)
    if np.asarray(mask).any():
        leak.assert_padding_invariant(fn, x, mask, moves=moves)


def _close(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> bool:
    """Within the tolerance, which ids and bits do not have."""
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
    if mask.ndim == 1:  # one value a row, or none
        y, mask = y[:, None], mask[:, None]
    y = np.asarray(y)
    # NumPy compares 16-bit floats of JAX only when they are wide; the rest stays what it is.
    wide = y.astype(np.float64) if jnp.issubdtype(y.dtype, jnp.floating) else y
    return [values[real] for values, real in zip(wide, mask, strict=True)]
