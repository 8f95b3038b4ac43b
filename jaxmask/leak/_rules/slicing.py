"""Slices and padding. A start that is unknown may be anywhere along its own axis, and no other."""

import functools
from typing import Any

import numpy as np

from jaxmask.leak._numpy import pad_array
from jaxmask.leak._proof.domain import Value, join, union
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for("pad")
def pad(step: Step) -> list[Value]:
    """A constant around and between elements; negative amounts cut."""
    x, fill = step.ins
    padded = functools.partial(pad_array, config=step.params["padding_config"])
    taint = value = known = None
    if x.taint is not None or fill.taint is not None:
        taint = padded(x.bits, fill.bits)
    if x.value is not None or fill.value is not None:
        zero = np.zeros((), step.dtype)
        value = padded(
            np.broadcast_to(zero if x.value is None else x.value, x.shape),
            zero if fill.value is None else fill.value,
        )
        known = padded(x.where_known, fill.where_known)
    return [Value(step.shape, value, known, taint)]


@rule_for("dynamic_slice")
def dynamic_slice(step: Step) -> list[Value]:
    """A part that begins where operands say."""
    x, *starts = step.ins
    sizes = step.params["slice_sizes"]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        x = _part(step, x, start, axis, size)
    return [x]


def _part(step: Step, x: Value, start: Value, axis: int, size: int) -> Value:
    whole = x.shape[axis]
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    if size == whole:
        return x
    if start.value is not None and start.all_known:
        first = int(np.clip(int(start.value), 0, whole - size))
        part = (slice(None),) * axis + (slice(first, first + size),)
        return x.moved(lambda a: a[part], shape)
    return widened(step, x, axis, size).with_taint(union(shape, (start.taint,)))


def widened(step: Step, x: Value, axis: int, size: int) -> Value:
    """Any `size` elements along an axis: known only where they are all the same."""
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    taint = step.over(x.taint, (axis,))
    if taint is not None:
        taint = np.broadcast_to(np.expand_dims(taint, axis), shape)
    return Value(shape, taint=taint)


@rule_for("dynamic_update_slice")
def dynamic_update_slice(step: Step) -> list[Value]:
    """A part replaced, which begins where operands say."""
    x, update, *starts = step.ins
    region: list[slice] = []
    certain = True
    taint = union((), (start.taint for start in starts))
    for axis, start in enumerate(starts):
        size, whole = update.shape[axis], x.shape[axis]
        if size == whole:
            region.append(slice(None))
        elif start.value is not None and start.all_known:
            first = int(np.clip(int(start.value), 0, whole - size))
            region.append(slice(first, first + size))
        else:
            region.append(slice(None))
            update, certain = widened(step, update, axis, whole), False
    if not certain:
        part = x.moved(lambda a: a[tuple(region)], update.shape)
        update = join([part, update])
        update = update.with_taint(union(update.shape, (taint,)))
    return [replaced(x, tuple(region), update, step.dtype)]


def replaced(x: Value, region: tuple[slice, ...], update: Value, dtype: Any) -> Value:
    """An array with a part of it replaced."""
    taint = value = known = None
    if x.taint is not None or update.taint is not None:
        taint = np.array(x.bits)
        taint[region] = update.bits
    if x.value is not None or update.value is not None:
        value = np.zeros(x.shape, dtype) if x.value is None else np.array(x.value)
        known = np.array(x.where_known)
        value[region] = 0 if update.value is None else update.value
        known[region] = update.where_known
    return Value(x.shape, value, known, taint)
