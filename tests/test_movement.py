"""Moving arrays by NumPy gives what JAX's programs give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

X = (np.arange(-6, 6).reshape(3, 4) * 1.37).astype(np.float32)
X[0, :3] = np.nan, np.inf, 1e10
DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "bool")


def moved(x):
    """Everything that `tests/movement.py` does."""
    return [
        *(x.reshape(4, 3), x.T, x[:, None], x[None, :, 0], x[-1], x[::-1], jnp.squeeze(x[:1], 0)),
        *(jnp.concatenate([x, x], 1), jnp.full((2, 3), x[1, 1])),
        jax.lax.dynamic_slice(x, (2, 1), (2, 2)),
        *(x.astype(dtype) for dtype in DTYPES),
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moved_arrays_are_those_of_a_program(dtype):
    with np.errstate(all="ignore"):
        x = jnp.asarray(X).astype(dtype)
    for ours, theirs in zip(moved(x), jax.jit(moved)(x), strict=True):
        assert (ours.dtype, ours.weak_type) == (theirs.dtype, theirs.weak_type)
        np.testing.assert_array_equal(*(np.asarray(y, np.float64) for y in (ours, theirs)))
