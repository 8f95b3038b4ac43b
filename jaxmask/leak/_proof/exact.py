"""Which results of floating point are certain to the bit.

XLA rewrites arithmetic (`b / c` becomes `b * (1 / c)`), so a float stays known only where every
order and every rewrite gives the same: whole numbers that are small enough, and infinities.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def is_float(array: np.ndarray) -> bool:
    """Whether an array is of floating point, complex or not."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def whole(array: np.ndarray) -> Any:
    """Where a number is whole and small, or infinite; True for integers."""
    if not is_float(array):
        return True
    if np.iscomplexobj(array):
        return whole(array.real) & whole(array.imag)
    largest = 2.0 ** jnp.finfo(array.dtype).nmant
    return ((array == np.round(array)) & (np.abs(array) <= largest)) | np.isinf(array)


def normal(array: np.ndarray) -> Any:
    """Where a number is not subnormal: a processor may take those for 0."""
    if not is_float(array) or np.iscomplexobj(array):
        return True
    return (array == 0) | ~(np.abs(array) < jnp.finfo(array.dtype).tiny)


def is_nan(array: np.ndarray) -> Any:
    return np.isnan(array) if is_float(array) else np.broadcast_to(False, array.shape)
