"""A row function against `ragged_vmap` of it: the oracle is the function on each row alone."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm

FEATURES = 3
TIME = 5
LENGTHS = (5, 1, 0, 3)  # the full row, one step, nothing, and between


@dataclass(frozen=True)
class Row:
    """A function of one row, and how to try it.

    `f(x)` or `f(x, w)` with parameters `w [3, 3]`. `domain` makes the values of the input.
    """

    f: Callable[..., Any]
    min_length: int = 1
    multiple_of: int = 1
    domain: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] = field(
        default=lambda draw, shape: draw.normal(size=shape)
    )
    features: int | None = FEATURES
    second: bool = False  # takes a second argument of another length
    gradient: bool = True
    rtol: float = 3e-5
    lengths: tuple[int, ...] = LENGTHS


def positive(draw, shape):
    return draw.uniform(0.5, 2.0, size=shape)


def unit(draw, shape):
    return draw.uniform(-0.9, 0.9, size=shape)


def integers(draw, shape):
    return draw.integers(0, 4, size=shape)


def spaced(draw, shape):
    """No two values near each other, so that extremes and orders are differentiable."""
    return draw.permutation(np.prod(shape)).reshape(shape) / 4 - 3


def inputs(row: Row, lengths, time: int, seed: int):
    """A batch with nan in its padding, and its mask."""
    draw = np.random.default_rng(seed)
    shape = (len(lengths), time) + (() if row.features is None else (row.features,))
    x = np.asarray(row.domain(draw, shape))
    x = x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int32)
    mask = np.arange(time) < np.asarray(lengths)[:, None]
    x[~mask] = np.nan if x.dtype.kind == "f" else 10**6
    return x, mask


def weigh(y) -> jax.Array:
    """A sum of all float leaves, in which each place has its own weight, the same at any size."""
    total = jnp.zeros(())
    for leaf in jax.tree.leaves(y):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            angle = jnp.ones(leaf.shape)
            for axis in range(leaf.ndim):
                angle += (1.3 - 0.4 * axis) * jax.lax.broadcasted_iota(
                    jnp.float32, leaf.shape, axis
                )
            total += jnp.sum(jnp.real(leaf) * jnp.cos(angle))
    return total


def compare(row: Row, lengths=None, time: int = TIME, seed: int = 0) -> None:
    """Values, masks and gradients of the batch are those of each row alone."""
    lengths = lengths or row.lengths
    x, mask = inputs(row, lengths, time, seed)
    second = [inputs(row, lengths[::-1], time + 1, seed + 1)] if row.second else []
    w = np.random.default_rng(9).normal(size=(FEATURES, FEATURES)).astype(np.float32) / 2
    parameters = [w] if "w" in inspect.signature(row.f).parameters else []
    axes = (*[0] * (1 + len(second)), *[None] * len(parameters))
    g = jm.ragged_vmap(row.f, axes, min_length=row.min_length, multiple_of=row.multiple_of)
    taken = [b for b in range(len(lengths)) if _is_taken(row, b, mask, second)]
    arrays = [x, *(z for z, _ in second), *parameters]
    differentiated = row.gradient and all(a.dtype.kind == "f" for a in arrays)

    def ours(arrays, masks):
        extra = list(zip(arrays[1:], masks[1:], strict=False))
        y, real = g(arrays[0], masks[0], *extra, *arrays[1 + len(second) :])
        return jnp.sum(jax.vmap(weigh)(y)), (y, real)

    def alone(b, arrays):
        shared = arrays[1 + len(second) :]
        y = row.f(*_of_row(b, arrays, [mask, *(m for _, m in second)]), *shared)
        return weigh(y), y

    def everything(arrays, masks):  # masks that are arguments are not known when it is traced
        if not differentiated:
            return (ours(arrays, masks), None), [(alone(b, arrays), None) for b in taken]
        ours_all = jax.value_and_grad(ours, has_aux=True)(arrays, masks)
        of_rows = [
            jax.value_and_grad(lambda a, b=b: alone(b, a), has_aux=True)(arrays) for b in taken
        ]
        return ours_all, of_rows

    ((_, (y, real)), gradients), rows = jax.jit(everything)(arrays, [mask, *(m for _, m in second)])
    values = [value for (_, value), _ in rows]
    assert_rows(y, real, values, taken, len(lengths), row.rtol)
    if differentiated:
        total = [sum(parts) for parts in zip(*(g for _, g in rows), strict=True)]
        for k, (a, b) in enumerate(zip(gradients, total, strict=True)):
            assert np.all(np.isfinite(b)), "the row alone has no finite gradient"
            b = np.asarray(b)
            scale = max(1.0, float(np.max(np.abs(b), initial=0)))
            np.testing.assert_allclose(
                np.asarray(a) / scale, b / scale, rtol=row.rtol, atol=row.rtol, err_msg=f"grad {k}"
            )


def _is_taken(row: Row, b: int, mask, second) -> bool:
    lengths = [int(m[b].sum()) for m in [mask, *(m for _, m in second)]]
    return all(n >= row.min_length and n % row.multiple_of == 0 for n in lengths)


def _of_row(b, arrays, masks):
    return [a[b, : int(m[b].sum())] for a, m in zip(arrays, masks, strict=False)]


def assert_rows(y, real, values, taken, batch, rtol) -> None:
    """Real values first, 0 after, and a mask that says which is which."""
    for k, (leaf, mask) in enumerate(zip(jax.tree.leaves(y), jax.tree.leaves(real), strict=True)):
        leaf, mask = np.asarray(leaf), np.asarray(mask)
        assert mask.dtype == bool
        assert mask.shape == leaf.shape[: mask.ndim]
        expected, covered = np.zeros_like(leaf), np.zeros(leaf.shape, bool)
        for b, value in zip(taken, values, strict=True):
            alone = np.asarray(jax.tree.leaves(value)[k])
            place = (b, *(slice(0, size) for size in alone.shape))
            expected[place], covered[place] = alone, True
        missing = [b for b in range(batch) if b not in taken]
        assert not np.any(mask[missing])
        wide = np.broadcast_to(
            mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf.shape
        )
        np.testing.assert_array_equal(wide, covered, err_msg="mask")
        if leaf.dtype.kind in "fc":
            np.testing.assert_allclose(leaf, expected, rtol=rtol, atol=rtol, err_msg="value")
        else:
            np.testing.assert_array_equal(leaf, expected, err_msg="value")
