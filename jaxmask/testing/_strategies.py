"""Hypothesis strategies of ragged batches."""

import math
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np

from jaxmask import _check

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
    """Masks of ragged batches, with full rows, short rows and rows without a real step.

    Args:
      draw: passed by Hypothesis; leave it out.
      batch: the least and the greatest number of rows.
      time: the least and the greatest number of steps, padding included.
      layouts: where padding may be: "right", "left" or "holes". Name those that your function
        supports.

    Returns:
      A strategy of boolean NumPy arrays `[batch, time]`, which shrink to few and short rows.

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
      features: the shape of a step.
      dtype: floating (normal values), or integer (ids from 0 to `high - 1`, with 0 or a limit of
        the dtype in the padding).
      high: the number of ids.
      layouts: where padding may be, as in `masks`.
      poisons: what the padding of floating values may hold.
      draw, batch, time: as in `masks`.

    Returns:
      A strategy of pairs of NumPy arrays, `x [batch, time, *features]` and `mask [batch, time]`.

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
