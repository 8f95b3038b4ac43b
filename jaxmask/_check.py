"""Checks of arguments, with the error texts.

Ranks, shapes and dtypes are known when a function is traced, so the checks cost nothing at run time
and fail before any arithmetic. Values are checked only where the host already knows them (`known`).
"""

import operator
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxmask import _errors
from jaxmask._errors import MaskError as MaskError
from jaxmask._errors import kind_of as kind_of
from jaxmask._errors import name_of as name_of
from jaxmask._types import Array, ArrayLike, Mask, Segments

ACTIVATIONS = ("tanh", "relu", "sigmoid", "hard_sigmoid", "softsign", "linear")
METHODS = ("auto", "scan", "tiled", "dense", "pallas")  # of a recurrence


def array(x: Any, name: str = "x", where: str = "jaxmask") -> Array:
    """`x` as a JAX array; nothing but JAX and NumPy arrays is converted."""
    if isinstance(x, tuple) and len(x) == 2:
        raise TypeError(
            f"{where}: `{name}` must be an array, got a tuple. If it is a pair `(x, mask)`, "
            "unpack it: `f(*pair)`."
        )
    if not isinstance(x, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"{where}: `{name}` must be a JAX or NumPy array, got {kind_of(x)}. Lists of "
            "sequences become an array and its mask with `jm.pad_sequences`."
        )
    is_of_numpy = isinstance(x.dtype, np.dtype)  # keys of `jax.random` have a dtype of JAX
    if is_of_numpy and x.dtype.kind in "OSUMm":
        raise TypeError(
            f"{where}: `{name}` must hold numbers or booleans, got dtype {x.dtype}. JAX has no "
            "strings, times or objects: give them ids first."
        )
    return jnp.asarray(x)


def pair(
    x: Any,
    mask: Any,
    where: str,
    *,
    over_time: bool = False,
    segments: bool = True,
    name: str = "x",
    mask_name: str = "mask",
) -> tuple[Array, Mask]:
    """Check a pair by the mask rule, `mask.shape == x.shape[:mask.ndim]`, and return it.

    `where`, `name` and `mask_name` are for error texts: the function that checks, and its names of
    `x` and `mask`. A function with `over_time` mixes steps, so it takes no row mask; one without
    `segments` would mix sequences.
    """
    x = array(x, name, where)
    if mask is None:
        needed = 2 if over_time else 1
        if x.ndim < needed:
            axes = "[batch, time, ...]" if over_time else "[batch, ...]"
            raise ValueError(f"{where}: `{name}` must be {axes}, got shape {x.shape}.")
        return x, None
    if isinstance(mask, Segments):
        if not segments:
            refuse_segments(where)
        return x, _segments(x, mask, where, name)
    if x.dtype == np.bool_ and getattr(mask, "dtype", x.dtype) != np.bool_ and mask.ndim >= x.ndim:
        raise TypeError(
            f"{where}: `{mask_name}` must be boolean, got dtype {mask.dtype}, and `{name}` is "
            f"boolean: they look swapped. Pass `{name}` first, then its mask."
        )
    mask = boolean(mask, where, mask_name)
    belongs(mask, x, (2,) if over_time else (1, 2), where, name, mask_name)
    return x, mask


