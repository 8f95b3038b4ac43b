"""Twenty-seven functions of one row `[n, feature]`, three times.

Each is here for JAX on one row, for JAX on a padded batch with its mask by hand, and for PyTorch on
one row. By hand, results whose length is that of the row are not cleared: only real positions are
compared.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Lengths = Callable[[int], int] | None


class Three(NamedTuple):
    """`row(x, w)`, `hand(x, mask, w)` with x clean, and `other(torch, x, w)`.

    `lengths` says how many positions a row of n has in the result; None for a fixed size.
    """

    row: Callable[..., Any]
    hand: Callable[..., Any]
    other: Callable[..., Any]
    lengths: Lengths


def three(
    row: Callable[..., Any],
    hand: Callable[..., Any] | None = None,
    other: Callable[..., Any] | None = None,
    lengths: Lengths = lambda n: n,
) -> Three:
    """By default the same code serves a batch, since it acts on each step, and a PyTorch tensor."""
    hand = hand or (lambda x, mask, w: row(x, w))
    return Three(row, hand, other or (lambda torch, x, w: row(x, w)), lengths)


fixed = functools.partial(three, lengths=None)


def wide(mask: Any) -> Any:
    return mask[..., None]


def count(mask: Any) -> Any:
    return mask.sum(1)[:, None]


def steps(x: Any, indices: Any) -> Any:
    return jnp.take_along_axis(x, wide(jnp.maximum(indices, 0)), 1)


def filled(x: Any, mask: Any, value: float) -> Any:
    return jnp.where(wide(mask), x, value)


def mean(x: Any, mask: Any, w: Any = None) -> Any:
    return x.sum(1) / count(mask)


def variance(x: Any, mask: Any, w: Any) -> Any:
    return (filled(x - mean(x, mask)[:, None], mask, 0) ** 2).sum(1) / count(mask)


def attention(x: Any, mask: Any, w: Any) -> Any:
    scores = jnp.where(mask[:, None], x @ x.swapaxes(1, 2), -1e30)
    return jax.nn.softmax(scores) @ x


def twice(x: Any, mask: Any, w: Any) -> Any:
    n, time = count(mask), x.shape[1]
    index = jnp.arange(2 * time)[None]
    return steps(x, jnp.clip(jnp.where(index < n, index, index - n), 0, time - 1))


def convolution(x: Any, mask: Any, w: Any) -> Any:
    kernel, layout = jnp.stack([w, w, w]), ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=layout)


def torch_convolution(torch: Any, x: Any, w: Any) -> Any:
    kernel = torch.stack([w, w, w]).permute(2, 1, 0)
    return torch.nn.functional.conv1d(x.T[None], kernel, padding=1)[0].T


def layer_norm(x: Any, w: Any) -> Any:
    apart = x - x.mean(-1, keepdims=True)
    return apart / jnp.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5)


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
    return loop(rnn_step, jnp.zeros_like(x[0]), x, w)


def lstm(x: Any, w: Any) -> Any:
    return loop(lstm_step, jnp.zeros((2, *x.shape[1:])), x, w)[:, 0]


def time_first(function: Any) -> Callable[..., Any]:
    return lambda x, mask, w: function(x.swapaxes(0, 1), w).swapaxes(0, 1)


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


FUNCTIONS = {
    "x*2": three(lambda x, w: x * 2),
    "x.sum(0)": fixed(lambda x, w: x.sum(0), lambda x, m, w: x.sum(1)),
    "x.mean(0)": fixed(lambda x, w: x.mean(0), mean),
    "x.max(0)": fixed(
        lambda x, w: x.max(0),
        lambda x, m, w: filled(x, m, -jnp.inf).max(1),
        lambda t, x, w: x.amax(0),
    ),
    "softmax(x,0)": three(
        lambda x, w: jax.nn.softmax(x, 0),
        lambda x, m, w: jax.nn.softmax(filled(x, m, -1e30), 1),
        lambda t, x, w: t.softmax(x, 0),
    ),
    "logsumexp(x,0)": fixed(
        lambda x, w: jax.nn.logsumexp(x, 0),
        lambda x, m, w: jax.nn.logsumexp(x, 1, where=wide(m)),
        lambda t, x, w: t.logsumexp(x, 0),
    ),
    "cumsum(x,0)": three(lambda x, w: x.cumsum(0), lambda x, m, w: x.cumsum(1)),
    "x[::-1]": three(
        lambda x, w: x[::-1],
        lambda x, m, w: steps(x, count(m) - 1 - jnp.arange(x.shape[1])),
        lambda t, x, w: t.flip(x, (0,)),
    ),
    "x[-1]": fixed(lambda x, w: x[-1], lambda x, m, w: steps(x, count(m) - 1)[:, 0]),
    "x[0]": fixed(lambda x, w: x[0], lambda x, m, w: x[:, 0]),
    "sort(x,0)": three(
        lambda x, w: jnp.sort(x, 0),
        lambda x, m, w: jnp.sort(filled(x, m, jnp.inf), 1),
        lambda t, x, w: t.sort(x, 0).values,
    ),
    "x.var(0)": fixed(lambda x, w: x.var(0), variance, lambda t, x, w: x.var(0, unbiased=False)),
    "x-x.mean(0)": three(lambda x, w: x - x.mean(0), lambda x, m, w: x - mean(x, m)[:, None]),
    "x@W": three(lambda x, w: x @ w),
    "softmax(x@x.T)@x": three(
        lambda x, w: jax.nn.softmax(x @ x.T) @ x,
        attention,
        lambda t, x, w: t.softmax(x @ x.T, -1) @ x,
    ),
    "concatenate([x,x])": three(
        lambda x, w: jnp.concatenate([x, x]),
        twice,
        lambda t, x, w: t.cat([x, x]),
        lambda n: 2 * n,
    ),
    "conv1d(3,same)": three(
        lambda x, w: convolution(x[None], None, w)[0], convolution, torch_convolution
    ),
    "layer_norm(features)": three(
        layer_norm, None, lambda t, x, w: t.nn.functional.layer_norm(x, (w.shape[0],))
    ),
    "loop RNN": three(rnn, time_first(rnn), torch_rnn),
    "LSTM": three(lstm, time_first(lstm), torch_lstm),
    "relu": three(lambda x, w: jax.nn.relu(x), None, lambda t, x, w: t.relu(x)),
    "x[[0,0]]": three(
        lambda x, w: x[np.array([0, 0])],
        lambda x, m, w: x[:, np.array([0, 0])],
        lambda t, x, w: x[[0, 0]],
        lambda n: 2,
    ),
    "where(x>0,x,0)": three(
        lambda x, w: jnp.where(x > 0, x, 0), None, lambda t, x, w: t.where(x > 0, x, 0.0)
    ),
    "x+ones": three(
        lambda x, w: x + jnp.ones(x.shape),
        lambda x, m, w: x + 1,
        lambda t, x, w: x + t.ones_like(x),
    ),
    "linear": three(
        lambda x, w: x @ w + w[0], None, lambda t, x, w: t.nn.functional.linear(x, w.T, w[0])
    ),
    "x.sum()": fixed(lambda x, w: x.sum(), lambda x, m, w: x.sum((1, 2))),
    "x.sum(0)/x.shape[0]": fixed(lambda x, w: x.sum(0) / x.shape[0], mean),
}
