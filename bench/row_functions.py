"""Twenty-seven functions of one row `[n, feature]`, three times.

Each stands here for JAX on one row, for JAX on a padded batch with its mask by hand, and for
PyTorch on one row. By hand, results whose length is that of the row are not cleared: only real
positions are compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Three(NamedTuple):
    """`row(x, w)`, `hand(x, mask, w)` with x clean, and `other(torch, x, w)`.

    `lengths` says how many positions a row of n has in the result; None for a fixed size.
    """

    row: Callable[..., Any]
    hand: Callable[..., Any]
    other: Callable[..., Any]
    lengths: Callable[[int], int] | None = lambda n: n


def wide(mask: Any) -> Any:
    return mask[..., None]


def count(mask: Any) -> Any:
    return mask.sum(1)[:, None]


def lows(x: Any, mask: Any) -> Any:
    return jnp.where(wide(mask), x, -jnp.inf)


def steps(x: Any, place: Any) -> Any:
    return jnp.take_along_axis(x, wide(jnp.maximum(place, 0)), 1)


def mean(x: Any, mask: Any) -> Any:
    return x.sum(1) / count(mask)


def variance(x: Any, mask: Any) -> Any:
    apart = jnp.where(wide(mask), x - mean(x, mask)[:, None], 0)
    return (apart**2).sum(1) / count(mask)


def attention(x: Any, mask: Any) -> Any:
    scores = jnp.where(mask[:, None], x @ x.swapaxes(1, 2), -1e30)
    return jax.nn.softmax(scores) @ x


def twice(x: Any, mask: Any) -> Any:
    n, time = count(mask), x.shape[1]
    place = jnp.arange(2 * time)[None]
    return steps(x, jnp.clip(jnp.where(place < n, place, place - n), 0, time - 1))


def convolution(x: Any, w: Any) -> Any:
    kernel, numbers = jnp.stack([w, w, w]), ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=numbers)


def torch_convolution(torch: Any, x: Any, w: Any) -> Any:
    kernel = torch.stack([w, w, w]).permute(2, 1, 0)
    return torch.nn.functional.conv1d(x.T[None], kernel, padding=1)[0].T


def layer_norm(x: Any) -> Any:
    apart = x - x.mean(-1, keepdims=True)
    return apart / jnp.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5)


def torch_layer_norm(torch: Any, x: Any, w: Any) -> Any:
    return torch.nn.functional.layer_norm(x, (w.shape[0],))


def rnn_step(h: Any, v: Any, w: Any) -> Any:
    return jnp.tanh(v + h @ w)


def lstm_step(state: Any, v: Any, w: Any) -> Any:
    z = v @ w + state[0] @ w.T
    i, f, g = jax.nn.sigmoid(z), jax.nn.sigmoid(z + 1), jnp.tanh(2 * z)
    c = f * state[1] + i * g
    return jnp.stack([jnp.tanh(c) * i, c])


def loop(step: Any, state: Any, x: Any, w: Any) -> Any:
    def one(state: Any, v: Any) -> Any:
        state = step(state, v, w)
        return state, state

    return jax.lax.scan(one, state, x)[1]


def rnn(x: Any, w: Any) -> Any:
    return loop(rnn_step, jnp.zeros(x.shape[-1]), x, w)


def rnn_by_hand(x: Any, mask: Any, w: Any) -> Any:
    return loop(rnn_step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1), w).swapaxes(0, 1)


def lstm(x: Any, w: Any) -> Any:
    return loop(lstm_step, jnp.zeros((2, x.shape[-1])), x, w)[:, 0]


def lstm_by_hand(x: Any, mask: Any, w: Any) -> Any:
    state = jnp.zeros((2, x.shape[0], x.shape[2]))
    return loop(lstm_step, state, x.swapaxes(0, 1), w)[:, 0].swapaxes(0, 1)


def torch_rnn(torch: Any, x: Any, w: Any) -> Any:
    h, found = torch.zeros(w.shape[0]), []
    for k in range(x.shape[0]):
        h = torch.tanh(x[k] + h @ w)
        found.append(h)
    return torch.stack(found)


def torch_lstm(torch: Any, x: Any, w: Any) -> Any:
    h = c = torch.zeros(w.shape[0])
    found = []
    for k in range(x.shape[0]):
        z = x[k] @ w + h @ w.T
        i, f, g = torch.sigmoid(z), torch.sigmoid(z + 1), torch.tanh(2 * z)
        c = f * c + i * g
        h = torch.tanh(c) * i
        found.append(h)
    return torch.stack(found)


def ordered(x: Any, mask: Any, w: Any) -> Any:
    return jnp.sort(jnp.where(wide(mask), x, jnp.inf), 1)


FUNCTIONS = {
    "x*2": Three(lambda x, w: x * 2, lambda x, m, w: x * 2, lambda t, x, w: x * 2),
    "x.sum(0)": Three(
        lambda x, w: x.sum(0), lambda x, m, w: x.sum(1), lambda t, x, w: x.sum(0), None
    ),
    "x.mean(0)": Three(
        lambda x, w: x.mean(0), lambda x, m, w: mean(x, m), lambda t, x, w: x.mean(0), None
    ),
    "x.max(0)": Three(
        lambda x, w: x.max(0), lambda x, m, w: lows(x, m).max(1), lambda t, x, w: x.amax(0), None
    ),
    "softmax(x,0)": Three(
        lambda x, w: jax.nn.softmax(x, 0),
        lambda x, m, w: jax.nn.softmax(jnp.where(wide(m), x, -1e30), 1),
        lambda t, x, w: t.softmax(x, 0),
    ),
    "logsumexp(x,0)": Three(
        lambda x, w: jax.nn.logsumexp(x, 0),
        lambda x, m, w: jax.nn.logsumexp(x, 1, where=wide(m)),
        lambda t, x, w: t.logsumexp(x, 0),
        None,
    ),
    "cumsum(x,0)": Three(
        lambda x, w: jnp.cumsum(x, 0),
        lambda x, m, w: jnp.cumsum(x, 1),
        lambda t, x, w: t.cumsum(x, 0),
    ),
    "x[::-1]": Three(
        lambda x, w: x[::-1],
        lambda x, m, w: steps(x, count(m) - 1 - jnp.arange(x.shape[1])),
        lambda t, x, w: t.flip(x, (0,)),
    ),
    "x[-1]": Three(
        lambda x, w: x[-1],
        lambda x, m, w: steps(x, count(m) - 1)[:, 0],
        lambda t, x, w: x[-1],
        None,
    ),
    "x[0]": Three(lambda x, w: x[0], lambda x, m, w: x[:, 0], lambda t, x, w: x[0], None),
    "sort(x,0)": Three(lambda x, w: jnp.sort(x, 0), ordered, lambda t, x, w: t.sort(x, 0).values),
    "x.var(0)": Three(
        lambda x, w: x.var(0),
        lambda x, m, w: variance(x, m),
        lambda t, x, w: x.var(0, unbiased=False),
        None,
    ),
    "x-x.mean(0)": Three(
        lambda x, w: x - x.mean(0),
        lambda x, m, w: x - mean(x, m)[:, None],
        lambda t, x, w: x - x.mean(0),
    ),
    "x@W": Three(lambda x, w: x @ w, lambda x, m, w: x @ w, lambda t, x, w: x @ w),
    "softmax(x@x.T)@x": Three(
        lambda x, w: jax.nn.softmax(x @ x.T) @ x,
        lambda x, m, w: attention(x, m),
        lambda t, x, w: t.softmax(x @ x.T, -1) @ x,
    ),
    "concatenate([x,x])": Three(
        lambda x, w: jnp.concatenate([x, x]),
        lambda x, m, w: twice(x, m),
        lambda t, x, w: t.cat([x, x]),
        lambda n: 2 * n,
    ),
    "conv1d(3,same)": Three(
        lambda x, w: convolution(x[None], w)[0],
        lambda x, m, w: convolution(x, w),
        torch_convolution,
    ),
    "layer_norm(features)": Three(
        lambda x, w: layer_norm(x), lambda x, m, w: layer_norm(x), torch_layer_norm
    ),
    "loop RNN": Three(rnn, rnn_by_hand, torch_rnn),
    "LSTM": Three(lstm, lstm_by_hand, torch_lstm),
    "relu": Three(
        lambda x, w: jax.nn.relu(x), lambda x, m, w: jax.nn.relu(x), lambda t, x, w: t.relu(x)
    ),
    "x[[0,0]]": Three(
        lambda x, w: x[np.array([0, 0])],
        lambda x, m, w: x[:, np.array([0, 0])],
        lambda t, x, w: x[[0, 0]],
        lambda n: 2,
    ),
    "where(x>0,x,0)": Three(
        lambda x, w: jnp.where(x > 0, x, 0),
        lambda x, m, w: jnp.where(x > 0, x, 0),
        lambda t, x, w: t.where(x > 0, x, 0.0),
    ),
    "x+ones": Three(
        lambda x, w: x + jnp.ones(x.shape),
        lambda x, m, w: x + 1,
        lambda t, x, w: x + t.ones_like(x),
    ),
    "linear": Three(
        lambda x, w: x @ w + w[0],
        lambda x, m, w: x @ w + w[0],
        lambda t, x, w: t.nn.functional.linear(x, w.T, w[0]),
    ),
    "x.sum()": Three(
        lambda x, w: x.sum(), lambda x, m, w: x.sum((1, 2)), lambda t, x, w: x.sum(), None
    ),
    "x.sum(0)/x.shape[0]": Three(
        lambda x, w: x.sum(0) / x.shape[0],
        lambda x, m, w: mean(x, m),
        lambda t, x, w: x.sum(0) / x.shape[0],
        None,
    ),
}
