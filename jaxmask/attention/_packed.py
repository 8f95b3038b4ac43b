"""Keep a nan, inf or overflow of one sequence away from the others in its packed row.

A weight of 0 does not stop them, since 0 * nan is nan: not in the sum over keys, and not in its
transpose, where the cotangents of all queries of a row meet at each key.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Shaped

from jaxmask import _mask_ops
from jaxmask._types import Array


def isolate(
    q: Array, k: Array, v: Array, seen: Array | None
) -> tuple[Array, Array, Array, Bool[Array, "batch query 1 1"]]:
    """Replace nan and inf by 0, and mark the queries that hold or see one."""
    assert seen is not None
    bad_q, bad_k, bad_v = (
        jnp.any(~jnp.isfinite(x), axis=tuple(range(2, x.ndim))) for x in (q, k, v)
    )
    bad_kv = bad_k | bad_v
    q = jnp.where(_mask_ops.expand(bad_q, q.ndim), 0, q)
    k, v = (jnp.where(_mask_ops.expand(bad_kv, x.ndim), 0, x) for x in (k, v))
    met = jnp.any(seen & bad_kv[:, None, None, :], axis=(1, 3))
    return q, k, v, _mask_ops.expand(met | bad_q, 4)


def read_values(
    weights: Shaped[Array, "batch heads query key"],
    v: Shaped[Array, "batch key kv_heads feature"],
    seen: Array | None,
    spoiled: Array | None,
) -> Shaped[Array, "batch query heads feature"]:
    """The weighted sum of the values for each query; `spoiled` marks those of `isolate`."""
    if spoiled is None:
        return _weighted_sum(weights.astype(v.dtype), v)
    assert seen is not None
    weights = jnp.where(seen, weights, 0)  # nan where a sequence overflowed
    return jnp.where(spoiled, jnp.nan, _weighted_sum_apart(weights.astype(v.dtype), v))


def _weighted_sum(weights: Array, v: Array) -> Array:
    batch, heads, query, key = weights.shape
    grouped = weights.reshape(batch, v.shape[2], heads // v.shape[2], query, key)
    return jnp.einsum("bkgts,bskf->btkgf", grouped, v).reshape(batch, query, heads, v.shape[3])


@jax.custom_vjp
def _weighted_sum_apart(weights: Array, v: Array) -> Array:
    """`_weighted_sum` that keeps a nan or inf cotangent with the keys that its query read."""
    return _weighted_sum(weights, v)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    weights, v = residuals
    bad = jnp.any(~jnp.isfinite(cotangent), axis=(2, 3))  # [batch, query]
    _, pull = jax.vjp(_weighted_sum, weights, v)
    by_weights, by_v = pull(jnp.where(bad[:, :, None, None], 0, cotangent))
    read = jnp.any((weights != 0) & bad[:, None, :, None], axis=(1, 2))  # [batch, key]
    by_weights = jnp.where(bad[:, None, :, None], jnp.nan, by_weights)
    return by_weights, jnp.where(_mask_ops.expand(read, v.ndim), jnp.nan, by_v)


_weighted_sum_apart.defvjp(lambda *inputs: (_weighted_sum(*inputs), inputs), _backward)
