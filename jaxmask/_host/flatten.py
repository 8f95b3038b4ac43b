"""From sequences of any kind to flat values and row offsets, the layout of Arrow and Awkward."""

import array
import contextlib
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxmask._host import exact
from jaxmask._host.arrays import to_numpy
from jaxmask._host.ragged import Ragged, check_ragged, from_arrow, is_arrow
from jaxmask._host.rectangle import are_long


def flatten(sequences: Iterable[Any], dtype: DTypeLike | None, where: str) -> Ragged:
    """The steps of all sequences, back to back.

    A row is a list, a tuple, an array `[n, feature...]` or another ordered iterable of steps;
    `Ragged` and Arrow columns of lists are read without a copy for each row. Rows without a step do
    not influence the dtype and the feature axes of the others. With `dtype=None`, ints in lists are
    int32 where all of them fit, else int64; other lists have NumPy's dtype for them; rows of
    several dtypes have `np.result_type`; without any step it is the dtype of the arrays, or
    float32.
    """
    return joined(read_rows(sequences, dtype, where))


class Rows(NamedTuple):
    """Rows of different lengths, each where it was: at least one array `[n, feature...]`.

    All have one dtype and the same feature axes; `offsets [batch + 1]` accumulate their lengths.
    """

    rows: Sequence[np.ndarray]
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """`[batch]`, int64, in steps."""
        return np.diff(self.offsets)


def read_rows(sequences: Iterable[Any], dtype: DTypeLike | None, where: str) -> Rows | Ragged:
    """Read all sequences; long ones and arrays stay apart, so that no step is copied twice."""
    target = None if dtype is None else np.dtype(dtype)
    if isinstance(sequences, Ragged) or is_arrow(sequences):
        if isinstance(sequences, Ragged):
            flat = check_ragged(sequences.values, sequences.offsets, where)
        else:
            flat = from_arrow(sequences, where)
        return Ragged(
            exact.cast(flat.values, target, step_names(flat.offsets), where), flat.offsets
        )
    rows = _rows(sequences, where)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
    in_arrays = any(issubclass(kind, np.ndarray) for kind in set(map(type, rows)))
    long_lists = are_long(np.diff(offsets)) and target != np.object_
    if in_arrays or long_lists:
        return Rows(_apart(rows, offsets, target, where), offsets)
    return Ragged(_from_lists(rows, offsets, target, where), offsets)


def read_values(values: Any, dtype: DTypeLike | None, where: str) -> Ragged:
    """One value for each record, of any shape, as sequences of one step."""
    if not isinstance(values, list):
        values = to_numpy(values, "sequences", where)
    offsets = np.arange(len(values) + 1)
    target = None if dtype is None else np.dtype(dtype)
    if isinstance(values, list):
        return Ragged(_from_lists([values], offsets, target, where), offsets)
    return Ragged(exact.cast(values, target, step_names(offsets), where), offsets)


def joined(read: Rows | Ragged) -> Ragged:
    """Concatenate the rows, if they are apart."""
    return read if isinstance(read, Ragged) else Ragged(np.concatenate(read.rows), read.offsets)


# ------------------------------------------------------------------------------- rows


def _rows(sequences: Any, where: str) -> list[Any]:
    """Every row as a list, a tuple or an array with a time axis."""
    if isinstance(sequences, jax.Array):
        sequences = np.asarray(sequences)  # else each row is copied from the device on its own
    if not is_ordered(sequences):
        raise TypeError(
            f"{where}: `sequences` must be an iterable of rows, such as a list of lists or of "
            f"arrays, got {_described(sequences)}."
        )
    rows = listed(sequences, "after {} rows of `sequences`", where)
    kinds = set(map(type, rows))
    if kinds <= {list, tuple}:
        return rows
    if kinds == {np.ndarray} and min(map(_rank, rows)) > 0:
        return rows
    return [_row(row, index, where) for index, row in enumerate(rows)]


