"""Small programs of JAX's own, run by NumPy.

Outside of `jax.jit` JAX compiles a program for each function of `jnp` and each shape, which is most
of the programs that tests compile. Where moving and correctly rounded arithmetic are all that a
program of JAX's does, NumPy's result is the same to the bit, and it is run here. What tests or the
package give to `jax.jit` themselves is compiled.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import pjit
from jax._src.interpreters import pxla

OFTEN = 100  # calls on arrays after which a program is compiled, since it then runs faster
LARGE = 100_000  # elements


def run_by_numpy() -> None:
    """To be called once; where a version of JAX has no such function, all programs are compiled."""
    if usual := getattr(pjit, "_pjit_call_impl_python", None):
        pjit._pjit_call_impl_python = functools.partial(_run, usual)


class _IsCompiled(Exception):
    """NumPy's result would not be, or is not known to be, that of a compiled program."""


_calls: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _run(usual: Callable, *args: Any, jaxpr: Any, **how: Any) -> tuple:
    if (calls := _calls.get(jaxpr)) is None:
        calls = 0 if _is_exact(jaxpr) else OFTEN
    _calls[jaxpr] = calls + any(isinstance(x, jax.Array) for x in args)
    is_here = jax.default_backend() == "cpu" and jax.config.jax_default_device is None
    if calls < OFTEN and is_here and all(map(_is_plain, args)):
        try:
            with np.errstate(all="ignore"):
                results = _evaluate(jaxpr, args)
                _refuse_what_debug_checks_find(results)
            arrays = [_array(y, aval) for y, aval in zip(results, jaxpr.out_avals, strict=True)]
            return arrays, None, None, []
        except _IsCompiled:
            _calls[jaxpr] = OFTEN
    return usual(*args, jaxpr=jaxpr, **how)


def _refuse_what_debug_checks_find(results: list[np.ndarray]) -> None:
    """JAX runs the program again, and says where."""
    finds = [(jax.config.jax_debug_nans, np.isnan), (jax.config.jax_debug_infs, np.isinf)]
    for is_on, find in finds:
        if is_on and any(_is_floating(y.dtype) and find(y).any() for y in results):
            raise _IsCompiled


@functools.cache
def _is_floating(dtype: np.dtype) -> bool:
    return jax.numpy.issubdtype(dtype, np.floating)


def _array(y: np.ndarray, aval: Any) -> jax.Array:
    device = jax.local_devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    return pxla.batched_device_put(aval, sharding, [np.array(y)], [device], committed=False)


def _is_plain(x: Any) -> bool:
    if not isinstance(x, jax.Array):
        return True
    is_here = x.sharding.device_set == {jax.local_devices()[0]} and not x.committed
    return is_here and x.size <= LARGE


def _is_exact(jaxpr: Any) -> bool:
    """Whether a program is JAX's own and consists of what is below."""
    if "/jax/_src/" not in jaxpr.jaxpr.debug_info.func_src_info or jaxpr.effects:
        return False
    names = set()
    for eqn in _equations(jaxpr):
        avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
        if eqn.primitive.name not in RUN or not all(map(_is_real, avals)):
            return False
        names.add(eqn.primitive.name)
        if eqn.primitive.name == "convert_element_type" and avals[0].dtype == bool:
            names.add("convert of bool")
    # XLA may round `a * b + c` once, and makes `mask * x` a choice, where 0 * inf is 0.
    is_rounded_once = not names.isdisjoint(PRODUCTS) and not names.isdisjoint(SUMS)
    is_choice = "convert of bool" in names and not names.isdisjoint({*PRODUCTS, "div"})
    return not is_rounded_once and not is_choice


