"""Right layers in plain JAX, counterparts of the wrong ones: no check may fail them."""

import jax
import jax.numpy as jnp

from jaxmask import masks, ops
from tests.mutants.layer import clean, count, rows, steps, subject, with_params

WEIGHT = 0.5 * jax.random.normal(jax.random.key(1), (3, 3))
SCALE = jnp.array([1.0, 2.0, 0.5])


def scanned(x, real, *, reverse=False):
    """h = tanh(h + x) over the real steps."""

    def step(h, inputs):
        x_t, real_t = inputs
        h = jnp.where(real_t[:, None], jnp.tanh(h + x_t), h)
        return h, h

    inputs = jnp.swapaxes(clean(x, real), 0, 1), real.T
    h, y = jax.lax.scan(step, jnp.zeros_like(x[:, 0] if x.shape[1] else x.sum(1)), inputs,
                        reverse=reverse)  # fmt: skip
    return h, jnp.swapaxes(y, 0, 1)


def normalised(x):
    """A layer norm without parameters."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)


def attention(x, keys):
    """Each step sees the steps that `keys` allows, `[batch, time]`."""
    logits = jnp.einsum("btf,bsf->bts", x, x)
    seen = keys[:, None, :]
    top = jnp.max(jnp.where(seen, logits, -1e30), axis=2, keepdims=True, initial=-1e30)
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, logits - top, 0)), 0)
    total = jnp.sum(weights, axis=2, keepdims=True)
    return jnp.einsum("bts,bsf->btf", weights / jnp.where(total > 0, total, 1), x)


def neighbours(x, real):
    """The sum of each step, the one before and the one after, in the padded array."""
    x = jnp.pad(clean(x, real), ((0, 0), (1, 1), (0, 0)))
    return x[:, :-2] + x[:, 1:-1] + x[:, 2:]


def centre(x, real):
    return x - jnp.sum(clean(x, real), axis=1, keepdims=True) / count(real)[:, None]


RIGHT = [
    subject("fill", lambda x, real: steps(x, real)),
    subject("square", lambda x, real: steps(clean(x, real) ** 2, real)),
    subject("sqrt", lambda x, real: steps(jnp.sqrt(clean(x, real, 1)), real), kind="positive"),
    subject("log", lambda x, real: steps(jnp.log(clean(x, real, 1)), real), kind="positive"),
    subject("sum", lambda x, real: rows(clean(x, real).sum(1), real), pooled=True),
    subject("mean", lambda x, real: rows(clean(x, real).sum(1) / count(real), real), pooled=True),
    subject(
        "max",
        lambda x, real: rows(jnp.max(clean(x, real, -1e4), axis=1, initial=-1e4), real),
        pooled=True,
    ),
    subject("centre", lambda x, real: steps(centre(clean(x, real), real), real)),
    subject("cumsum", lambda x, real: steps(jnp.cumsum(clean(x, real), axis=1), real)),
    subject("scan", lambda x, real: steps(scanned(x, real)[1], real)),
    subject("scan backward", lambda x, real: steps(scanned(x, real, reverse=True)[1], real)),
    subject("scan, last", lambda x, real: rows(scanned(x, real)[0], real), pooled=True),
    subject(
        "bidirectional scan",
        lambda x, real: steps(
            jnp.concatenate([scanned(x, real)[1], scanned(x, real, reverse=True)[1]], axis=-1), real
        ),
    ),
    subject("attention", lambda x, real: steps(attention(clean(x, real), real), real)),
    subject(
        "neighbours", lambda x, real: steps(neighbours(x, real), real), mask_class="contiguous"
    ),
    subject(
        "position",
        lambda x, real: steps(
            clean(x, real) * jnp.cos(masks.positions(real))[..., None].astype(x.dtype), real
        ),
    ),
    subject("flip", lambda x, real: ops.flip(x, real)),
    with_params(
        "dense", lambda w, x, real: steps((clean(x, real) @ w).astype(x.dtype), real), WEIGHT
    ),
    with_params(
        "scaled norm",
        lambda w, x, real: steps((normalised(clean(x, real)) * w).astype(x.dtype), real),
        SCALE,
    ),
]