def read_row(
    row: Any, index: int, like: np.ndarray | None, dtype: np.dtype | None, where: str
) -> np.ndarray:
    """Read one sequence of a stream, whose dtype and feature axes are those of the first.

    `like` is an array `[0, feature...]` of the dtype of the stream; None before the first row that
    has a step.
    """
    asked = like.dtype if dtype is None and like is not None else dtype
    if (
        like is not None
        and type(row) is np.ndarray
        and row.dtype == like.dtype == asked
        and row.ndim
        and row.shape[1:] == like.shape[1:]
    ):
        return row  # the common case
    row = _row(row, index, where)
    if not len(row) and like is not None:
        return like
    if not len(row) and not isinstance(row, np.ndarray):
        return np.zeros(0, np.float32)
    given = isinstance(row, np.ndarray)
    found = row if given else _read(row, dtype, _in_row(index), where)
    if dtype is None and like is not None and given and found.dtype != like.dtype:
        raise TypeError(
            f"{where}: `sequences[{index}]` has dtype {found.dtype}, and those before it "
            f"{like.dtype}. A stream has one: pass `dtype=`."
        )
    if like is not None and found.shape[1:] != like.shape[1:]:
        names = [f"a step of {name}" for name in ("the rows before", f"`sequences[{index}]`")]
        _refuse_shapes([like, found], names, where)
    if like is not None and found.dtype == like.dtype == asked:
        return found
    return exact.cast(found, asked, _in_row(index), where)


def is_ordered(value: Any) -> bool:
    """Whether a value has steps in order; a dict, a set and a string have none."""
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        return False
    return getattr(value, "ndim", 1) > 0


def _row(row: Any, index: int, where: str) -> Any:
    if not is_ordered(row):
        mend = "Make it a list of steps first."
        if not isinstance(row, Iterable) or isinstance(row, np.ndarray):
            mend = "One sequence alone is a batch of one row: `[sequence]`."
        raise TypeError(
            f"{where}: `sequences[{index}]` must be a row, an ordered iterable of steps, got "
            f"{_described(row)}. {mend}"
        )
    if isinstance(row, list | tuple):
        return row
    if hasattr(row, "__array__"):
        return to_numpy(row, f"sequences[{index}]", where)
    return listed(row, f"in `sequences[{index}]`, after {{}} steps", where)


def listed(items: Iterable[Any], where_in: str, where: str) -> list[Any]:
    """A list of the items; an error raised while reading them gets a note that says where."""
    found: list[Any] = []
    try:
        found.extend(items)
    except Exception as error:
        error.add_note(f"{where}: this was raised {where_in.format(len(found))}.")
        raise
    return found


def _described(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def step_names(offsets: np.ndarray) -> exact.NameOf:
    """Name a flat index by its row and step, for error texts."""

    def name(index: int) -> str:
        row = int(np.searchsorted(offsets, index, side="right")) - 1
        return f"step {index - offsets[row]} of `sequences[{row}]`"

    return name


def _in_row(row: int) -> exact.NameOf:
    return lambda index: f"step {index} of `sequences[{row}]`"


# ----------------------------------------------------------------------------- values


def _from_lists(
    rows: Sequence[Any], offsets: np.ndarray, dtype: np.dtype | None, where: str
) -> np.ndarray:
    steps = list(itertools.chain.from_iterable(rows))
    name_of = step_names(offsets)
    if not steps:
        return exact.cast(np.zeros(0, np.float32), dtype, name_of, where)
    return exact.cast(_read(steps, dtype, name_of, where), dtype, name_of, where)


def _apart(
    rows: Sequence[Any], offsets: np.ndarray, dtype: np.dtype | None, where: str
) -> Sequence[np.ndarray]:
    """Every row as an array of one dtype, copied only if its dtype changes."""
    decisive = _decisive(rows, offsets)
    parts = rows if len(decisive) == len(rows) else [rows[index] for index in decisive]
    if set(map(type, parts)) != {np.ndarray}:
        parts = [
            part if isinstance(part, np.ndarray) else _read(part, dtype, _in_row(index), where)
            for index, part in zip(decisive, parts, strict=True)
        ]
    if set(map(_rank, parts)) != {1} and len({part.shape[1:] for part in parts}) > 1:
        _refuse_shapes(parts, [f"a step of `sequences[{index}]`" for index in decisive], where)
    parts = _of_one_dtype(parts, decisive, dtype, where)
    if len(parts) == len(rows):
        return parts
    every = [parts[0][:0]] * len(rows)
    for index, part in zip(decisive, parts, strict=True):
        every[index] = part
    return every


def _of_one_dtype(
    parts: Sequence[np.ndarray], decisive: Sequence[int], dtype: np.dtype | None, where: str
) -> Sequence[np.ndarray]:
    dtypes = set(map(_dtype, parts))
    numbers = all(map(exact.is_number, dtypes))
    if dtypes == {dtype} or (dtype is None and numbers and len(dtypes) == 1):
        return parts
    target = _common(dtypes, where) if dtype is None and numbers else dtype
    return [
        exact.cast(part, target, _in_row(index), where)
        for index, part in zip(decisive, parts, strict=True)
    ]


_rank, _dtype = operator.attrgetter("ndim"), operator.attrgetter("dtype")


def _decisive(rows: Sequence[Any], offsets: np.ndarray) -> list[int]:
    """The rows that decide dtype and feature axes: `np.array([])` would make ids floats."""
    filled: list[int] = np.flatnonzero(np.diff(offsets)).tolist()
    if filled:
        return filled
    arrays = [index for index, row in enumerate(rows) if isinstance(row, np.ndarray)]
    return [index for index in arrays if rows[index].ndim > 1] or arrays


def _common(dtypes: set[np.dtype], where: str) -> np.dtype:
    try:
        return np.result_type(*dtypes)
    except TypeError:
        names = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"{where}: the rows have the dtypes {names}, which NumPy cannot join. Pass `dtype=`."
        ) from None


