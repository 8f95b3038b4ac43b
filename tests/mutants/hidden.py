"""Leaks that hide from a check: behind what XLA rewrites, or below a tolerance that is too wide.

All are functions of `x [batch, time]` or `[batch, time, feature]` and a mask `[batch, time]`.
"""

import jax
import jax.numpy as jnp


def filled(x, mask):
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)


# ---------------------------------------------------------- products with a mask that XLA mends
# Each is right under jit on CPU, and nan as soon as the product is taken.


def _scan(x, mask):
    def step(h, inputs):
        x_t, real = inputs
        return h * 0.5 + x_t * real, None

    return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), (x.T, mask.T))[0]


def _loop(x, mask):
    return jax.lax.fori_loop(
        0, x.shape[1], lambda i, h: h + x[:, i] * mask[:, i], jnp.zeros_like(x[:, 0])
    )


@jax.custom_vjp
def _custom(x, mask):
    return (x * mask).sum(1)


_custom.defvjp(lambda x, mask: (_custom(x, mask), mask), lambda mask, g: (g[:, None] * mask, None))


@jax.custom_vjp
def _backward(x, mask):
    return filled(x, mask).sum(1)


# The value is right; its gradient takes a sum over products.
_backward.defvjp(
    lambda x, mask: (_backward(x, mask), (x, mask)),
    lambda kept, g: (
        filled(jnp.broadcast_to((g * (kept[0] * kept[1]).sum(1))[:, None], kept[0].shape), kept[1]),
        None,
    ),
)

PRODUCTS = {
    "x * mask": lambda x, m: (x * m).sum(1),
    "mask first": lambda x, m: (m.astype(x.dtype) * x).sum(1),
    "where of 1 and 0": lambda x, m: (x * jnp.where(m, 1.0, 0.0).astype(x.dtype)).sum(1),
    "divided first": lambda x, m: (x / m.sum(1, keepdims=True) * m).sum(1),
    "multiply": lambda x, m: jnp.multiply(x, m).mean(1),
    "1 - padding": lambda x, m: ((1 - (~m).astype(x.dtype)) * x).sum(1),
    "without the padding": lambda x, m: (x - x * (1 - m.astype(x.dtype))).sum(1),
    "integer mask": lambda x, m: (x * m.astype(jnp.int32)).sum(1),
    "mask twice": lambda x, m: (x * m * m).sum(1),
    "einsum": lambda x, m: jnp.einsum("bt,bt->b", x, m.astype(x.dtype)),
    "dot": lambda x, m: jax.vmap(jnp.dot)(x, m.astype(x.dtype)),
    "row by row": lambda x, m: jax.vmap(lambda row, real: (row * real).sum())(x, m),
    "one-hot": lambda x, m: (x * jax.nn.one_hot(m.sum(1) - 1, x.shape[1], dtype=x.dtype)).sum(1),
    "jit within": lambda x, m: jax.jit(lambda x, m: (x * m).sum(1))(x, m),
    "checkpoint": lambda x, m: jax.checkpoint(lambda x, m: (x * m).sum(1))(x, m),
    "branch": lambda x, m: jax.lax.cond(
        m.any(), lambda x: (x * m).sum(1), lambda x: jnp.zeros_like(x[:, 0]), x
    ),
    "scan": _scan,
    "loop": _loop,
    "custom_vjp": _custom,
}
PRODUCT_IN_THE_GRADIENT = _backward


# --------------------------------------------------------------- leaks that are small beside others


def by_padded_length(x, mask):
    return filled(x, mask).sum(1) / x.shape[1], mask.any(1)


def small_feature(x, mask):
    """Of `x [batch, time]`: the second feature is divided by the padded length."""
    total = filled(x, mask).sum(1)
    return jnp.stack([1e6 * total, total / x.shape[1]], -1), mask.any(1)


def small_row(x, mask):
    """The last row is a millionth of the others, and divided by the padded length."""
    total = filled(x, mask).sum(1)
    last = jnp.arange(len(x)) == len(x) - 1
    return jnp.where(last, 1e-6 * total / x.shape[1], total), mask.any(1)


def small_row_without_a_mask(x, mask):
    return small_row(x, mask)[0]


def small_gradient(params, x, mask):
    """The gradient in the second of two parameters depends on the padded length."""
    large, small = params
    kept = small / x.shape[1]
    kept = kept + jax.lax.stop_gradient(small - kept)
    total = filled(x, mask).sum(1)
    return 1e5 * large * total + kept * total, mask.any(1)


def small_entry_of_a_gradient(params, x, mask):
    """The same in one parameter of two entries."""
    return small_gradient((params[0], params[1]), x, mask)


def by_root_of_padded_length(x, mask):
    return filled(x, mask).sum(1) / x.shape[1] ** 0.5, mask.any(1)


# ------------------------------------------------------------ leaks that show at few contents alone


def reads(seen):
    """Counts the padding that `seen` picks."""

    def fn(x, mask):
        return (seen(x, mask) & ~mask).sum(1), mask.any(1)

    return fn


def _last(x, mask):
    place = jnp.where(mask, jnp.arange(x.shape[1]), 0).max(1)
    return jnp.take_along_axis(x, place[:, None], 1)


CONTENTS = {
    "nan": lambda x, m: jnp.isnan(x),
    "finite": lambda x, m: jnp.isfinite(x),
    "0": lambda x, m: x == 0,
    "1": lambda x, m: x == 1,
    "-1": lambda x, m: x == -1,
    "huge": lambda x, m: jnp.isfinite(x) & (jnp.abs(x) > 1e20),
    "in the hundreds": lambda x, m: (jnp.abs(x) > 100) & (jnp.abs(x) < 1000),
    "in the thousandths": lambda x, m: (jnp.abs(x) > 1e-3) & (jnp.abs(x) < 1e-2),
    "of unit scale": lambda x, m: (jnp.abs(x) > 0.1) & (jnp.abs(x) < 2) & (jnp.abs(x) != 1),
    "like the first step": lambda x, m: x == x[:, :1],
    "like the last step": lambda x, m: x == _last(x, m),
}
IDS = {
    "0": lambda x, m: x == 0,
    "-1": lambda x, m: x == -1,
    "-100": lambda x, m: x == -100,
    "negative": lambda x, m: x < 0,
    "between the real ones": lambda x, m: x == 6,
    "large": lambda x, m: x > 1000,
}
