"""Functions that call functions, derivatives inside, and random numbers."""

import functools

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, positive


@jax.custom_vjp
def reversed_gradient(x):
    return x * 1.0


reversed_gradient.defvjp(lambda x: (x * 1.0, None), lambda _, g: (-g,))


@jax.custom_vjp
def clipped_sum(x, w):
    return jnp.tanh(x @ w).sum(0)


def _clipped_forward(x, w):
    return clipped_sum(x, w), (x, w)


def _clipped_backward(saved, g):
    x, w = saved
    slope = (1 - jnp.tanh(x @ w) ** 2) * jnp.clip(g, -0.5, 0.5)
    return slope @ w.T, x.T @ slope


clipped_sum.defvjp(_clipped_forward, _clipped_backward)


@jax.custom_jvp
def safe_log(x):
    return jnp.log(x)


@safe_log.defjvp
def _safe_log_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return safe_log(x), 3 * t / x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled(x, factor):
    return x * factor


scaled.defvjp(lambda x, factor: (x * factor, None), lambda factor, _, g: (2 * g * factor,))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def normalised(x, axis):
    return x / jnp.sum(x, axis=axis, keepdims=True)


@normalised.defjvp
def _normalised_jvp(axis, primals, tangents):
    (x,), (t,) = primals, tangents
    y = normalised(x, axis)
    return y, (t - y * jnp.sum(t, axis=axis, keepdims=True)) / jnp.sum(x, axis=axis, keepdims=True)


def dropout(x):
    keep = jax.random.bernoulli(jax.random.key(1), 0.5, x.shape)
    return jnp.where(keep, x * 2, 0)


PROGRAMS = {
    "jit": Row(jax.jit(lambda x: x * x.sum(0))),
    "jit_twice": Row(lambda x: jax.jit(jax.jit(jnp.tanh))(x) + jax.jit(lambda v: v[-1])(x)),
    "remat": Row(lambda x, w: jax.checkpoint(lambda v: jnp.tanh(v @ w).sum(0))(x)),
    "remat_of_a_loop": Row(
        lambda x: jax.lax.scan(jax.checkpoint(lambda c, v: (c * 0.9 + jnp.sin(v), c)), x[0], x)[1]
    ),
    "custom_vjp": Row(lambda x: reversed_gradient(x) * x),
    "custom_vjp_of_two": Row(clipped_sum),
    "custom_vjp_of_a_part": Row(lambda x, w: clipped_sum(x[1:], w) * x[0]),
    "custom_vjp_with_a_constant": Row(lambda x: scaled(x, 3.0).mean(0)),
    "custom_vjp_in_a_loop": Row(
        lambda x: jax.lax.scan(lambda c, v: (reversed_gradient(c) + v, c), x[0], x)[1]
    ),
    "custom_jvp": Row(lambda x: safe_log(x).sum(0), domain=positive),
    "custom_jvp_over_time": Row(lambda x: normalised(x, 0), domain=positive),
    "custom_jvp_of_a_part": Row(lambda x: safe_log(x[1:] - x[:-1] + 9), domain=positive),
    "gradient_inside": Row(lambda x: jax.grad(lambda v: jnp.sum(v**3) / v.shape[0])(x)),
    "gradient_of_attention_inside": Row(
        lambda x: jax.grad(lambda v: jnp.sum(jax.nn.softmax(v @ v.T) @ v))(x)
    ),
    "gradient_of_a_loop_inside": Row(
        lambda x: jax.grad(
            lambda v: jax.lax.scan(lambda c, u: (jnp.tanh(c + u), None), v[0], v)[0].sum()
        )(x)
    ),
    "gradient_of_a_slice_inside": Row(lambda x: jax.grad(lambda v: jnp.sum(v[1:] * v[:-1]))(x)),
    "jvp_inside": Row(lambda x: jax.jvp(jnp.sin, (x,), (jnp.ones_like(x),))[1]),
    "value_and_grad_inside": Row(lambda x: jax.value_and_grad(lambda v: (v**2).mean())(x)),
    "random_of_the_shape": Row(lambda x: x * jax.random.normal(jax.random.key(3), x.shape)),
    "random_over_pairs": Row(
        lambda x: (x @ x.T) * jax.random.uniform(jax.random.key(3), (x.shape[0], x.shape[0]))
    ),
    "random_across": Row(lambda x: x.T * jax.random.normal(jax.random.key(3), x.T.shape)),
    "random_integers": Row(lambda x: jax.random.randint(jax.random.key(0), x.shape, 0, 9)),
    "random_of_fixed_size": Row(lambda x: x + jax.random.gamma(jax.random.key(0), 2.0, (3,))),
    "old_key": Row(lambda x: x + jax.random.normal(jax.random.PRNGKey(0), x.shape)),
    "dropout": Row(dropout),
    "keys_for_steps": Row(
        lambda x: jax.vmap(lambda k, v: v + jax.random.normal(k, v.shape))(
            jax.random.split(jax.random.key(0), x.shape[0]), x
        )
    ),
    "folded_keys": Row(
        lambda x: jax.vmap(
            lambda k, v: v * jax.random.normal(jax.random.fold_in(jax.random.key(0), k))
        )(jnp.arange(x.shape[0]), x)
    ),
    "gumbel_sample": Row(lambda x: jax.random.categorical(jax.random.key(0), x)),
    "sample_of_the_steps": Row(
        lambda x: jax.vmap(
            lambda k: jax.random.categorical(k, x[:, 0] / 4),
        )(jax.random.split(jax.random.key(1), 20))
    ),
    "samples_of_the_steps": Row(
        lambda x: jax.random.categorical(jax.random.key(1), x / 4, axis=0, shape=(9, 3)),
    ),
    "argmin_of_noise": Row(
        lambda x: jax.vmap(lambda k: jax.random.normal(k, x.shape[:1]).argmin())(
            jax.random.split(jax.random.key(4), 20)
        )
    ),
    "bits_of_eight": Row(lambda x: jax.random.bits(jax.random.key(2), x.T.shape, "uint8")),
    "keys_in_a_loop": Row(
        lambda x: jax.lax.scan(
            lambda k, v: (jax.random.split(k)[0], v * jax.random.uniform(k)), jax.random.key(0), x
        )[1]
    ),
}
