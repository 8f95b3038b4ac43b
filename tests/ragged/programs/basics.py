"""The row functions of a published comparison of ragged arrays."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, spaced
from tests.ragged.programs.control import lstm


def conv(x, w):
    y = jax.lax.conv_general_dilated(
        x[None], jnp.stack([w, w, w]), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return y[0]


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def loop_rnn(x, w):
    return jax.lax.scan(lambda h, v: (jnp.tanh(v + h @ w),) * 2, jnp.zeros(3), x)[1]


PROGRAMS = {
    "x*2": Row(lambda x: x * 2),
    "x.sum(0)": Row(lambda x: x.sum(0)),
    "x.mean(0)": Row(lambda x: x.mean(0)),
    "x.max(0)": Row(lambda x: x.max(0), domain=spaced),
    "softmax(x,0)": Row(lambda x: jax.nn.softmax(x, 0)),
    "logsumexp(x,0)": Row(lambda x: jax.nn.logsumexp(x, 0)),
    "cumsum(x,0)": Row(lambda x: jnp.cumsum(x, 0)),
    "x[::-1]": Row(lambda x: x[::-1]),
    "x[-1]": Row(lambda x: x[-1]),
    "x[0]": Row(lambda x: x[0]),
    "sort(x,0)": Row(lambda x: jnp.sort(x, 0), domain=spaced),
    "x.var(0)": Row(lambda x: x.var(0)),
    "x-x.mean(0)": Row(lambda x: x - x.mean(0)),
    "x@W": Row(lambda x, w: x @ w),
    "softmax(x@x.T)@x": Row(lambda x: jax.nn.softmax(x @ x.T) @ x),
    "concatenate([x,x])": Row(lambda x: jnp.concatenate([x, x])),
    "conv1d(3,same)": Row(conv),
    "layer_norm(features)": Row(layer_norm),
    "loop RNN": Row(loop_rnn),
    "LSTM": Row(lstm),
    "relu": Row(jax.nn.relu),
    "x[[0,0]]": Row(lambda x: x[jnp.array([0, 0])]),
    "where(x>0,x,0)": Row(lambda x: jnp.where(x > 0, x, 0)),
    "x+ones": Row(lambda x: x + jnp.ones(x.shape)),
    "linear": Row(lambda x, w: x @ w + w[0]),
    "x.sum()": Row(lambda x: x.sum()),
    "x.sum(0)/x.shape[0]": Row(lambda x: x.sum(0) / x.shape[0]),
}
