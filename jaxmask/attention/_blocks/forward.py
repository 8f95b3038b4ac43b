"""The running maximum, sum and weighted values of each block of queries (Rabe and Staats, 2021)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxmask._sums import accumulator
from jaxmask._types import Array, Segments
from jaxmask.attention._blocks.layout import (
    at_block,
    in_blocks,
    padded,
    read,
    seen_blocks,
    seen_first,
    sides,
    write,
)
from jaxmask.attention._blocks.pairs import (
    Context,
    Place,
    context,
    dropped,
    kept,
    seen_and_bias,
    where_seen,
)
from jaxmask.attention._reference import Given, Setting, capped


class Saved(NamedTuple):
    """What the backward reads besides the arguments.

    `log_sums`: of the exponentials of each query, `no_sum` where it sees no key. `spoiled`: queries
    of a packed row that hold or see a nan or inf.
    """

    y: Float[Array, "batch query heads feature"]
    log_sums: Float[Array, "batch query_blocks kv_heads group_and_query"]
    spoiled: Bool[Array, "batch query"] | None


def no_sum(dtype: jax.typing.DTypeLike) -> float:
    """Finite, for JAX's checks of infinities."""
    return float(jnp.finfo(dtype).max)


def lowest(dtype: jax.typing.DTypeLike) -> tuple[float, float]:
    """Logits of keys that are not seen, and the least maximum, which they do not reach."""
    least = float(jnp.finfo(dtype).min)
    return 0.7 * least, 0.35 * least


def finite_steps(x: Array) -> Bool[Array, "batch time"]:
    return jnp.all(jnp.isfinite(x), axis=(2, 3))


def without_bad(given: Given) -> tuple[Given, Array | None, Array | None]:
    """For packed rows: 0 where a query, or a key or its value, is not finite, and where that is."""
    if not isinstance(given.q_mask, Segments):
        return given, None, None
    good_q, good_kv = finite_steps(given.q), finite_steps(given.k) & finite_steps(given.v)
    fill = lambda x, good: jnp.where(good[:, :, None, None], x, 0)  # noqa: E731
    given = given._replace(
        q=fill(given.q, good_q), k=fill(given.k, good_kv), v=fill(given.v, good_kv)
    )
    return given, ~good_q, ~good_kv


def forward(setting: Setting, given: Given) -> Saved:
    given, bad_q, bad_kv = without_bad(given)
    query, key = sides(setting, given)
    seen = seen_blocks(setting, given, query, key)
    shared = context(setting, given, query, key)
    rows, blocks, _ = seen.shape
    size = setting.choice.queries
    q = padded(given.q, size)
    keys = *(padded(x, setting.choice.keys) for x in (given.k, given.v)), None
    if bad_kv is not None:
        keys = *keys[:2], in_blocks(bad_kv, setting.choice.keys)

    def block(y: Array, xs: tuple) -> tuple[Array, tuple]:
        row, number, *visits = xs
        x, log_sums, met = _run(setting, shared, (row, number), q, keys, visits)
        return write(y, x, row, number, size), (log_sums, met)

    numbers = jnp.divmod(jnp.arange(rows * blocks, dtype=jnp.int32), blocks)
    visits = seen_first(seen.reshape(rows * blocks, -1))
    # Wide: a loop over a buffer of bfloat16 was slower on a CPU.
    zeros = jnp.zeros_like(q, shape=(*q.shape[:3], given.v.shape[3]), dtype=accumulator(q.dtype))
    y, (log_sums, met) = jax.lax.scan(block, zeros, (*numbers, *visits))
    y = y[:, : given.q.shape[1]].astype(given.v.dtype)
    log_sums = log_sums.reshape(rows, blocks, *log_sums.shape[1:])
    if met is None:
        return Saved(y, log_sums, None)
    spoiled = bad_q | met.reshape(rows, -1)[:, : given.q.shape[1]]
    return Saved(jnp.where(spoiled[:, :, None, None], jnp.nan, y), log_sums, spoiled)


def scaled(setting: Setting, q: Array) -> Array:
    """Queries in the dtype of sums, with the scale of the logits in them."""
    return q.astype(accumulator(q.dtype)) * setting.scale


def _run(
    setting: Setting, shared: Context, where: tuple, queries: Array, keys: tuple, visits: list
) -> tuple[Array, Array, Array | None]:
    """One block of queries: `[kv_heads, query, feature]`, and the logarithms of its sums."""
    k, v, bad = keys
    (row, number), (order, count) = where, visits
    size, kv_heads = setting.choice, k.shape[2]
    q = scaled(setting, read(queries, row, number, size.queries, kv_heads))
    low, least_top = lowest(q.dtype)
    grouped = kv_heads, -1, size.queries, size.keys

    def step(n: Array, carry: tuple) -> tuple:
        top, total, y, met = carry
        place = Place(row, number, order[n])
        seen, bias = seen_and_bias(setting, shared, place, kv_heads)
        keys, values = (
            read(x, row, place.key, size.keys, kv_heads).astype(q.dtype) for x in (k, v)
        )
        logits = jnp.einsum("hqf,hkf->hqk", q, keys).reshape(grouped)
        logits = capped(setting, logits, seen)
        logits = logits if bias is None else logits + bias.astype(logits.dtype)
        logits = where_seen(seen, logits, low).reshape(kv_heads, -1, size.keys)
        new_top = jnp.maximum(top, jnp.max(logits, axis=2))
        weights = jnp.exp(logits - new_top[:, :, None])
        shrink = jnp.exp(top - new_top)
        total = total * shrink + jnp.sum(weights, axis=2)
        keep = kept(setting, shared, place, (kv_heads, weights.shape[1] // size.queries))
        weights = dropped(setting, weights.reshape(grouped), keep).reshape(weights.shape)
        y = y * shrink[:, :, None] + jnp.einsum("hqk,hkf->hqf", weights, values)
        if met is not None and seen is not None:
            bad_keys = at_block(at_block(bad, row), place.key)
            met |= jnp.any(seen & bad_keys, axis=(0, 1, 3))
        return new_top, total, y, met

    zero = jnp.zeros_like(q[:, :, 0])
    met = None if bad is None else jnp.zeros_like(shared.query.ids[0, 0], bool)
    carry = zero + least_top, zero, jnp.zeros_like(q, shape=(*q.shape[:2], v.shape[3])), met
    top, total, y, met = jax.lax.fori_loop(0, count, step, carry)
    some = ~(total == 0)  # also where it is nan
    total = jnp.where(some, total, 1)
    return y / total[:, :, None], jnp.where(some, top + jnp.log(total), no_sum(q.dtype)), met
