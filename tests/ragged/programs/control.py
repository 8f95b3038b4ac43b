"""Loops and branches."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, integers


def rnn(x, w):
    def step(h, v):
        h = jnp.tanh(v @ w + h @ w.T)
        return h, h

    return jax.lax.scan(step, jnp.zeros(3), x)


def reverse_rnn(x, w):
    def step(h, v):
        h = jnp.tanh(v @ w + h @ w.T)
        return h, h

    return jax.lax.scan(step, jnp.zeros(3), x, reverse=True)


def lstm(x, w):
    def step(carry, v):
        h, c = carry
        z = v @ w + h @ w.T
        i, f, g = jax.nn.sigmoid(z), jax.nn.sigmoid(z + 1), jnp.tanh(2 * z)
        c = f * c + i * g
        return (jnp.tanh(c) * i, c), jnp.tanh(c) * i

    return jax.lax.scan(step, (jnp.zeros(3), jnp.zeros(3)), x)[1]


def bilstm(x, w):
    return jnp.concatenate([lstm(x, w), lstm(x[::-1], w)[::-1]], -1)


def crf(x, w):
    """The log partition of a chain."""

    def step(alpha, emission):
        return jax.nn.logsumexp(alpha[:, None] + w, axis=0) + emission, None

    return jax.nn.logsumexp(jax.lax.scan(step, x[0], x[1:])[0])


def viterbi(x, w):
    def step(alpha, emission):
        scores = alpha[:, None] + w
        return scores.max(0) + emission, scores.argmax(0)

    last, back = jax.lax.scan(step, x[0], x[1:])
    _, path = jax.lax.scan(lambda tag, b: (b[tag], b[tag]), last.argmax(), back, reverse=True)
    return path


def countdown(x):
    """The logarithm of a counter that reaches 0 right behind the last step."""

    def step(left, v):
        return left - 1, v * jnp.log(left)

    return jax.lax.scan(step, jnp.float32(x.shape[0]), x)[1]


def countdown_reverse(x):
    def step(left, v):
        return left - 1, v / left

    return jax.lax.scan(step, jnp.float32(x.shape[0]), x, reverse=True)[1]


def reverse_with_a_singular_start(x):
    """The first step that runs is the last one; the carry is singular with the first."""
    apart = jnp.where(jnp.asarray(x.shape[0]) == 1, 1.0, 0.0)

    def step(carry, v):
        return v, jnp.sqrt(jnp.abs(v - carry))

    return jax.lax.scan(step, x[0] + apart, x, reverse=True)[1]


def product_by_fori(x):
    def body(k, total):
        return total + x[k] * jnp.cos(total)

    return jax.lax.fori_loop(0, x.shape[0], body, jnp.zeros(3))


def fori_from_one(x):
    return jax.lax.fori_loop(1, x.shape[0], lambda k, y: y + x[k] * x[k - 1], x[0])


def write_by_fori(x):
    body = lambda k, y: y.at[k].set(y[k - 1] * 0.5 + x[k])  # noqa: E731
    return jax.lax.fori_loop(1, x.shape[0], body, x)


def newton(x):
    def body(state):
        y, k = state
        return y - (y**3 - x.sum(0)) / (3 * y**2 + 1), k + 1

    return jax.lax.while_loop(lambda s: s[1] < 5 + x.shape[0], body, (jnp.ones(3), 0))[0]


def halving(x):
    """How often a row is halved before its norm is small: as many turns as the row needs."""

    def body(state):
        y, k = state
        return y / 2, k + 1

    return jax.lax.while_loop(lambda s: jnp.abs(s[0]).sum() > 0.1, body, (x, 0))[1]


def branch(x):
    return jax.lax.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, x)


def branch_by_length(x):
    return jax.lax.cond(jnp.asarray(x.shape[0]) > 2, lambda v: v.mean(0), lambda v: v[0], x)


def singular_branch(x):
    """The branch that is not taken has no finite gradient there."""
    total = x.sum()
    return jax.lax.cond(total > 0, lambda t: jnp.log(t), lambda t: t * 0.5, total)


def singular_root_branch(x, w):
    y = (x @ w).sum(0)
    return jax.lax.cond(y[0] > 0, lambda v: jnp.sqrt(v[0]) * w[0], lambda v: jnp.square(v) @ w, y)


def singular_branch_by_length(x, w):
    """Short rows do not take the root of a negative number."""
    beyond = jnp.float32(x.shape[0]) - 2
    scale = jnp.abs(w[0])
    root = lambda v: jnp.sqrt(beyond * v)  # noqa: E731
    return x.sum(0) * jax.lax.cond(beyond > 0, root, lambda v: 3 * v, scale)


def switch(x):
    k = jnp.clip(x.shape[0] - 1, 0, 2)
    return jax.lax.switch(k, [lambda v: v, lambda v: v * 2, lambda v: v[::-1]], x)


PLAIN = {
    "rnn": rnn,
    "reverse_rnn": reverse_rnn,
    "lstm": lstm,
    "bilstm": bilstm,
    "crf": crf,
    "countdown": countdown,
    "countdown_reverse": countdown_reverse,
    "reverse_with_a_singular_start": reverse_with_a_singular_start,
    "fori": product_by_fori,
    "fori_from_one": fori_from_one,
    "fori_writes": write_by_fori,
    "branch": branch,
    "branch_by_length": branch_by_length,
    "singular_branch": singular_branch,
    "singular_root_branch": singular_root_branch,
    "singular_branch_by_length": singular_branch_by_length,
    "switch": switch,
    "map": lambda x: jax.lax.map(lambda v: jnp.sin(v) * v.sum(), x),
    "vmap": lambda x: jax.vmap(lambda v: v / jnp.linalg.norm(v))(x),
    "vmap_of_pairs": lambda x: jax.vmap(lambda a: jax.vmap(lambda b: a @ b)(x))(x),
    "scan_over_features": lambda x: jax.lax.scan(lambda c, v: (c + v, c * v), x[:, 0], x.T)[1],
    "scan_with_a_ragged_carry": lambda x: (
        jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x @ x.T, None, length=2)[0]
        if False
        else jax.lax.scan(lambda c, _: (jnp.tanh(c + c.mean(0)), None), x, None, length=2)[0]
    ),
    "scan_of_positions": lambda x: jax.lax.scan(
        lambda c, k: (c + x[k], c), jnp.zeros(3), jnp.arange(x.shape[0])
    )[1],
    "scan_without_the_first": lambda x: jax.lax.scan(
        lambda c, v: (jnp.log1p(jnp.abs(c - v)), c / (1e-3 + v**2)), x[0], x[1:]
    ),
    "nested_scan": lambda x: jax.lax.scan(
        lambda c, v: (jax.lax.scan(lambda d, u: (d + u * v, None), c, x)[0], c), jnp.zeros(3), x
    )[1],
    "unrolled_scan": lambda x: jax.lax.scan(
        lambda c, v: (c * 0.5 + v, c), jnp.zeros(3), x, unroll=2
    )[1],
    "branch_inside_scan": lambda x: jax.lax.scan(
        lambda c, v: (jax.lax.cond(v[0] > 0, lambda t: jnp.sqrt(t), lambda t: t, v[0]), c),
        jnp.float32(0),
        x,
    )[1],
    "select_branch": lambda x: jax.lax.select(x > 0, x, -x),
}
PROGRAMS = {
    **{name: Row(f) for name, f in PLAIN.items()},
    "viterbi": Row(viterbi, gradient=False),
    "newton": Row(newton, gradient=False),
    "halving": Row(halving, gradient=False),
    "collatz": Row(
        lambda x: jax.lax.while_loop(
            lambda s: s[0] > 1,
            lambda s: (jnp.where(s[0] % 2 == 0, s[0] // 2, 3 * s[0] + 1), s[1] + 1),
            (x.sum() + 1, 0),
        )[1],
        domain=integers,
    ),
}
