"""Sorting: known leading keys say where everything goes, and ties join among themselves."""

import numpy as np

from jaxmask.leak._proof.domain import NONE, Value, same_bits
from jaxmask.leak._proof.exact import is_nan
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for("sort")
def sort(step: Step) -> list[Value]:
    """Each lane along the axis is sorted by the leading keys that are known in all of it."""
    axis, count = step.params["dimension"], step.params["num_keys"]
    length = step.shape[axis]
    turned = [_turned(value, axis) for value in step.ins]
    if not step.ins[0].size:
        return [Value(value.shape) for value in step.ins]
    usable = _usable_keys(turned, count)
    order, group = _order(turned, usable, length)
    by_key: np.ndarray | None = None  # what decides the order within a tie
    exact = np.full(len(group), step.params["is_stable"]) & (usable == count)
    for index in range(count):
        matters = usable <= index
        if (taint := turned[index].taint) is not None:
            bits = np.where(matters[:, None], taint, NONE)
            by_key = bits if by_key is None else by_key | bits
    return [_sorted(step, value, order, group, exact, by_key) for value in turned]


def _turned(value: Value, axis: int) -> Value:
    """`[lane, place]`."""
    shape, length = value.shape, value.shape[axis]

    def turned(a: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.broadcast_to(a, shape), axis, -1).reshape(-1, length)

    return value.moved(turned, (value.size // max(length, 1), length))


def _usable_keys(turned: list[Value], count: int) -> np.ndarray:
    """For each lane, how many leading keys are known in all of it."""
    lanes = turned[0].shape[0]
    usable, going = np.zeros(lanes, int), np.ones(lanes, bool)
    for value in turned[:count]:
        known = value.where_known.all(1)
        if value.value is not None:
            known = known & ~is_nan(value.value).any(1)
        going = going & known
        usable += going
    return usable


def _order(turned: list[Value], usable: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each lane, the order by its usable keys, and the number of the tie at each place."""
    lanes = len(usable)
    order = np.broadcast_to(np.arange(length), (lanes, length)).copy()
    group = np.zeros((lanes, length), int)
    for lane in range(lanes):
        keys = [turned[k].value[lane] for k in range(usable[lane])]  # type: ignore[index]
        if keys:
            order[lane] = np.lexsort(keys[::-1])
            changed = np.zeros(length, bool)
            for key in keys:
                placed = key[order[lane]]
                changed[1:] |= placed[1:] != placed[:-1]
            group[lane] = np.cumsum(changed)
    return order, group


def _sorted(
    step: Step,
    value: Value,
    order: np.ndarray,
    group: np.ndarray,
    exact: np.ndarray,
    by_key: np.ndarray | None,
) -> Value:
    def placed(a: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.broadcast_to(a, order.shape), order, 1)

    taint = None if value.taint is None else placed(value.taint)
    keys = None if by_key is None else placed(by_key)
    known = placed(value.where_known) if value.value is not None else None
    values = placed(value.value) if value.value is not None else None
    if not exact.all():
        taint = _within_ties(step, taint, keys, group, exact)
        if known is not None and values is not None:
            known = known & (exact[:, None] | _agree(values, known, group))
            if taint is not None:
                taint = np.where(known, NONE, taint)
    return _back(step, values, known, taint)


def _starts(group: np.ndarray) -> np.ndarray:
    """Where ties begin, in the flat array."""
    lanes, length = group.shape
    flat = (group + np.arange(lanes)[:, None] * length).reshape(-1)
    return np.flatnonzero(np.diff(flat, prepend=-1))


def _spread(per_tie: np.ndarray, starts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    sizes = np.diff(starts, append=int(np.prod(shape, dtype=int)))
    return np.repeat(per_tie, sizes).reshape(shape)


def _within_ties(
    step: Step,
    taint: np.ndarray | None,
    keys: np.ndarray | None,
    group: np.ndarray,
    exact: np.ndarray,
) -> np.ndarray | None:
    """All elements of a tie get the bits of all, and of the keys that may order them."""
    if taint is None and keys is None:
        return None
    own = np.zeros(group.shape, np.uint64) if taint is None else taint
    both = own if keys is None else own | keys
    starts = _starts(group)
    joined = _spread(np.bitwise_or.reduceat(both.reshape(-1), starts), starts, group.shape)
    causes = step.machine.causes
    if causes is not None:
        raw = causes.raw_in(both).reshape(-1)
        some, every = (f.reduceat(raw, starts) for f in (np.logical_or, np.logical_and))
        joined = step.mixed(joined, _spread(some & ~every, starts, group.shape))
    sizes = _spread(np.diff(starts, append=group.size), starts, group.shape)
    alone = exact[:, None] | (sizes == 1)
    return np.where(alone, own, joined)


def _agree(values: np.ndarray, known: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Where all elements of a tie are known and equal."""
    starts = _starts(group)
    first = _spread(values.reshape(-1)[starts], starts, group.shape)
    equal = (known & same_bits(values, first)).reshape(-1)
    return _spread(np.logical_and.reduceat(equal, starts), starts, group.shape)


def _back(
    step: Step, values: np.ndarray | None, known: np.ndarray | None, taint: np.ndarray | None
) -> Value:
    axis, shape = step.params["dimension"], step.shape
    lanes = np.moveaxis(np.broadcast_to(0, shape), axis, -1).shape

    def back(a: np.ndarray | None) -> np.ndarray | None:
        return None if a is None else np.moveaxis(a.reshape(lanes), -1, axis)

    return Value(shape, back(values), back(known), back(taint))
