"""Arrays of the caller as NumPy arrays, checked."""

from typing import Any

import numpy as np

from jaxmask import _check
from jaxmask._types import Segments


def to_numpy(x: Any, name: str, where: str) -> np.ndarray:
    """`x` as a NumPy array; `_check.array` would move it to a device, turning 64 bits into 32."""
    if not hasattr(x, "__array__"):
        raise TypeError(
            f"{where}: `{name}` must be a NumPy or JAX array, got {type(x).__name__}. Pass "
            f"`np.asarray({name})`; a list of sequences goes to `jm.pad_sequences`."
        )
    if np.ma.is_masked(x):
        raise _check.MaskError(
            f"{where}: `{name}` is a NumPy masked array, whose mask `np.asarray` drops, so the "
            "steps that it hides would be real. Leave those steps out, or pass `.data`, with the "
            "mask `~np.ma.getmaskarray(...)` if the function takes one."
        )
    return np.asarray(x)


def numpy_pair(
    x: Any, mask: Any, where: str, *, name: str = "x"
) -> tuple[np.ndarray, np.ndarray | None]:
    """`_check.pair` over time for NumPy, without `Segments`."""
    x = to_numpy(x, name, where)
    if x.ndim < 2:
        raise ValueError(f"{where}: `{name}` must be [batch, time, ...], got shape {x.shape}.")
    if isinstance(mask, Segments):
        _check.refuse_segments(where)
    if mask is None:
        return x, None
    real = to_numpy(mask, "mask", where)
    _check.boolean_dtype(real.dtype, where, "mask")
    _check.belongs(real, x, (2,), where, name)
    return x, real
