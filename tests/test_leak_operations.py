"""The operations that `leak` leaves to NumPy, and loops that it runs turn by turn, against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from jaxmask.leak import _stepwise
from jaxmask.leak._barriers import factors
from jaxmask.leak._numpy import NUMPY

NAN, INF = float("nan"), float("inf")
X = np.array([[1.5, -0.0, NAN, -2.0], [INF, 3.0, 0.0, -INF], [0.25, -7.0, 1e30, 2.0]], np.float32)
N = np.array([[3, -7, 2, 0], [5, -(2**31), 9, -4], [1, 2, 2**31 - 1, 8]], np.int32)
ONES = np.array([[2, 3, 2, 5]], np.int32)
START = np.array([1, 7, -3], np.int32)
ZEROS = np.zeros((4, 3), np.float32)
PLACES = np.array([[0, 2, -1], [5, 1, 1], [-9, 0, 3]], np.int32)
MODES = ("fill", "clip", "promise_in_bounds")
WINDOWS = lax.GatherDimensionNumbers(
    offset_dims=(0, 2), collapsed_slice_dims=(), start_index_map=(1,)
)

# Bit for bit, but for the kind of nan.
EXACT = {
    "abs": lambda x, n: (lax.abs(x), lax.abs(n)),
    "argmax": lambda x, n: (lax.argmax(x, 0, np.int32), lax.argmax(n, 1, np.int32)),
    "comparisons": lambda x, n: (x == x[:, :1], x < 1, x <= 2, n >= 2, n != 2, lax.is_finite(x)),
    "cumsum": lambda x, n: (lax.cumsum(n, 1), lax.cumsum(n, 0, reverse=True)),
    "div": lambda x, n: (lax.div(n, jnp.broadcast_to(ONES, n.shape)), lax.div(n, n), x / x[:, :1]),
    "dynamic_slice": lambda x, n: (
        lax.dynamic_slice(x, START[:2], (2, 3)),
        lax.dynamic_slice(n, START[1:], (1, 2)),
    ),
    "dynamic_update_slice": lambda x, n: lax.dynamic_update_slice(x, x[:2, 1:3], START[1:]),
    "gather": lambda x, n: (
        *(x.at[PLACES].get(mode=mode) for mode in MODES),
        *(n.at[:, PLACES[0]].get(mode=mode) for mode in MODES),
        *(jnp.take_along_axis(x, PLACES, 1, mode=mode) for mode in ("fill", "clip")),
        jax.vmap(lambda row, k: lax.dynamic_slice(row, (k,), (2,)))(x, START),
        (n > 2)[PLACES[1]],
        lax.gather(x, PLACES[:, :1], WINDOWS, (2, 3), mode="clip"),
        lax.gather(n, PLACES[:, :1], WINDOWS, (2, 3), mode="fill"),
    ),
    "integer_pow": lambda x, n: [lax.integer_pow(v, p) for v in (x, n) for p in (1, 2, 3, 5)],
    "iota": lambda x, n: (lax.broadcasted_iota(np.float32, (2, 3), 1), lax.iota(np.uint8, 3)),
    "logic": lambda x, n: (n & 6, n | 6, n ^ 6, ~n, ~(n > 2), (n > 2) ^ (n < 4)),
    "max": lambda x, n: (lax.max(x, 0 * x), lax.min(x, x.T[:3, :1]), lax.max(n, 1), n.min(0)),
    "pad": lambda x, n: (lax.pad(x, NAN, ((1, 0, 2), (0, 2, 1))), lax.pad(n, 3, ((-1, 0, 0),) * 2)),
    "pieces": lambda x, n: (*jnp.split(x, [1, 3], 1), jnp.stack([n, n], 1), n[::-1, ::2]),
    "reductions": lambda x, n: (x.max(1), x.min((0, 1)), n.sum(0), n.max(), (n > 2).any(1)),
    "select": lambda x, n: jnp.where(n > 2, x, jnp.concatenate([x[:1], x[1:]])),
    "square": lambda x, n: (lax.square(x), (n > 0).all()),
    "rem": lambda x, n: (lax.rem(n, jnp.broadcast_to(ONES, n.shape)), lax.rem(n, n), lax.rem(x, x)),
    "scan": lambda x, n: lax.scan(lambda c, v: (c + v, c * v), x[0], x, reverse=True),
    "scan, empty": lambda x, n: lax.scan(lambda c, v: (c, v), x[0], x[:0]),
    "sign": lambda x, n: (lax.sign(n), lax.sign(x)),
    "switch": lambda x, n: [lax.switch(k, [jnp.sin, jnp.negative], x) for k in (n[0, 1], n[0, 0])],
    "while": lambda x, n: lax.fori_loop(n[0, 0], 6, lambda k, y: y.at[0, 1].add(k), x),
}  # fmt: skip
# To rounding, and with the same nan and infinities.
ROUNDED = {
    "dot": lambda x, n: (x @ x.T, jnp.einsum("ab,ac->bc", x, x), jnp.einsum("ab,cb->ca", X, x)),
    "dot, batched": lambda x, n: jnp.einsum(
        "abc,adc->abd", x[..., None] + x[0], x[..., None] - x[1]
    ),
    "dot, of 0 and nan": lambda x, n: (ZEROS @ x, x @ ZEROS),
    "dot, in half precision": lambda x, n: x.astype(jnp.bfloat16) @ x.T.astype(jnp.bfloat16),
    "sum": lambda x, n: (x.sum(), x.sum(0), (x + 1j).sum(1), x.astype(jnp.float16).sum(1)),
}


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_is_what_jax_computes(name):
    function = (EXACT | ROUNDED)[name]
    closed = jax.make_jaxpr(function)(X, N)
    want = jax.tree.leaves(jax.jit(function)(X, N))
    got = _stepwise.Stepwise(closed)(factors(0), X, N)
    for a, b in zip(want, got, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        tolerance = 0.0 if name in EXACT else 4 * float(jnp.finfo(a.dtype).eps)
        wide = (np.asarray(v, np.complex64 if np.iscomplexobj(a) else np.float64) for v in (a, b))
        np.testing.assert_allclose(*wide, rtol=tolerance)


def test_every_operation_is_compared():
    seen: set[str] = set()
    for function in (EXACT | ROUNDED).values():
        seen |= set(_names(jax.make_jaxpr(function)(X, N).jaxpr))
    moving = {"squeeze", "expand_dims", "copy_p", "copy", "stop_gradient", "reshape", "add_any"}
    assert set(NUMPY) - seen <= moving


def _names(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from _names(inner)


@pytest.mark.parametrize("trips", [3, 40])
def test_long_loops_are_compiled_and_round_alike(monkeypatch, trips):
    monkeypatch.setattr(_stepwise, "MOST_OPERATIONS", 30)

    def loop(x):
        def turn(carry):
            k, y = carry
            return k + 1, jnp.tanh(y @ y.T)[:, :3] * 1.1

        return lax.while_loop(lambda carry: carry[0] < trips, turn, (0, x))[1]

    x = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    stepwise = _stepwise.Stepwise(jax.make_jaxpr(loop)(x))
    once, again = (stepwise(factors(0), x)[0] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    np.testing.assert_allclose(once, jax.jit(loop)(x), rtol=1e-4)
    assert list(stepwise._own.long.values()) == [trips == 40]
    perturbed = stepwise(factors(1), x)[0]
    assert 0 < np.abs(perturbed - once).max() < 1e-4
