"""What stands in the padding of a slice, a sum of slices or a concatenation is repeated late."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row


def steps(x):
    return x[1:] - x[:-1]


@jax.custom_vjp
def changes(x, w):
    return jnp.tanh(x[1:] @ w) - x[:-1]


def _changes_forward(x, w):
    y = jnp.tanh(x[1:] @ w)
    return y - x[:-1], (y, x, w)


def _changes_backward(saved, g):
    y, x, w = saved
    slope, row = (1 - y**2) * g, jnp.zeros((1, 3))
    back = jnp.concatenate([row, slope @ w.T]) - jnp.concatenate([g, row])
    return 2 * back, x[1:].T @ slope


changes.defvjp(_changes_forward, _changes_backward)


def shifted_carry(x):
    def step(carry, v):
        return jnp.concatenate([carry[1:], v[None]]) * 0.9, carry.sum(0)

    return jax.lax.scan(step, x, x)


PROGRAMS = {
    "root": Row(lambda x, w: jnp.sqrt(jnp.square(steps(x)) + jnp.abs(w[0]))),
    "quotient": Row(lambda x, w: 1 / jnp.abs(steps(x) @ w)),
    "logarithm_of_a_half": Row(
        lambda x: jnp.log(jnp.abs(steps(x).astype(jnp.float16) / 2)), rtol=2e-3
    ),
    "logarithm_inside": Row(lambda x, w: jax.jit(lambda v: jnp.log(jnp.abs(v @ w)))(steps(x))),
    "reverse_scan": Row(
        lambda x: jax.lax.scan(
            lambda c, v: (c * 0.5 + 1 / v, c), jnp.zeros(3), steps(x), reverse=True
        )[1]
    ),
    "joined": Row(lambda x, w: jnp.concatenate([steps(x), jnp.cumsum(x, 0), w[:1]])),
    "gradient_inside": Row(
        lambda x, w: jax.grad(lambda v: jnp.sum(jnp.log(jnp.abs(steps(v) @ w))))(x)
    ),
    "saved_for_the_gradient": Row(changes),
    "carry": Row(shifted_carry),
}
