"""Products of matrices: a result depends on a row of one operand and a column of the other."""

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import BITS, NONE, Value
from jaxmask.leak._proof.exact import whole
from jaxmask.leak._proof.interpret import Step, rule_for
from jaxmask.leak._rules.elementwise import where

Axes = tuple[tuple[int, ...], tuple[int, ...]]  # of the batch, contracted


@rule_for("dot_general")
def dot_general(step: Step) -> list[Value]:
    """Any taint along the contracted axes; in finite mode, not where it meets a known zero."""
    (contracted_a, contracted_b), (batch_a, batch_b) = step.params["dimension_numbers"]
    a, b = step.ins
    axes_a, axes_b = (batch_a, contracted_a), (batch_b, contracted_b)
    found = None
    if a.taint is not None:
        found = _one_side(step, a, b, (axes_a, axes_b), first=True)
    if b.taint is not None:
        other = _one_side(step, b, a, (axes_b, axes_a), first=False)
        found = other if found is None else found | other
    taint = None if found is None else np.broadcast_to(found, step.shape)
    result = Value(step.shape, taint=taint)
    if a.value is None and b.value is None:
        return [result]
    return [_known(step, result, (axes_a, axes_b))]


def _known(step: Step, result: Value, axes: tuple[Axes, Axes]) -> Value:
    """Known zeros in finite mode, and products of small whole numbers."""
    a, b = step.ins
    if step.finite or not jnp.issubdtype(step.dtype, jnp.inexact):
        there = [~_matrix(v.is_known(0), ax) for v, ax in zip(step.ins, axes, strict=True)]
        product = there[0].astype(np.float32) @ np.swapaxes(there[1], 1, 2).astype(np.float32)
        result = where(result, (product == 0).reshape(step.shape), 0, step.dtype)
    if a.value is not None and b.value is not None and a.all_known and b.all_known:
        matrices = [_matrix(v.value, ax) for v, ax in zip(step.ins, axes, strict=True)]  # type: ignore[arg-type]
        if all(np.all(whole(m) & np.isfinite(m)) for m in matrices):
            product = matrices[0] @ np.swapaxes(matrices[1], 1, 2)
            bound = np.abs(matrices[0]) @ np.swapaxes(np.abs(matrices[1]), 1, 2)
            certain = np.broadcast_to(whole(bound.astype(step.dtype)), bound.shape)
            shaped = product.astype(step.dtype).reshape(step.shape)
            return Value(step.shape, shaped + 0, certain.reshape(step.shape), result.taint)
    return result


def _one_side(
    step: Step, x: Value, other: Value, axes: tuple[Axes, Axes], *, first: bool
) -> np.ndarray:
    """What the taint of one operand does to the result."""
    batch = len(axes[0][0])
    _free_x, free_y = (
        len(v.shape) - batch - len(contracted)
        for v, (_, contracted) in zip((x, other), axes, strict=True)
    )
    zeros = other.is_known(0) if step.finite else None
    if zeros is None or not zeros.any():
        bits = step.over(x.taint, tuple(axes[0][1]))
        assert bits is not None
        bits = _ordered(bits, x, axes[0])
        shape = bits.shape[:batch]
        free = bits.shape[batch:]
        ones = (1,) * free_y
        return bits.reshape((*shape, *free, *ones) if first else (*shape, *ones, *free))
    bits = _beside_zeros(step, _matrix(x.bits, axes[0]), ~_matrix(zeros, axes[1]))
    sizes_x, sizes_y = (_free_sizes(v, ax) for v, ax in zip((x, other), axes, strict=True))
    lead = tuple(x.shape[k] for k in axes[0][0])
    if not first:
        return np.swapaxes(bits, 1, 2).reshape((*lead, *sizes_y, *sizes_x))
    return bits.reshape((*lead, *sizes_x, *sizes_y))


def _free_sizes(value: Value, axes: Axes) -> tuple[int, ...]:
    taken = (*axes[0], *axes[1])
    return tuple(size for k, size in enumerate(value.shape) if k not in taken)


def _ordered(bits: np.ndarray, x: Value, axes: Axes) -> np.ndarray:
    """The axes that are left, those of the batch first."""
    left = [k for k in range(len(x.shape)) if k not in axes[1]]
    order = [left.index(k) for k in axes[0]]
    order += [i for i, k in enumerate(left) if k not in axes[0]]
    return bits.transpose(order)


def _matrix(array: np.ndarray, axes: Axes) -> np.ndarray:
    """`[batch, free, contracted]`."""
    batch, contracted = axes
    free = [k for k in range(array.ndim) if k not in (*batch, *contracted)]
    moved = array.transpose(*batch, *free, *contracted)
    sizes = [
        int(np.prod([array.shape[k] for k in ks], dtype=int)) for ks in (batch, free, contracted)
    ]
    return moved.reshape(sizes)


def _beside_zeros(step: Step, bits: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The union of `bits[b, i, k]` over the k for which `present[b, j, k]`."""
    there = np.swapaxes(present, 1, 2).astype(np.float32)
    found = np.zeros((*bits.shape[:2], present.shape[1]), BITS)
    used = int(np.bitwise_or.reduce(bits, axis=None)) if bits.size else 0
    for k in range(used.bit_length()):
        if used >> k & 1:
            has = (bits & BITS(1 << k)) != 0
            found |= np.where(has.astype(np.float32) @ there > 0, BITS(1 << k), NONE)
    causes = step.machine.causes
    if causes is None:
        return found
    raw = causes.raw_in(bits)
    partly = ((~raw).astype(np.float32) @ there > 0) & (raw.astype(np.float32) @ there > 0)
    return step.mixed(found, partly)
