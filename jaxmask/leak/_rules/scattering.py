"""Scatters, element by element. An unknown index may be anywhere along its own axis."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import NONE, Value, same_bits
from jaxmask.leak._proof.exact import whole
from jaxmask.leak._proof.interpret import Step, rule_for
from jaxmask.leak._rules.gathering import Mode, Windows


@rule_for("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max")
def scatter(step: Step) -> list[Value]:
    """Windows put into an operand, or added to it, at places that the indices say."""
    x, indices, updates = step.ins
    windows = windows_of(step, x, updates)
    clip = Mode.from_any(step.params["mode"]) == Mode.CLIP
    places = windows.places(indices, clip=clip)
    if not places.certain.all():
        return [_anywhere(step, windows, places)]
    index = tuple(at[places.inside] for at in places.index)
    if not x.shape:
        index = ()
    put = np.zeros(x.shape, int)
    np.add.at(put, index, 1)
    bits = updates.bits
    if step.name == "scatter-add" and updates.known is not None:
        bits = np.where(updates.is_known(0), NONE, bits)
    by_index = windows.index_taint(step, indices)
    assert by_index is None or not by_index.any(), "what is known has no taint"
    taint = np.array(x.bits)
    if step.name == "scatter":
        taint[put > 0] = NONE
    np.bitwise_or.at(taint, index, bits[places.inside])
    taint = _mixed(step, x, taint, index, updates.bits[places.inside])
    value, known = _known(step, x, updates, (index, places.inside), put)
    return [Value(x.shape, value, known, taint)]


def windows_of(step: Any, x: Value, updates: Value) -> Windows:
    """How the updates lie in the operand."""
    numbers = step.params["dimension_numbers"]
    pairs = numbers.operand_batching_dims, numbers.scatter_indices_batching_dims
    return Windows.of(
        *(x.shape, updates.shape, numbers.update_window_dims, numbers.inserted_window_dims),
        *(numbers.scatter_dims_to_operand_dims, pairs),
    )


def _mixed(
    step: Step, x: Value, taint: np.ndarray, index: tuple[np.ndarray, ...], put: np.ndarray
) -> np.ndarray:
    """Where what was added holds padding, and what was there, or was added too, does not."""
    causes = step.machine.causes
    if causes is None or step.name == "scatter":
        return taint
    every = np.broadcast_to(True, x.shape).copy()
    np.logical_and.at(every, index, causes.raw_in(put))
    return step.mixed(taint, ~every)


Where = tuple[tuple[np.ndarray, ...], np.ndarray]


def _known(step: Step, x: Value, updates: Value, where: Where, put: np.ndarray) -> Any:
    """Values and where they are known."""
    index, inside = where
    start = np.zeros(x.shape, step.dtype) if x.value is None else np.array(x.value)
    new = np.broadcast_to(0, updates.shape) if updates.value is None else updates.value
    known = updates.where_known[inside]
    if step.name == "scatter":
        value = start.copy()
        value[index] = new[inside]
        # Of several at one place any may stay.
        equal = same_bits(value[index], new[inside].astype(value.dtype)) & known
        certain = np.where(put > 0, True, x.where_known)
        np.logical_and.at(certain, index, equal)
        return value, certain
    certain = np.array(x.where_known)
    if step.name not in ("scatter-add", "scatter-sub"):
        return start, certain & (put == 0)
    np.logical_and.at(certain, index, known)
    size = np.abs(start)
    np.add.at(size, index, np.abs(new[inside]).astype(size.dtype))
    np.add.at(start, index, (new[inside] if step.name == "scatter-add" else -new[inside]))
    if jnp.issubdtype(step.dtype, jnp.inexact):
        certain &= (put == 0) | (whole(size) & whole(start))
    return start, certain


def _anywhere(step: Step, windows: Windows, places: Any) -> Value:
    """Some index is unknown: its update may be anywhere along its axes."""
    x, indices, updates = step.ins
    bits = np.array(updates.bits)
    by_index = windows.index_taint(step, indices)
    if step.name == "scatter-add":
        bits = np.where(updates.is_known(0), NONE, bits)
        by_index = None if by_index is None else np.where(updates.is_known(0), NONE, by_index)
    if by_index is not None:
        bits = bits | by_index
    taint, touched = np.array(x.bits), np.zeros(x.shape, bool)
    unknown = [axis for axis in windows.starts if (places.index[axis] == x.shape[axis]).any()]
    ignored = updates.is_known(0) if step.name == "scatter-add" else np.zeros(updates.shape, bool)
    at = places.inside & ~ignored
    index = [np.where(i == n, 0, i)[at] for i, n in zip(places.index, x.shape, strict=True)]
    # Along an unknown axis all places share what may come to any of them.
    shape = [1 if axis in unknown else n for axis, n in enumerate(x.shape)]
    thin, hit = np.zeros(shape, taint.dtype), np.zeros(shape, bool)
    index = [np.zeros_like(i) if axis in unknown else i for axis, i in enumerate(index)]
    np.bitwise_or.at(thin, tuple(index), bits[at])
    hit[tuple(index)] = True
    taint = step.mixed(taint | thin, np.broadcast_to(True, x.shape))
    touched |= hit
    return Value(x.shape, x.value, x.where_known & ~touched, taint)
