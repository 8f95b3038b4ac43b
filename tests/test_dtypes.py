"""What comes out in which dtype, against NumPy and each row alone."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm

DTYPES = ("bool", "int8", "int16", "int32", "uint8", "float16", "bfloat16", "float32")
MASK = np.array([[True, False, True, True, True], [False] * 5, [True, True, False, False, False]])
# Sequences 1 and 2 of the first row, 3 empty; the rest of the mask, in rows of their own.
IDS = np.array([[1, 0, 1, 2, 2], [0] * 5, [1, 1, 0, 0, 0]])


def merged(name):
    return lambda x, mask: getattr(jm.merge, name)((x, mask), (x, mask))


# A function, and what NumPy makes of a row alone.
POOLED = {
    "pool.sum": (jm.pool.sum, lambda r: r.sum(0)),
    "pool.mean": (jm.pool.mean, lambda r: r.mean(0)),
    "pool.max": (jm.pool.max, lambda r: r.max(0)),
    "pool.min": (jm.pool.min, lambda r: r.min(0)),
    "pool.first": (jm.pool.first, lambda r: r[0]),
    "pool.last": (jm.pool.last, lambda r: r[-1]),
}
BY_STEP = {
    "ops.cumsum": (jm.ops.cumsum, lambda r: r.cumsum(0)),
    "ops.flip": (jm.ops.flip, lambda r: r[::-1]),
    "ops.shift": (jm.ops.shift, lambda r: np.concatenate([np.zeros_like(r[:1]), r[:-1]])),
    "ops.compact": (jm.ops.compact, lambda r: r),
    "ops.fill": (jm.ops.fill, lambda r: r),
    "ops.each_step": (lambda x, m: jm.ops.each_step(lambda x: x, x, m), lambda r: r),
    "shape.upsample": (lambda x, m: jm.shape.upsample(x, m, 2), lambda r: r.repeat(2, 0)),
    "shape.pad": (lambda x, m: jm.shape.pad(x, m, (1, 1)), lambda r: r),
    "shape.flatten": (jm.shape.flatten, lambda r: r.reshape(-1)),
    "shape.reshape": (lambda x, m: jm.shape.reshape(x, m, (1, 2)), lambda r: r[:, None]),
    "shape.permute": (lambda x, m: jm.shape.permute(x, m, (0, 1, 2)), lambda r: r),
    "merge.add": (merged("add"), lambda r: r + r),
    "merge.subtract": (merged("subtract"), lambda r: r - r),
    "merge.multiply": (merged("multiply"), lambda r: r * r),
    "merge.average": (merged("average"), lambda r: np.mean([r, r], axis=0)),
    "merge.maximum": (merged("maximum"), lambda r: r),
    "merge.minimum": (merged("minimum"), lambda r: r),
    "merge.concatenate": (merged("concatenate"), lambda r: np.concatenate([r, r], axis=-1)),
}
BY_RANK = {  # these refuse or renumber the sequences of packed rows
    "shape.concatenate": (
        lambda x, m: jm.shape.concatenate((x, m), (x, m)),
        lambda r: np.concatenate([r, r]),
    ),
    "shape.crop": (lambda x, m: jm.shape.crop(x, m, (1, 0)), lambda r: r[1:]),
    "shape.split": (lambda x, m: jm.shape.split(x, m, 1)[0], lambda r: r),
    "shape.split_at": (lambda x, m: jm.shape.split_at(x, m, np.ones(3, int))[1], lambda r: r[1:]),
    "shape.take": (
        lambda x, m: jm.shape.take(x, m, np.array([[0, -1]] * 3)),
        lambda r: r[[0, -1]],
    ),
}
KINDS = {"none": None, "mask": jnp.asarray(MASK), "segments": jm.Segments(jnp.asarray(IDS), 2)}


def sequences(x, mask):
    """The real steps of each row, or of each sequence of a packed row."""
    if mask is None:
        return list(np.asarray(x))
    ids = np.asarray(mask.ids if isinstance(mask, jm.Segments) else mask).astype(int)
    parts = (row[at == n] for row, at in zip(np.asarray(x), ids, strict=True) for n in (1, 2))
    return [part for part in parts if len(part)]


def by_numpy(oracle, row):
    """NumPy's answer, with its 64 bits as the 32 that JAX has."""
    is_half = jnp.issubdtype(row.dtype, jnp.floating) and row.dtype.itemsize == 2
    if is_half:
        return oracle(row.astype(np.float64)).astype(row.dtype)
    y = oracle(row)
    return y.astype(
        {"int64": np.int32, "uint64": np.uint32, "float64": np.float32}.get(str(y.dtype), y.dtype)
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*POOLED, *BY_STEP, *BY_RANK])
def test_values_and_dtypes_are_those_of_numpy(name, dtype):
    function, oracle = {**POOLED, **BY_STEP, **BY_RANK}[name]
    # Such that a sum does not fit into eight bits.
    draw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 127, (3, 5, 2))
    x = np.asarray(jnp.asarray(draw).astype(dtype))
    if name == "merge.subtract" and dtype == "bool":
        with pytest.raises(TypeError, match="subtract: booleans"):
            function(x, None)
        return
    for kind, given in KINDS.items():
        if kind == "segments" and name in BY_RANK:
            continue
        y, mask = function(jnp.asarray(x), given)
        if name in POOLED:
            got = list(np.asarray(y)[... if mask is None else np.asarray(mask)])
        else:
            got = sequences(y, mask)
        with np.errstate(over="ignore"):
            want = [by_numpy(oracle, row) for row in sequences(x, given)]
        want = want if name in POOLED else [row for row in want if len(row)]
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype, kind
            # XLA divides by a count in its own way.
            np.testing.assert_allclose(*(n.astype(np.float64) for n in (a, b)), rtol=2e-7)
