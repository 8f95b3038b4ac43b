"""Arrays outside of any program, made and moved by NumPy.

JAX compiles a program for each shape that is broadcast, reshaped or transposed op by op, which is a
third of all programs that tests compile; no bit of the results depends on it. It does so here too
where it looks for nan and inf on the way.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding


def move_by_numpy() -> None:
    for name, move in MOVES.items():
        primitive = getattr(jax.lax, f"{name}_p")
        primitive.def_impl(functools.partial(_apply, primitive.impl, move))


def _apply(usual: Callable, move: Callable, *operands: jax.Array, **how) -> jax.Array:
    looks = jax.config.jax_debug_nans or jax.config.jax_debug_infs
    if looks or not all(map(_is_plain, operands)) or not _is_the_same(*operands, **how):
        return usual(*operands, **how)
    with np.errstate(all="ignore"):
        return jax.device_put(np.array(move(*map(np.asarray, operands), **how)))


def _is_plain(x) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return True
    if not isinstance(x, jax.Array):  # a number of Python with a dtype
        return False
    is_of_keys = jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    return not is_of_keys and isinstance(x.sharding, SingleDeviceSharding)


def _is_the_same(x, *others, sharding=None, weak_type=False, new_dtype=None, **how) -> bool:
    """Whether NumPy's result is JAX's, whose integers of large floats differ."""
    if sharding is not None or weak_type or (getattr(x, "weak_type", False) and new_dtype is None):
        return False
    if new_dtype is None or np.issubdtype(x.dtype, np.integer):
        return True
    return x.dtype.itemsize <= 4 and not jax.numpy.issubdtype(new_dtype, np.integer)


def _broadcast(x, *, shape, broadcast_dimensions, **_):
    sizes = dict(zip(broadcast_dimensions, x.shape, strict=True))
    return np.broadcast_to(x.reshape([sizes.get(axis, 1) for axis in range(len(shape))]), shape)


def _reshape(x, *, new_sizes, dimensions=None, **_):
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _convert(x, *, new_dtype, **_):
    return x.astype(new_dtype)


def _slice_at(x, *starts, slice_sizes):
    last = np.subtract(x.shape, slice_sizes)
    places = zip(np.clip([int(n) for n in starts], 0, last), slice_sizes, strict=True)
    return x[tuple(slice(start, start + size) for start, size in places)]


MOVES = {
    "convert_element_type": _convert,
    "dynamic_slice": _slice_at,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "squeeze": lambda x, *, dimensions: x.squeeze(dimensions),
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
}
