"""Random programs of the supported vocabulary: `pytest tests/ragged --fuzz 200` tries many.

A program is a chain of functions of a row, each of which changes its length, its order or its
values. Hypothesis shortens a chain that fails.
"""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ragged.alone import Row, compare


def recur(x, w):
    return jax.lax.scan(lambda h, v: (jnp.tanh(v + h @ w),) * 2, jnp.zeros(3), x)[1]


def recur_back(x, w):
    return jax.lax.scan(lambda h, v: (jnp.tanh(v - h @ w),) * 2, x[-1], x, reverse=True)[1]


def convolve(stride, padding):
    def f(x, w):
        kernel = jnp.stack([w, w.T, w]) / 3
        numbers = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(
            x[None], kernel, (stride,), padding, dimension_numbers=numbers
        )[0]

    return f


STEPS = {
    "layer": lambda x, w: jnp.tanh(x @ w),
    "gelu": lambda x, w: jax.nn.gelu(x),
    "scale": lambda x, w: x / (1 + jnp.abs(x).sum(-1, keepdims=True)),
    "by the length": lambda x, w: x * jnp.sqrt(x.shape[0] / 4),
    "positions": lambda x, w: x + jnp.sin(jnp.arange(x.shape[0]))[:, None],
    "centred": lambda x, w: x - x.mean(0),
    "softmax": lambda x, w: jax.nn.softmax(x, 0),
    "attention": lambda x, w: jax.nn.softmax(x @ w @ x.T) @ x,
    "distances": lambda x, w: jnp.exp(-((x[:, None] - x[None]) ** 2).sum(-1)) @ x,
    "running mean": lambda x, w: jnp.cumsum(x, 0) / (1 + jnp.arange(x.shape[0]))[:, None],
    "associative": lambda x, w: jax.lax.associative_scan(jnp.logaddexp, x),
    "reversed": lambda x, w: x[::-1],
    "rolled": lambda x, w: jnp.roll(x, 2, 0),
    "shifted": lambda x, w: jnp.concatenate([w[:1], x[:-1]]),
    "prepended": lambda x, w: jnp.concatenate([w[:2], x]),
    "appended": lambda x, w: jnp.concatenate([x, w[:1]]),
    "twice": lambda x, w: jnp.concatenate([x, -x]),
    "padded": lambda x, w: jnp.pad(x, ((1, 2), (0, 0))),
    "differences": lambda x, w: x[1:] - x[:-1],
    "every second": lambda x, w: x[::2],
    "interleaved": lambda x, w: jnp.stack([x, 2 * x], 1).reshape(-1, 3),
    "first set": lambda x, w: x.at[0].set(0.5),
    "slots": lambda x, w: x.at[jnp.arange(x.shape[0]) // 2].add(x),
    "convolution": convolve(1, "SAME"),
    "strided convolution": convolve(2, "SAME"),
    "causal convolution": convolve(1, [(2, 0)]),
    "recurrence": recur,
    "reverse recurrence": recur_back,
    "branch": lambda x, w: jax.lax.cond(x.sum() > 0, jnp.sin, lambda v: 2 * v, x),
    "map": lambda x, w: jax.lax.map(lambda v: v @ w, x),
    "transposed twice": lambda x, w: (w @ x.T).T,
    "sorted": lambda x, w: jnp.sort(jnp.sin(9 * x) + x, 0),
    "running maximum": lambda x, w: jax.lax.stop_gradient(jax.lax.cummax(x, 0)) + x,
    "below the maximum": lambda x, w: x - jax.lax.stop_gradient(x.max(0)),
    "times noise": lambda x, w: x * jax.random.uniform(jax.random.key(7), x.shape),
    "noise of the steps": lambda x, w: (
        x + jax.random.normal(jax.random.key(8), x.shape[:1])[:, None]
    ),
    "by rank": lambda x, w: x[jnp.argsort(jnp.cos(7 * x[:, 0]))],
    "greatest in a window": lambda x, w: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (3, 1), (1, 1), "SAME"
    ),
    "updated": lambda x, w: jax.lax.dynamic_update_slice(x, w[:1], (1, 0)),
    "counted": lambda x, w: jax.lax.fori_loop(0, x.shape[0], lambda k, y: y.at[k].multiply(0.9), x),
}
SHORTER = {"differences", "every second", "strided convolution"}
ENDS = {
    "steps": lambda x: x,
    "mean": lambda x: x.mean(0),
    "last": lambda x: x[-1],
    "scores": lambda x: x @ x.T,
    "flat": lambda x: x.reshape(-1),
    "logsumexp": lambda x: jax.nn.logsumexp(x, 0),
    "maximum": lambda x: jax.lax.stop_gradient(x.max(0)),  # JAX's own gradient may get lost
    "place of the maximum": lambda x: x.argmax(0),
    "sample": lambda x: jax.random.categorical(jax.random.key(3), x[:, 0]),
}


def program(names: list[str], end: str) -> Row:
    def f(x, w):
        for name in names:
            x = STEPS[name](x, w)
        return ENDS[end](x)

    return Row(f, min_length=5, lengths=(8, 5, 0, 6), rtol=3e-4)


@pytest.mark.exhaustive
def test_random_programs(request):
    number = request.config.getoption("--fuzz")

    @settings(
        max_examples=number or 6,
        derandomize=not number,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4),
        st.sampled_from(sorted(ENDS)),
        st.integers(0, 9),
    )
    def equal_to_the_row_alone(names, end, seed):
        # Once each, they leave a step at least.
        names = [n for k, n in enumerate(names) if n not in names[:k] or n not in SHORTER]
        compare(program(names, end), time=8, seed=seed)

    equal_to_the_row_alone()
