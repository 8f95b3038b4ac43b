"""The first values of parameters, drawn by NumPy.

JAX compiles a program for each shape, one of the dearest there are outside of `jax.jit`. Which
numbers parameters begin with matters to no test, but that a key gives the same ones again.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import core
from jax._src.nn import initializers


def draw_parameters_by_numpy() -> None:
    """To be called once; where a program is traced, JAX draws."""
    initializers.random = _Draws(initializers.random)


class _Draws:
    """`jax.random` as the initializers see it."""

    def __init__(self, usual: Any):
        self._usual = usual

    def __getattr__(self, name: str) -> Any:
        usual = getattr(self._usual, name)
        draw = globals().get(f"_{name}")
        if draw is None:
            return usual

        def drawn(key: Any, *args: Any, out_sharding: Any = None, **how: Any) -> jax.Array:
            is_plain = core.trace_state_clean() and jax.sharding.get_abstract_mesh().empty
            if out_sharding is not None or not is_plain or isinstance(key, core.Tracer):
                return usual(key, *args, out_sharding=out_sharding, **how)
            random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
            return draw(random, *args, **how)

        return drawn


def _normal(random: np.random.Generator, shape: Any, dtype: Any = float) -> jax.Array:
    return jnp.asarray(random.normal(size=shape), dtype)


def _truncated_normal(
    random: np.random.Generator, lower: float, upper: float, shape: Any, dtype: Any = float
) -> jax.Array:
    x = random.normal(size=shape)
    while (out := (x < lower) | (x > upper)).any():
        x = np.where(out, random.normal(size=shape), x)
    return jnp.asarray(x, dtype)


def _uniform(
    random: np.random.Generator,
    shape: Any,
    dtype: Any = float,
    minval: float = 0.0,
    maxval: float = 1.0,
) -> jax.Array:
    return jnp.asarray(random.uniform(minval, maxval, shape), dtype)


def _orthogonal(
    random: np.random.Generator, n: int, shape: Any = (), dtype: Any = float, m: Any = None
) -> jax.Array:
    m = n if m is None else m
    q, r = np.linalg.qr(random.normal(size=(*shape, max(n, m), min(n, m))))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return jnp.asarray(q if n >= m else np.swapaxes(q, -1, -2), dtype)
