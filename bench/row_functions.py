"""Functions of one row `[n, feature]`, and of a padded batch with its mask by hand.

Those of `FUNCTIONS` run in PyTorch on one row too: they take the library, `jnp` with what
`IN_JAX` has, or `torch`. By hand, `x` is clean, and results whose length is that of the row are not
cleared.
"""

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Lengths = Callable[[int], int] | None
IN_JAX = types.SimpleNamespace(
    **{name: getattr(jax.nn, name) for name in ("softmax", "logsumexp", "relu", "sigmoid")},
    **{name: getattr(jnp, name) for name in ("amax", "where", "ones_like", "tanh")},
    cat=jnp.concatenate,
)


class Three(NamedTuple):
    """`row(x, w)`, `hand(x, mask, w)`, and `other(torch, x, w)`.

    `lengths` says how many positions a row of n has in the result; None for a fixed size.
    """

    row: Callable[..., Any]
    hand: Callable[..., Any]
    other: Callable[..., Any] | None
    lengths: Lengths

    def real(self, mask: Any, size: int) -> Any:
        """Which positions of a result of that size are real."""
        lengths = jnp.asarray([self.lengths(n) for n in range(mask.shape[1] + 1)])
        return jnp.arange(size) < lengths[mask.sum(1)][:, None]


def three(
    row: Callable[..., Any],
    hand: Callable[..., Any] | None = None,
    other: Callable[..., Any] | None = None,
    lengths: Lengths = lambda n: n,
) -> Three:
    """`row(x, w)`; by default the same code serves a batch, since it acts on each step alone."""
    return Three(row, hand or (lambda x, mask, w: row(x, w)), other, lengths)


def both(
    row: Callable[..., Any], hand: Callable[..., Any] | None = None, lengths: Lengths = lambda n: n
) -> Three:
    """`row(library, x, w)` in JAX and in PyTorch."""
    return three(functools.partial(row, IN_JAX), hand, row, lengths)


fixed = functools.partial(both, lengths=None)


def wide(mask: Any) -> Any:
    return mask[..., None]


def count(mask: Any) -> Any:
    return mask.sum(1)[:, None]


def steps(x: Any, indices: Any) -> Any:
    return jnp.take_along_axis(x, wide(jnp.maximum(indices, 0)), 1)


def flipped(x: Any, mask: Any, w: Any) -> Any:
    return steps(x, count(mask) - 1 - jnp.arange(x.shape[1]))


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


def time_first(function: Any) -> Callable[..., Any]:
    return lambda x, mask, w: function(x.swapaxes(0, 1), w).swapaxes(0, 1)


def looped(step: Callable[..., tuple], states: int) -> Three:
    """A loop over `step(library, state, v, w) -> (state, y)`."""

    def row(x: Any, w: Any) -> Any:
        zero = jnp.zeros_like(x[0])
        return jax.lax.scan(lambda s, v: step(IN_JAX, s, v, w), (zero,) * states, x)[1]

    def other(torch: Any, x: Any, w: Any) -> Any:
        state, found = (torch.zeros(w.shape[0]),) * states, []
        for k in range(x.shape[0]):
            state, y = step(torch, state, x[k], w)
            found.append(y)
        return torch.stack(found)

    return three(row, time_first(row), other)


def rnn_step(t: Any, state: tuple, v: Any, w: Any) -> tuple:
    h = t.tanh(v + state[0] @ w)
    return (h,), h


def lstm_step(t: Any, state: tuple, v: Any, w: Any) -> tuple:
    z = v @ w + state[0] @ w.T
    c = t.sigmoid(z + 1) * state[1] + t.sigmoid(z) * t.tanh(2 * z)
    h = t.tanh(c) * t.sigmoid(z)
    return (h, c), h


def lstm_with_gates(t: Any, state: tuple, v: Any, w: Any) -> tuple:
    """Of parameters w `[feature, 4 * feature]`."""
    h, c = state
    i, f, g, o = jnp.split((v + h) @ w, 4, -1)
    c = t.sigmoid(f) * c + t.sigmoid(i) * t.tanh(g)
    h = t.sigmoid(o) * t.tanh(c)
    return (h, c), h