def _is_real(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    is_number = isinstance(dtype, np.dtype) and dtype.kind != "c" and dtype != jax.dtypes.float0
    return is_number and aval.size <= LARGE


def _equations(jaxpr: Any) -> list:
    """Its equations and those inside of them."""
    return [e for eqn in jaxpr.eqns for e in (_equations(_inner(eqn)) if _inner(eqn) else [eqn])]


def _inner(eqn: Any) -> Any:
    return eqn.primitive.name in CALLS and (eqn.params.get("jaxpr") or eqn.params["call_jaxpr"])


def _evaluate(jaxpr: Any, args: Any) -> list[np.ndarray]:
    known: dict[Any, np.ndarray] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))

    def read(v: Any) -> np.ndarray:
        return np.asarray(v.val if hasattr(v, "val") else known[v], v.aval.dtype)

    known.update(zip(jaxpr.jaxpr.invars, args, strict=True))
    spread = {eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive.name == "broadcast_in_dim"}
    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if inner := _inner(eqn):
            results = _evaluate(inner, operands)
        else:
            name = eqn.primitive.name
            is_few = name == "div" and _is_of_few(eqn, spread)
            out = (_divide_by_few if is_few else RUN[name])(*operands, **eqn.params)
            results = out if eqn.primitive.multiple_results else [np.asarray(out)]
            if name not in MOVES:
                _refuse_subnormal(*operands, *results)
        for v, y in zip(eqn.outvars, results, strict=True):
            if y.dtype != v.aval.dtype or y.shape != v.aval.shape:
                raise _IsCompiled
            known[v] = y
    return [read(v) for v in jaxpr.jaxpr.outvars]


def _is_of_few(division: Any, spread: set) -> bool:
    """Whether the divisor is a constant, or is smaller than the quotient."""
    divisor, quotient = division.invars[1], division.outvars[0]
    if hasattr(divisor, "val"):
        return True
    return divisor in spread or divisor.aval.shape != quotient.aval.shape


def _refuse_subnormal(*arrays: np.ndarray) -> None:
    """XLA takes them for 0."""
    for x in arrays:
        if _is_floating(x.dtype):
            small = np.abs(x) < jax.numpy.finfo(x.dtype).tiny
            if (small & (x != 0)).any():
                raise _IsCompiled


# ------------------------------------------------------------------------------- primitives


def _broadcast(x, *, shape, broadcast_dimensions, **_):
    sizes = dict(zip(broadcast_dimensions, x.shape, strict=True))
    return np.broadcast_to(x.reshape([sizes.get(axis, 1) for axis in range(len(shape))]), shape)


def _reshape(x, *, new_sizes, dimensions=None, **_):
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _convert(x, *, new_dtype, **_):
    if _is_floating(x.dtype) and np.issubdtype(new_dtype, np.integer):
        raise _IsCompiled  # of large numbers and nan they differ
    if x.dtype.itemsize > 4 and _is_floating(np.dtype(new_dtype)):
        raise _IsCompiled  # rounded twice
    return x.astype(new_dtype)


def _slice(x, *, start_indices, limit_indices, strides):
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _places(x, starts, sizes):
    last = np.subtract(x.shape, sizes)
    places = zip(np.clip([int(n) for n in starts], 0, last), sizes, strict=True)
    return tuple(slice(start, start + size) for start, size in places)


def _slice_at(x, *starts, slice_sizes):
    return x[_places(x, starts, slice_sizes)]


def _update_at(x, update, *starts):
    x = x.copy()
    x[_places(x, starts, update.shape)] = update
    return x


def _iota(*, dtype, shape, dimension, **_):
    index = np.arange(shape[dimension], dtype=dtype)
    return _broadcast(index, shape=shape, broadcast_dimensions=(dimension,))


def _select(which, *cases, **_):
    if which.dtype != bool:
        raise _IsCompiled
    return np.where(which, cases[1], cases[0])


def _split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _pad(x, fill, *, padding_config):
    if any(low < 0 or high < 0 or inside for low, high, inside in padding_config):
        raise _IsCompiled
    widths = [(low, high) for low, high, _ in padding_config]
    return np.pad(x, widths, constant_values=fill)


def _gather(x, starts, *, dimension_numbers, slice_sizes, mode=None, **_):
    """Where no index is out of bounds."""
    how, batch = dimension_numbers, starts.shape[:-1]
    left_out = {*how.collapsed_slice_dims, *how.operand_batching_dims}
    taken = [d for d in range(x.ndim) if d not in left_out]
    offsets = dict(zip(taken, how.offset_dims, strict=True))
    rank = len(batch) + len(how.offset_dims)
    of_batch = [axis for axis in range(rank) if axis not in how.offset_dims]

    def spread(index, axes):
        sizes = dict(zip(axes, index.shape, strict=True))
        return index.reshape([sizes.get(axis, 1) for axis in range(rank)])

    index = [np.zeros([1] * rank, int) for _ in x.shape]
    for d, axis in offsets.items():
        index[d] = index[d] + spread(np.arange(slice_sizes[d]), [axis])
    for component, d in enumerate(how.start_index_map):
        start = starts[..., component].astype(int)
        if start.size and not (start.min() >= 0 and start.max() <= x.shape[d] - slice_sizes[d]):
            raise _IsCompiled
        index[d] = index[d] + spread(start, of_batch)
    batching = zip(how.operand_batching_dims, how.start_indices_batching_dims, strict=True)
    for d, axis in batching:
        index[d] = index[d] + spread(np.arange(x.shape[d]), [of_batch[axis]])
    shape = [0] * rank
    for axis, size in zip(of_batch, batch, strict=True):
        shape[axis] = size
    for d, axis in offsets.items():
        shape[axis] = slice_sizes[d]
    return np.broadcast_to(x[tuple(index)], shape)


