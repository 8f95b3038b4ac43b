"""What the laws stand on: ragged contents, ways to pad them, and results read row by row.

The content of a row depends on the row's id and the rank of the step alone, and so does the
cotangent that is sent back, so the same row can be compared wherever it stands.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from tests.registry import Entry, Input

TIME = 5
LENGTHS = ((5, 4, 1, 0), (2, 0, 1, 2))  # of the first and of the second mask
LAYOUTS = ("right", "left", "holes")
BY_CLASS = {"any": LAYOUTS, "contiguous": ("right", "left"), "right": ("right",)}
FLOAT_POISONS = (1.7, 1e30, np.nan, np.inf, -np.inf)
LOUD = 1e3  # what is sent back into the padding of a result
ID_POISONS = (1, -1, 2**31 - 1, -(2**31))


def mask_of(lengths: tuple[int, ...], layout: str, time: int = TIME) -> np.ndarray:
    """`[batch, time]` with `lengths[b]` real steps a row."""
    mask = np.arange(time) < np.array(lengths, int).reshape(-1, 1)
    if layout == "left":
        return mask[:, ::-1]
    if layout == "holes":
        spread = np.zeros_like(mask)
        for row, length in enumerate(lengths):
            ranks = np.arange(length) + 0.7  # off the middle: what flips must show
            spread[row, (ranks * time / max(length, 1)).astype(int)] = True
        return spread
    return mask


def content(spec: Input, position: int, row: int, length: int) -> np.ndarray:
    """The real steps of one row of one argument."""
    draw = np.random.default_rng([position, row, 17])
    shape = (length, *spec.features)
    if spec.kind == "ids":
        return draw.integers(1, spec.high, shape).astype(np.int32)
    if spec.kind == "positive":
        return draw.uniform(0.5, 2, shape).astype(np.float32)
    if spec.kind == "probability":
        x = draw.uniform(0.1, 0.9, shape)
        return (x / x.sum(-1, keepdims=True) if spec.features else x).astype(np.float32)
    if spec.kind == "sign":
        return draw.choice([-1.0, 1.0], shape).astype(np.float32)
    return draw.normal(size=shape).astype(np.float32)


def arguments(
    entry: Entry,
    masks: list[np.ndarray],
    rows: Any,
    poison: int = 0,
    dtype: Any = np.float32,
) -> list[np.ndarray]:
    """The arrays of an entry, with one of the poisons of its kind in the padding."""
    arrays = []
    for position, spec in enumerate(entry.inputs):
        mask = masks[spec.mask]
        is_ids = spec.kind == "ids"
        fill = (ID_POISONS if is_ids else FLOAT_POISONS)[poison % (4 if is_ids else 5)]
        with np.errstate(over="ignore"):
            fill = np.asarray(fill).astype(np.int32 if is_ids else dtype)
        x = np.full((*mask.shape, *spec.features), fill)
        for b, row in enumerate(rows):
            x[b, mask[b]] = content(spec, position, int(row), int(mask[b].sum())).astype(x.dtype)
        arrays.append(x)
    return arrays


def masks_for(entry: Entry, layout: str, time: int = TIME, lengths=LENGTHS) -> list[np.ndarray]:
    """One mask for each mask that the entry has."""
    count = 1 + max(spec.mask for spec in entry.inputs)
    return [mask_of(lengths[k], layout, time) for k in range(count)]


# ------------------------------------------------------------------- values and gradients


def value_and_gradients(
    entry: Entry, params: Any, xs: list, masks: list, rows: Any, sent_by: list | None = None
) -> tuple[list, tuple]:
    """The pairs, and the gradients in `params` and in the floating arguments.

    `sent_by`: the masks that the cotangents go by, where those of the results are None.
    """
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in xs]

    def forward(params: Any, floats: list) -> tuple[list, list]:
        given = iter(floats)
        arrays = [next(given) if float_ else x for x, float_ in zip(xs, is_float, strict=True)]
        pairs = entry.call(params, arrays, masks, rows)
        return [y for y, _ in pairs if jnp.issubdtype(y.dtype, jnp.floating)], pairs

    floats = [x for x, float_ in zip(xs, is_float, strict=True) if float_]
    _, pull, pairs = jax.vjp(forward, params, floats, has_aux=True)
    sent_by = [mask for _, mask in pairs] if sent_by is None else sent_by
    sent = [
        cotangent(y, mask, rows)
        for (y, _), mask in zip(pairs, sent_by, strict=True)
        if jnp.issubdtype(y.dtype, jnp.floating)
    ]
    return pairs, pull(sent)


def flat_cotangent(y: jax.Array) -> jax.Array:
    return jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype)


def cotangent(y: jax.Array, mask: Any, rows: jax.Array) -> jax.Array:
    """A number for each real element, by row id, rank and feature; a loud one in the padding."""
    if not y.ndim:
        return jnp.ones((), y.dtype)
    if isinstance(mask, jm.Segments):
        row = jnp.take_along_axis(rows, jnp.maximum(mask.ids - 1, 0), axis=1)
        real, rank = jm.masks.as_bool(mask), jm.masks.positions(mask)
    elif mask is not None and mask.ndim == 2:
        row, rank, real = rows[:, None], jm.masks.positions(mask), mask
    else:
        row = rows.reshape(-1)
        rank, real = jnp.zeros_like(row), jnp.ones(row.shape, bool) if mask is None else mask
    angle = jnp.where(real, 1.0 + 3.0 * row + 5.0 * rank, 0.0)
    features = jnp.arange(np.prod(y.shape[angle.ndim :], dtype=int)).reshape(y.shape[angle.ndim :])
    angle = angle.reshape(*angle.shape, *[1] * features.ndim) + 7.0 * features
    real = real.reshape(*real.shape, *[1] * features.ndim)
    return jnp.where(real, jnp.cos(angle), LOUD).astype(y.dtype)


def direction(x: np.ndarray, mask: np.ndarray, spec: Input) -> np.ndarray | None:
    """A way to move the real steps of an argument; None for ids, and for what must stay put."""
    if spec.kind == "ids":
        return None
    draw = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    return np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), draw, 0)


# ------------------------------------------------------------------------- reading rows


def real_steps(y: Any, mask: Any) -> list[np.ndarray]:
    """The real part of each row: its steps in order, or its one value, or nothing."""
    y = np.asarray(y).astype(np.float64) if y.dtype == jnp.bfloat16 else np.asarray(y)
    if mask is None:
        return list(y[None]) if not y.ndim else list(y)
    if isinstance(mask, jm.Segments):
        numbers = range(1, mask.max_segments + 1)
        ids = np.asarray(mask.ids)
        return [y[b, ids[b] == s] for b in range(len(y)) for s in numbers]
    mask = np.asarray(mask)
    if mask.ndim == 1:
        return [y[b : b + 1] if mask[b] else y[:0] for b in range(len(y))]
    return [y[b, mask[b]] for b in range(len(y))]


def results_by_row(entry: Entry, result: tuple, masks: list) -> list[list[np.ndarray]]:
    """`[output or gradient][row]` of one evaluation."""
    pairs, (_, gradients) = result
    floats = [spec.mask for spec in entry.inputs if spec.kind != "ids"]
    inputs = zip(gradients, [masks[k] for k in floats], strict=True)
    return [real_steps(y, mask) for y, mask in [*pairs, *inputs]]


def assert_same_rows(ours: list, theirs: list, names: list[int], where: str, rtol=1e-5) -> None:
    """Row `names[i]` of `theirs` is row i of `ours`, in every output and every gradient."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        is_scalar = len(a) == 1 and len(names) > 1
        for i, name in [(0, 0)] if is_scalar else enumerate(names):
            np.testing.assert_allclose(
                np.asarray(a[i], np.float64),
                np.asarray(b[name], np.float64),
                rtol=rtol,
                atol=rtol,
                err_msg=f"{where}: result {number}, row {name}",
            )


def assert_close(ours: Any, theirs: Any, where: str, rtol: float = 1e-5) -> None:
    """Two pytrees agree to rounding."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=where)


def assert_bits(ours: Any, theirs: Any, where: str) -> None:
    """Two pytrees are equal to the bit."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=where)
