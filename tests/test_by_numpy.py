"""What NumPy runs of JAX's own programs gives what they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import by_numpy

X = (np.arange(-6, 6).reshape(3, 4) * 1.37).astype(np.float32)
WITH_NAN = np.where(X > 5, np.nan, np.where(X < -7, np.inf, np.where(X > 4, 1e10, X)))
DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "bool")
ROW = np.array([2, 0], np.int32)
COLUMN = np.array([[1], [3], [0]], np.int32)

MOVES = {
    "reshape": lambda x: x.reshape(4, 3),
    "transpose": lambda x: x.T,
    "axes": lambda x: [x[:, None], x[None, :, 0], jnp.squeeze(x[:1], 0)],
    "slices": lambda x: [x[-1], x[::-1], x[1:, ::2], x[jnp.asarray(1)]],
    "dynamic_slice": lambda x: jax.lax.dynamic_slice(x, (2, 1), (2, 2)),
    "dynamic_update_slice": lambda x: jax.lax.dynamic_update_slice(x, x[:2, :2], (2, 1)),
    "concatenate": lambda x: [
        jnp.concatenate([x, x], 1),
        jnp.stack([x, x], 1),
        jnp.tile(x, (2, 1)),
    ],
    "full": lambda x: [jnp.full((2, 3), x[1, 1]), jnp.zeros_like(x), jnp.arange(5), jnp.eye(3)],
    "astype": lambda x: [x.astype(dtype) for dtype in DTYPES],
    "pad": lambda x: jnp.pad(x, ((0, 1), (2, 0))),
    "split": lambda x: jnp.split(x, [1, 3], 1),
    "gather": lambda x: [x[ROW], x[:, ROW], x[ROW, ROW], x[jnp.asarray([5])], jnp.diag(x)],
    "take_along_axis": lambda x: jnp.take_along_axis(x, COLUMN, 1),
    "repeat": lambda x: [jnp.repeat(x, 2, 0), jnp.roll(x, 1, 1), jnp.triu(x)],
}
ARITHMETIC = {
    "+": lambda x: [x + x[::-1], 3 + x, x + 0.3],
    "*": lambda x: [x * x[::-1], 3 * x, x * 0.3, jnp.square(x), x**2],
    "subnormal": lambda x: [x * 5e-39, (x * 2e-38) * 0.25],
    "mask *": lambda x: [(x > 0) * x, x * (x < 0), (x > 0) / x],
    "-": lambda x: [x - jnp.asarray([0, 1, 2, 3], x.dtype), jnp.abs(x)],
    "/": lambda x: [x / (x[::-1] + 1), 1 / x, x[0, 0] / x[1, 1], jnp.sqrt(x)],
    "/ few": lambda x: [x / 3, x / x[1, 1], x / x[1], x / x[:, 1:2], jnp.mean(x), jnp.mean(x, 1)],
    "compare": lambda x: [x == x[0], x != 0, x < x[0], x <= 1, x > x[::-1], x >= 2],
    "bits": lambda x: [(x > 0) & (x < 3), (x > 0) | (x < -3), (x > 0) ^ (x > 3), ~(x > 0)],
    "where": lambda x: [jnp.where(x > 0, x, 7), jnp.where(x > 0, 1.0, 0.0), jax.nn.relu(x)],
    "max": lambda x: [
        jnp.maximum(x, x[0]),
        jnp.minimum(x, 1),
        jnp.clip(x, -1, 3),
        x.max(),
        x.min(0),
    ],
    "any": lambda x: [(x > 0).any(), (x > 0).all(1), (x > 0).sum(), jnp.cumsum(x > 0, 1)],
    "argmax": lambda x: [x.argmax(), x.argmin(1)],
    "round": lambda x: [jnp.floor(x), jnp.ceil(x), jnp.round(x), jnp.sign(x), jnp.isfinite(x)],
    "sum": lambda x: [x.sum(), x.sum(0), x.sum((0, 1)), jnp.cumsum(x, 0)],
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("x", [X, WITH_NAN], ids=["finite", "nan"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*MOVES, *ARITHMETIC])
def test_results_are_those_of_compiled_programs(name, dtype, x, monkeypatch):
    function = {**MOVES, **ARITHMETIC}[name]
    with np.errstate(all="ignore"):
        x = jnp.asarray(x).astype(dtype)
    ours = function_results(function, x)
    monkeypatch.setattr(by_numpy, "OFTEN", 0)
    for a, b in zip(ours, function_results(function, x), strict=True):
        assert (a.dtype, a.weak_type) == (b.dtype, b.weak_type)
        np.testing.assert_array_equal(*(np.asarray(y, np.float64) for y in (a, b)))


def function_results(function, x):
    try:
        return jax.tree.leaves(function(x))
    except (TypeError, ValueError):
        if jnp.issubdtype(x.dtype, jnp.floating):
            raise
        return []  # not for this dtype