def _barrier(*xs, **_):
    return list(xs)


MOVES = {
    "convert_element_type": _convert,
    "slice": _slice,
    "dynamic_slice": _slice_at,
    "dynamic_update_slice": _update_at,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "iota": _iota,
    "select_n": _select,
    "split": _split,
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "tile": lambda x, *, reps: np.tile(x, reps),
    "pad": _pad,
    "gather": _gather,
    "stage": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "optimization_barrier": _barrier,
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "squeeze": lambda x, *, dimensions: x.squeeze(dimensions),
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
}


def _plain(function: Callable) -> Callable:
    return lambda *xs, **_: function(*xs)


def _divide(x, y):
    if not _is_floating(x.dtype):
        raise _IsCompiled
    return np.divide(x, y)


def _divide_by_few(x, y):
    """XLA multiplies by the inverse."""
    if x.dtype != np.float32:
        raise _IsCompiled
    return x * (np.float32(1) / y)


def _power(x, *, y):
    if y != 2:
        raise _IsCompiled
    return x * x


def _round(x, *, rounding_method):
    if rounding_method != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise _IsCompiled
    return np.rint(x)


def _place(function: Callable) -> Callable:
    def find(x, *, axes, index_dtype):
        if not x.size or (x != x).any():
            raise _IsCompiled
        return function(x, axis=axes[0]).astype(index_dtype)

    return find


def _reduction(function: Callable) -> Callable:
    def reduce(x, *, axes, **_):
        if not x.size:
            raise _IsCompiled
        return function(x, axis=axes)

    return reduce


def _sum(x, *, axes, **_):
    if np.issubdtype(x.dtype, np.integer):
        return x.sum(axis=axes, dtype=x.dtype)
    if x.dtype != np.float32 or not x.size or any(x.shape[axis] > 32 for axis in axes):
        raise _IsCompiled  # XLA adds up to 32 elements one by one
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    added = x.transpose(*kept, *axes).reshape(*[x.shape[axis] for axis in kept], -1)
    return np.add.accumulate(added, -1)[..., -1] + np.float32(0)


def _cumsum_of_integers(x, *, axis, reverse):
    if not np.issubdtype(x.dtype, np.integer):
        raise _IsCompiled
    turned = np.flip(x, axis) if reverse else x
    total = np.cumsum(turned, axis, dtype=x.dtype)
    return np.flip(total, axis) if reverse else total


CALLS = {"jit", "pjit", "custom_jvp_call"}
PRODUCTS = {"mul", "square", "integer_pow"}
SUMS = {"add", "add_any", "sub", "reduce_sum"}
RUN = {
    **MOVES,
    "mul": _plain(np.multiply),
    "square": _plain(np.square),
    "integer_pow": _power,
    "add": _plain(np.add),
    "add_any": _plain(np.add),
    "sub": _plain(np.subtract),
    "div": _divide,
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "sqrt": _plain(np.sqrt),
    "floor": _plain(np.floor),
    "ceil": _plain(np.ceil),
    "sign": _plain(lambda x: np.where(x == 0, x, np.sign(x))),
    "round": _round,
    "argmax": _place(np.argmax),
    "argmin": _place(np.argmin),
    "max": _plain(np.maximum),
    "min": _plain(np.minimum),
    "eq": _plain(np.equal),
    "ne": _plain(np.not_equal),
    "lt": _plain(np.less),
    "le": _plain(np.less_equal),
    "gt": _plain(np.greater),
    "ge": _plain(np.greater_equal),
    "not": _plain(np.invert),
    "and": _plain(np.bitwise_and),
    "or": _plain(np.bitwise_or),
    "xor": _plain(np.bitwise_xor),
    "is_finite": _plain(np.isfinite),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reduce_and": _reduction(np.all),
    "reduce_or": _reduction(np.any),
    "reduce_sum": _sum,
    "cumsum": _cumsum_of_integers,
}