def known(x: ArrayLike) -> np.ndarray | None:
    """The values of `x` where the host can read them; None for tracers and for other processes."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None
    return np.asarray(x)


def belongs(
    mask: ArrayLike,
    x: ArrayLike,
    ranks: tuple[int, ...],
    where: str,
    name: str,
    mask_name: str = "mask",
) -> None:
    """The mask rule, `mask.shape == x.shape[:mask.ndim]`, with a mask of one of these ranks."""
    if mask.ndim not in ranks:
        _refuse_rank(mask, ranks, where, mask_name)
    if mask.shape != x.shape[: mask.ndim]:
        hint = "Nothing is broadcast: give one bool for each step"
        if x.ndim >= 2 and mask.shape == x.shape[1::-1]:
            hint = f"It looks transposed: pass `{mask_name}.T`, batch first"
        raise MaskError(
            f"{where}: `{mask_name}` must have the shape of the leading axes of `{name}`, "
            f"{x.shape[: mask.ndim]}, got {mask.shape}.\n{hint}, `[batch, time]`, True where it is "
            f"real. `{name}` has shape {x.shape}."
        )


def of_steps(mask: ArrayLike, where: str, name: str = "mask") -> None:
    """Refuse a row mask, which does not say which steps are real."""
    if mask.ndim != 2:
        _refuse_rank(mask, (2,), where, name)


def boolean(mask: Any, where: str, name: str = "mask") -> Array:
    """A boolean mask: floats, ints and lengths have other meanings elsewhere."""
    if not hasattr(mask, "dtype"):
        raise TypeError(
            f"{where}: `{name}` must be a boolean array, got {kind_of(mask)}. "
            f"{_errors.to_mask(mask, name)}"
        )
    checked = array(mask, name, where)
    boolean_dtype(checked.dtype, where, name)
    return unfolded(mask, checked)


def unfolded(given: ArrayLike, x: Array) -> Array:
    """`x` behind a barrier, so that XLA computes nothing of it while it compiles.

    A mask that a compiled function closes over is a constant of its program. XLA folds sums of
    constants in an interpreter, which takes seconds where the program takes milliseconds. What was
    made of an argument of the compiled function (`given` is a tracer) needs no barrier.
    """
    return x if isinstance(given, jax.core.Tracer) else _barrier(x)


# Compiled, since a call takes five times as long op by op.
_barrier = jax.jit(jax.lax.optimization_barrier, inline=True)


def boolean_dtype(dtype: np.dtype, where: str, name: str) -> None:
    """Refuse masks of numbers, of which there are several conventions."""
    if dtype != np.bool_:
        raise TypeError(
            f"{where}: `{name}` must be boolean, got dtype {dtype}. "
            f"{_errors.from_numbers(dtype.kind, name)}"
        )


def _refuse_rank(mask: ArrayLike, ranks: tuple[int, ...], where: str, name: str) -> NoReturn:
    meaning = {1: "1 (rows, `[batch]`)", 2: "2 (steps, `[batch, time]`)"}
    hint = "Give one bool for each step."
    if mask.ndim == 1:
        hint = "This function works over time; a row mask is what pooling returns."
    elif mask.ndim >= 3:
        hint = (
            "A mask marks steps, not features or heads. Documents of sentences, "
            "`[batch, outer, time]`, go through `jm.nn.TimeDistributed` or `jax.vmap`."
        )
    expected = " or ".join(meaning[rank] for rank in ranks)
    raise MaskError(
        f"{where}: `{name}` must have rank {expected}, got rank {mask.ndim} with shape "
        f"{mask.shape}. {hint}"
    )


def _segments(x: Array, segments: Segments, where: str, name: str) -> Segments:
    ids = array(segments.ids, "segments.ids", where)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(
            f"{where}: the ids of the mask, `Segments`, must be integers "
            f"(0 = padding), got dtype {ids.dtype}."
        )
    count(segments.max_segments, where, "max_segments")
    if ids.ndim != 2 or ids.shape != x.shape[:2]:
        raise MaskError(
            f"{where}: the ids of the mask, `Segments`, must have the shape of the "
            f"leading axes of `{name}`, {x.shape[:2]}, got {ids.shape}."
        )
    if isinstance(segments.ids, np.ndarray):
        _check_numbering(segments.ids, segments.max_segments, where)
    return Segments(unfolded(segments.ids, ids), segments.max_segments)


def _check_numbering(ids: np.ndarray, most: int, where: str) -> None:
    """NumPy ids are on the host, so their values can be checked: 1, 2, ... in each row."""
    for row, of_row in enumerate(ids):
        real = of_row[of_row != 0]
        runs = real[np.flatnonzero(np.diff(real, prepend=0))]
        if sorted(runs.tolist()) != list(range(1, len(runs) + 1)):
            raise MaskError(
                f"{where}: the ids of the mask, `Segments`, must number the sequences of "
                f"a row 1, 2, ... without a gap, each in one piece, got {runs.tolist()} in row "
                f"{row} (0 = padding)."
            )
        if len(runs) > most:
            raise MaskError(
                f"{where}: row {row} holds {len(runs)} sequences, and the mask, `Segments`, allows "
                f"{most}. Build it with `max_segments={len(runs)}` or more."
            )


def function(f: Any, where: str, name: str) -> None:
    if not callable(f):
        raise TypeError(f"{where}: `{name}` must be callable, got {kind_of(f)}.")


def refuse_segments(where: str) -> NoReturn:
    """For functions that would mix the sequences of a packed row."""
    raise MaskError(
        f"{where}: this function cannot respect `Segments`: it would mix the sequences of a row. "
        "Unpack the rows first, or pass a boolean mask if you mean to mix them."
    )


def features(x: Array, mask: Mask, where: str, *, axes: int = 1) -> None:
    """A feature axis after the axes of the mask, or after `axes` of them where it is None."""
    if x.ndim <= (axes if mask is None else mask.ndim):
        raise ValueError(
            f"{where}: `x` must have a feature axis, the last one, after the axes of the mask, "
            f"got shape {x.shape}. Pass `x[..., None]` if a step is one number."
        )


def floating(x: Array, where: str, name: str = "x") -> None:
    """Real floating point values only."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{where}: `{name}` must be floating point, got dtype {x.dtype}. "
            f"Pass `{name}.astype(jnp.float32)` if that is what you mean."
        )


