"""Running sums, and associative scans."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, positive, spaced


def linear_recurrence(x, w):
    """The core of S5, LRU and Mamba-like layers."""
    decay = jax.nn.sigmoid(x + w[0])

    def combine(a, b):
        return a[0] * b[0], a[1] * b[0] + b[1]

    return jax.lax.associative_scan(combine, (decay, (1 - decay) * x))[1]


def matrices(x, w):
    steps = w[None] * x[:, :, None] / 3

    def combine(a, b):
        return jnp.matmul(b, a)

    return jax.lax.associative_scan(combine, steps)


def diagonal_complex(x, w):
    rate = jnp.exp(-0.3 + 1j * w[0])
    rates = jnp.broadcast_to(rate, x.shape)
    combine = lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1])  # noqa: E731
    return jax.lax.associative_scan(combine, (rates, x + 0j))[1].real


PLAIN = {
    "cumsum": lambda x: jnp.cumsum(x, 0),
    "cumsum_reverse": lambda x: jax.lax.cumsum(x, 0, reverse=True),
    "cumprod": lambda x: jnp.cumprod(x, 0),
    "cumprod_reverse": lambda x: jax.lax.cumprod(x, 0, reverse=True),
    "cumlogsumexp": lambda x: jax.lax.cumlogsumexp(x, 0),
    "cumlogsumexp_reverse": lambda x: jax.lax.cumlogsumexp(x, 0, reverse=True),
    "running_mean": lambda x: jnp.cumsum(x, 0) / (1 + jnp.arange(x.shape[0]))[:, None],
    "cumsum_of_features": lambda x: jnp.cumsum(x, 1),
    "associative_sum": lambda x: jax.lax.associative_scan(jnp.add, x),
    "associative_sum_reverse": lambda x: jax.lax.associative_scan(jnp.add, x, reverse=True),
    "associative_product": lambda x: jax.lax.associative_scan(jnp.multiply, x, reverse=True),
    "associative_logsumexp": lambda x: jax.lax.associative_scan(jnp.logaddexp, x),
    "linear_recurrence": linear_recurrence,
    "products_of_matrices": matrices,
    "diagonal_complex_recurrence": diagonal_complex,
    "associative_over_the_second_axis": lambda x: jax.lax.associative_scan(jnp.add, x.T, axis=1),
    "associative_under_vmap": lambda x: jax.vmap(
        lambda c: jax.lax.associative_scan(jnp.add, c), 1, 1
    )(x),
}
PROGRAMS = {
    **{name: Row(f) for name, f in PLAIN.items()},
    "cummax": Row(lambda x: jax.lax.cummax(x, 0), domain=spaced),
    "cummin_reverse": Row(lambda x: jax.lax.cummin(x, 0, reverse=True), domain=spaced),
    "associative_max": Row(lambda x: jax.lax.associative_scan(jnp.maximum, x), domain=spaced),
    "associative_harmonic": Row(
        lambda x: jax.lax.associative_scan(lambda a, b: a * b / (a + b), x), domain=positive
    ),
}
