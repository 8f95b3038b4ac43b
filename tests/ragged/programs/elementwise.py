"""Functions of each element."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, integers, positive, spaced, unit


def since_jax_0_12(name, before):
    """A primitive of its own in later versions."""
    return getattr(jax.lax, name, before)


def by_horner(x, coefficients):
    total = 0.0
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


ANYWHERE = {
    "several": lambda x: jnp.sin(x) + jnp.cos(x) * jnp.tanh(x) - jnp.arctan(x),
    "exponentials": lambda x: jnp.exp(x) + jnp.expm1(x) + jnp.exp2(x) + jnp.sinh(x) / jnp.cosh(x),
    "rounding": lambda x: jnp.floor(x) * x + jnp.round(x) + jnp.ceil(x) + jnp.sign(x),
    "error_function": lambda x: jax.lax.erf(x) + jax.lax.erfc(x),
    "power": lambda x: x**3 + jnp.square(x),
    "clip": lambda x: jnp.clip(x, -1, 1) * x,
    "where": lambda x: jnp.where(x > 0, x, 0.5 * x),
    "safe_sqrt": lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0),
    "gelu": lambda x: jax.nn.gelu(x) + jax.nn.gelu(x, approximate=False),
    "silu": lambda x: jax.nn.silu(x) + jax.nn.sigmoid(x),
    "softplus": lambda x: jax.nn.softplus(x) + jax.nn.log_sigmoid(x),
    "elu": lambda x: jax.nn.elu(x) + jax.nn.selu(x) + jax.nn.celu(x),
    "relu": lambda x: jax.nn.relu(x) + jax.nn.relu6(x) + jax.nn.leaky_relu(x),
    "glu": lambda x: jax.nn.glu(jnp.concatenate([x, 2 * x], -1)),
    "complex": lambda x: jnp.abs(jax.lax.complex(x, x + 3)) + jnp.real(jnp.exp(1j * x)),
    "comparisons": lambda x: (x > 0) & (x < 1) | jnp.isnan(x),
    "cast": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) * 2,
    "positions": lambda x: x * jnp.arange(x.shape[0])[:, None],
    "by_the_length": lambda x: x / jnp.sqrt(x.shape[0]),
    "remaining_steps": lambda x: x * (x.shape[0] - jnp.arange(x.shape[0]))[:, None],
    "by_parameters": lambda x, w: x * w[0] + w[1],
    "logarithm_of_a_layer": lambda x, w: jnp.log(jnp.abs(x @ w)),
    "constant_result": lambda x: jnp.ones(3),
    "only_the_length": lambda x: x.shape[0] * jnp.ones(2) + 0 * x.sum(),
    "zeros_like": lambda x: jnp.zeros_like(x) + jnp.ones_like(x) * x[0],
    "sinc": lambda x: jnp.sinc(x),
    "hypot": lambda x: jnp.hypot(x, 1.0),
    "logaddexp": lambda x: jnp.logaddexp(x, 1.0),
    "nan_to_num": lambda x: jnp.nan_to_num(x) * 2,
    "stop_gradient": lambda x: jax.lax.stop_gradient(x) * x,
    "one_minus_square": lambda x: since_jax_0_12("one_minus_square", lambda x: 1 - x**2)(x),
    "polynomial": lambda x: since_jax_0_12("polynomial", by_horner)(x, [1.0, 0.5 * x, 2.0]),
}
POSITIVE = {
    "log": lambda x: jnp.log(x) + jnp.log1p(x) + jnp.log2(x),
    "roots": lambda x: jnp.sqrt(x) + jax.lax.rsqrt(x) + jnp.cbrt(x),
    "quotients": lambda x: 1 / x + jnp.arctan2(x, 1 + x) + x**0.3,
    "gamma": lambda x: jax.scipy.special.gammaln(x) + jax.scipy.special.digamma(x),
    "acosh": lambda x: jnp.arccosh(1 + x),
    "entropy": lambda x: jax.scipy.special.entr(x),
}
UNIT = {
    "inverses": lambda x: jnp.arcsin(x) + jnp.arccos(x) + jnp.arctanh(x) + jax.lax.erf_inv(x),
    "arcsinh": lambda x: jnp.arcsinh(x) * x,
    "inverse_of_parameters": lambda x, w: jnp.arcsin(x * jnp.tanh(9 * jnp.abs(w[0]))),
}
INTEGERS = {
    "bits": lambda x: (x & 1) | (x << 2) ^ 5,
    "embedding": lambda x, w: w[x % 3],
    "one_hot": lambda x: jax.nn.one_hot(x, 4),
    "remainders": lambda x: x % 3 + x // 2,
    "equal_to_the_first": lambda x: x == x[0],
}
PROGRAMS = {
    **{name: Row(f) for name, f in ANYWHERE.items()},
    **{name: Row(f, domain=positive) for name, f in POSITIVE.items()},
    **{name: Row(f, domain=unit) for name, f in UNIT.items()},
    **{name: Row(f, domain=integers, features=None) for name, f in INTEGERS.items()},
    "maximum_of_two": Row(lambda x: jnp.maximum(x, -x) + jnp.minimum(x, 0.3), domain=spaced),
}