def number(value: Any, where: str, name: str, *, real: bool = True) -> None:
    """One number for all of `x`: NumPy would broadcast an array from the last axis."""
    if not isinstance(value, int | float | complex | np.number | np.ndarray | jax.Array):
        raise TypeError(f"{where}: `{name}` must be a number, got {kind_of(value)}.")
    if jnp.ndim(value):
        raise ValueError(
            f"{where}: `{name}` must be one number, got an array of shape {jnp.shape(value)}."
        )
    if real and jnp.iscomplexobj(value):
        raise TypeError(f"{where}: `{name}` must be a real number, got a complex one.")


def positive(value: Any, where: str, name: str) -> None:
    """One number, above 0 where the host knows it."""
    number(value, where, name)
    if (seen := known(value)) is not None and not seen > 0:
        raise ValueError(f"{where}: `{name}` must be positive, got {seen}.")


def flag(value: Any, where: str, name: str) -> bool:
    """A switch that is known while the function is traced; any other object would count as True."""
    if not isinstance(value, bool | np.bool_):
        seen = _errors.got(value, repr(value))
        raise TypeError(f"{where}: `{name}` must be True or False, {seen}")
    return bool(value)


def ordered(x: Array, where: str, name: str = "x") -> None:
    """Values that have an order: all but complex numbers."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(
            f"{where}: `{name}` must be real, since complex numbers have no order, got dtype "
            f"{x.dtype}. Pass `{name}.real`, `{name}.imag` or `jnp.abs({name})`."
        )


def by_row_or_step(
    value: Any,
    x: Array,
    where: str,
    name: str,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    of: str = "x",
) -> Array:
    """A number for all of `x`, for each row, step or value, in a shape that broadcasts against `x`.

    `of` is what the function calls `x`.
    Axes are counted from the front, as those of a mask: `[batch]` means rows even where batch and
    time have the same size. NumPy's broadcasting would count from the back.
    """
    number = isinstance(value, bool | int | float | complex)
    value = value if number else array(value, name, where)
    if jnp.iscomplexobj(value) and dtype is not None and jnp.issubdtype(dtype, np.floating):
        raise TypeError(f"{where}: `{name}` must be real, got complex numbers.")
    value = jnp.asarray(value, dtype)
    if value.ndim == 0:
        return value
    if value.shape != x.shape and (value.ndim > 2 or value.shape != x.shape[: value.ndim]):
        raise ValueError(
            f"{where}: `{name}` must be one number, or have the shape of the leading axes of "
            f"`{of}` ({x.shape[:1]} by row, {x.shape[:2]} by step) or all of {x.shape}, got "
            f"{value.shape}. For one number per feature, pass "
            f"`jnp.broadcast_to({name}, {of}.shape)`."
        )
    return value.reshape(*value.shape, *[1] * (x.ndim - value.ndim))


def shape(x: Array, expected: tuple[int, ...], axes: str, where: str, name: str) -> None:
    """One exact shape, whose axes the text names."""
    if x.shape != expected:
        raise ValueError(f"{where}: `{name}` must be {axes} = {expected}, got {x.shape}.")


def choice(value: Any, options: Collection[Any], where: str, name: str) -> None:
    if value not in options:
        allowed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{where}: `{name}` must be one of {allowed}, got {value!r}.")


def activation(value: Any, where: str, name: str) -> None:
    """Of a recurrent layer: a name, or a function."""
    if isinstance(value, str):
        choice(value, ACTIVATIONS, where, name)
    else:
        function(value, where, name)


def axis(value: int, ndim: int, where: str, *, first: int = 0) -> int:
    """An axis from `first` on, counted from the front."""
    value = count(value, where, "axis", least=None)
    positive = value + (ndim if value < 0 else 0)
    if not first <= positive < ndim:
        raise ValueError(
            f"{where}: `axis` must name one of the axes {first} to {ndim - 1}, got {value}."
        )
    return positive


def count(value: Any, where: str, name: str, *, least: int | None = 0) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        seen = _errors.got(value, type(value).__name__)
        raise TypeError(f"{where}: `{name}` must be a Python int (shapes are static), {seen}")
    if least is not None and number < least:
        raise ValueError(f"{where}: `{name}` must be at least {least}, got {number}.")
    return number


def two_counts(value: Any, where: str, name: str, of: str, *, least: int = 0) -> tuple[int, int]:
    """Two static integers, of which `of` says what they are."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{where}: `{name}` must be a pair of ints ({of}), got {value!r}.")
    first, second = of.split(", ")
    return (
        count(value[0], where, f"{first}` of `{name}", least=least),
        count(value[1], where, f"{second}` of `{name}", least=least),
    )