def _read(
    steps: Sequence[Any], dtype: np.dtype | None, name_of: exact.NameOf, where: str
) -> np.ndarray:
    """Steps in a list as an array of their own dtype (object if that is asked for)."""
    if len(steps) and type(steps[0]) is int and dtype != np.object_:
        # Takes only integers in range, half as fast again as NumPy, which searches for a dtype.
        with contextlib.suppress(TypeError, OverflowError):
            return np.frombuffer(array.array("i", steps), np.intc)
    try:
        values = np.array(steps, dtype=object if dtype == np.object_ else None)
    except ValueError:
        _refuse_steps(steps, name_of, where)
    if values.dtype.kind in "OSU":
        # NumPy turns numbers beside strings into strings: read them again, to name the culprit.
        values = np.array(steps, dtype=object)
        if {list, tuple, np.ndarray} & set(map(type, values.flat)):
            _refuse_steps(steps, name_of, where)
        return values
    _check_ints(steps, values, dtype, name_of, where)
    if dtype is None and values.dtype == np.int64:
        limits = np.iinfo(np.int32)
        if limits.min <= values.min(initial=0) and values.max(initial=0) <= limits.max:
            return values.astype(np.int32)
    return values


def _check_ints(
    steps: Sequence[Any],
    values: np.ndarray,
    dtype: np.dtype | None,
    name_of: exact.NameOf,
    where: str,
) -> None:
    """NumPy reads ints beyond int64 as uint64, and beside smaller ones or floats as float64."""
    beyond_int64 = dtype is None and values.dtype == np.uint64
    rounded = values.dtype.kind in "fc" and np.any(np.abs(values) >= 2.0**53)
    if not beyond_int64 and not rounded:
        return
    objects = np.array(steps, dtype=object)
    for index, (value, read) in enumerate(zip(objects.flat, values.ravel().tolist(), strict=True)):
        if isinstance(value, int | np.integer) and (int(value) != read or int(value) >= 2**63):
            step = name_of(index * len(objects) // objects.size)
            raise ValueError(
                f"{where}: {step} is {value}. Ints in lists are read as int64, and as float64 "
                "where floats stand beside them; neither holds it exactly. Pass the rows as NumPy "
                "arrays of the type you need, such as np.uint64."
            )


def _refuse_steps(steps: Sequence[Any], name_of: exact.NameOf, where: str) -> NoReturn:
    for index, step in enumerate(steps):
        try:
            np.shape(step)
        except ValueError:
            raise ValueError(
                f"{where}: {name_of(index)} is ragged itself. Rows may differ in time only: pad "
                "the axes of each step to one size first."
            ) from None
    parts, names = [np.asarray([step]) for step in steps], [*map(name_of, range(len(steps)))]
    _refuse_shapes(parts, names, where)


def _refuse_shapes(parts: Sequence[np.ndarray], names: Sequence[str], where: str) -> NoReturn:
    shapes = [part.shape[1:] for part in parts]
    other = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
    raise ValueError(
        f"{where}: rows may differ in time only, but {names[0]} has shape {shapes[0]} and "
        f"{names[other]} has shape {shapes[other]}. Give every step the same feature axes."
    )