FUNCTIONS = {
    "x*2": both(lambda t, x, w: x * 2),
    "x.sum(0)": fixed(lambda t, x, w: x.sum(0), lambda x, m, w: x.sum(1)),
    "x.mean(0)": fixed(lambda t, x, w: x.mean(0), mean),
    "x.max(0)": fixed(lambda t, x, w: t.amax(x, 0), lambda x, m, w: filled(x, m, -jnp.inf).max(1)),
    "softmax(x,0)": both(
        lambda t, x, w: t.softmax(x, 0), lambda x, m, w: jax.nn.softmax(filled(x, m, -1e30), 1)
    ),
    "logsumexp(x,0)": fixed(
        lambda t, x, w: t.logsumexp(x, 0), lambda x, m, w: jax.nn.logsumexp(x, 1, where=wide(m))
    ),
    "cumsum(x,0)": both(lambda t, x, w: x.cumsum(0), lambda x, m, w: x.cumsum(1)),
    "x[::-1]": three(lambda x, w: x[::-1], flipped, lambda t, x, w: t.flip(x, (0,))),
    "x[-1]": fixed(lambda t, x, w: x[-1], lambda x, m, w: steps(x, count(m) - 1)[:, 0]),
    "x[0]": fixed(lambda t, x, w: x[0], lambda x, m, w: x[:, 0]),
    "sort(x,0)": three(
        lambda x, w: jnp.sort(x, 0),
        lambda x, m, w: jnp.sort(filled(x, m, jnp.inf), 1),
        lambda t, x, w: t.sort(x, 0).values,
    ),
    "x.var(0)": three(
        lambda x, w: x.var(0), variance, lambda t, x, w: x.var(0, unbiased=False), None
    ),
    "x-x.mean(0)": both(lambda t, x, w: x - x.mean(0), lambda x, m, w: x - mean(x, m)[:, None]),
    "x@W": both(lambda t, x, w: x @ w),
    "softmax(x@x.T)@x": both(lambda t, x, w: t.softmax(x @ x.T, -1) @ x, attention),
    "concatenate([x,x])": both(lambda t, x, w: t.cat([x, x]), twice, lambda n: 2 * n),
    "conv1d(3,same)": three(
        lambda x, w: convolution(x[None], None, w)[0], convolution, torch_convolution
    ),
    "layer_norm(features)": three(
        lambda x, w: jax.nn.standardize(x, epsilon=1e-5),
        None,
        lambda t, x, w: t.nn.functional.layer_norm(x, (w.shape[0],)),
    ),
    "loop RNN": looped(rnn_step, 1),
    "LSTM": looped(lstm_step, 2),
    "relu": both(lambda t, x, w: t.relu(x)),
    "x[[0,0]]": both(
        lambda t, x, w: x[np.array([0, 0])],
        lambda x, m, w: x[:, np.array([0, 0])],
        lambda n: 2,
    ),
    "where(x>0,x,0)": both(lambda t, x, w: t.where(x > 0, x, 0.0)),
    "x+ones": both(lambda t, x, w: x + t.ones_like(x), lambda x, m, w: x + 1),
    "linear": both(lambda t, x, w: x @ w + w[0]),
    "x.sum()": fixed(lambda t, x, w: x.sum(), lambda x, m, w: x.sum((1, 2))),
    "x.sum(0)/x.shape[0]": fixed(lambda t, x, w: x.sum(0) / x.shape[0], mean),
}


# ------------------------------------------- larger ones, of parameters w [feature, 4 * feature]

HEADS = 4


def self_attention(x: Any, mask: Any, w: Any) -> Any:
    *parts, last = jnp.split(w, 4, 1)
    q, k, v = ((x @ part).reshape(*x.shape[:-1], HEADS, -1) for part in parts)
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, -1e30)
    y = jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores), v)
    return x + y.reshape(x.shape) @ last


def convolutions(x: Any, mask: Any, w: Any) -> Any:
    for kernel in jnp.split(w, 4, 1)[:3]:
        x = jax.nn.relu(convolution(x, mask, kernel / 3))
        x = x if mask is None else filled(x, mask, 0)
    return x


def gain(w: Any) -> Any:
    return w[0, : w.shape[0]]


def prepended(x: Any, mask: Any, w: Any) -> Any:
    token = jnp.broadcast_to(gain(w), (*x.shape[:-2], 1, x.shape[-1]))
    return jnp.tanh(jnp.concatenate([token, x], -2) @ w[:, : w.shape[0]])


def appended(x: Any, mask: Any, w: Any) -> Any:
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
    return jnp.where(wide(jnp.arange(x.shape[1]) == count(mask)), gain(w), x)


def differences(x: Any, mask: Any, w: Any) -> Any:
    return (x[..., 1:, :] - x[..., :-1, :]) * gain(w)


LARGER = {
    "attention": three(lambda x, w: self_attention(x, None, w), self_attention),
    "LSTM": looped(lstm_with_gates, 2),
    "convolutions": three(lambda x, w: convolutions(x[None], None, w)[0], convolutions),
    "prepend a token": three(
        lambda x, w: prepended(x, None, w), prepended, lengths=lambda n: n + 1
    ),
    "append a token": three(
        lambda x, w: jnp.concatenate([x, gain(w)[None]]), appended, lengths=lambda n: n + 1
    ),
    "flip": three(lambda x, w: x[::-1] * gain(w), lambda x, m, w: flipped(x, m, w) * gain(w)),
    "differences": three(
        lambda x, w: differences(x, None, w), differences, lengths=lambda n: max(n - 1, 0)
    ),
    "sort": three(
        lambda x, w: jnp.sort(x, 0) * gain(w),
        lambda x, m, w: filled(jnp.sort(filled(x, m, 3e38), 1), m, 0) * gain(w),
    ),
}