def rows(value: Any, where: str) -> Any:
    """A number of rows, which `jax.export` may leave open."""
    return value if jax.export.is_symbolic_dim(value) else count(value, where, "batch")


def optional_count(value: Any, where: str, name: str, *, least: int = 0) -> int | None:
    """`count`, or None."""
    return None if value is None else count(value, where, name, least=least)


def window(value: Any, where: str) -> Any:
    """Of attention: one size, or one up to the query and one from it on; None is no bound."""
    if not isinstance(value, tuple | list):
        return optional_count(value, where, "window", least=1)
    if len(value) != 2:
        raise ValueError(
            f"{where}: `window` must be an int or a pair (up to the query, from it on), got "
            f"{value!r}."
        )
    left, right = (optional_count(n, where, "window", least=1) for n in value)
    return None if left is None and right is None else (left, right)


def static_number(value: Any, where: str, name: str) -> Any:
    """One number that is known while the function is traced."""
    number(value, where, name)
    if isinstance(value, jax.core.Tracer):
        seen = _errors.got(value, repr(value))
        raise TypeError(f"{where}: `{name}` must be known before the function is traced, {seen}")
    return value


def dropout_rate(value: Any, where: str, name: str = "dropout_rate") -> float:
    """A static probability below 1."""
    static_number(value, where, name)
    if not 0 <= value < 1:
        raise ValueError(f"{where}: `{name}` must lie from 0 to below 1, got {value}.")
    return value


def cache(value: Any, kind: type, where: str, name: str) -> None:
    """The carry of attention, which has its own type."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{where}: `{name}` must be `jm.attention.{kind.__name__}`, as `empty_cache` or "
            f"`initial_carry(batch)` makes it, got {kind_of(value)}."
        )


def pairs(values: Sequence[Any], where: str) -> None:
    """At least one pair `(x, mask)`."""
    if not values:
        raise ValueError(f"{where}: expected at least one pair `(x, mask)`, got none.")
    for position, value in enumerate(values):
        if not (isinstance(value, tuple) and len(value) == 2):
            raise TypeError(
                f"{where}: argument {position} must be a pair `(x, mask)`, got "
                f"{type(value).__name__}. Pass `(x, None)` where every step is real."
            )


def packed(masks: Sequence[Mask], where: str, names: str = "the masks") -> list[Segments]:
    """The masks of a call if they are `Segments`, else none; either all are or none is."""
    segments = [mask for mask in masks if isinstance(mask, Segments)]
    if 0 < len(segments) < len(masks):
        raise MaskError(
            f"{where}: {names} must all be `Segments`, or none of them: a boolean mask or None "
            "does not say which sequence of a packed row a step belongs to."
        )
    return segments
