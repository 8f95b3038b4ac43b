"""The running maximum, sum and weighted values of each block of queries (Rabe and Staats, 2021)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask._types import Array, Segments
from jaxmask.attention._blocks.layout import at_block, in_blocks, seen_blocks, seen_first, sides
from jaxmask.attention._blocks.pairs import (
    Context,
    Query,
    context,
    dropped,
    kept,
    queries,
    seen_and_bias,
)
from jaxmask.attention._reference import Given, Setting


class Saved(NamedTuple):
    """What the backward reads besides the arguments.

    `log_sum`: of the exponentials of a query, `EMPTY` where it sees no key. `spoiled`: queries of a
    packed row that hold or see a nan or inf.
    """

    y: Float[Array, "batch query heads feature"]
    log_sum: Float[Array, "batch query heads"]
    spoiled: Bool[Array, "batch query"] | None


class Visit(NamedTuple):
    """A block of queries, the blocks of keys that it sees, and how many they are."""

    query: Query
    order: Int[Array, "key_blocks"]
    visits: Int[Array, ""]


def empty(dtype: jnp.dtype) -> float:
    """The sum of no exponentials, and what stands for it: finite, for checks of infinities."""
    return float(jnp.finfo(dtype).max)


def plan(setting: Setting, given: Given) -> tuple[Context, Visit]:
    query, key = sides(setting, given)
    seen = seen_blocks(setting, given, query, key)
    order, count = seen_first(seen.reshape(-1, seen.shape[2]))
    return context(setting, given, key), Visit(queries(given, query), order, count)


def by_features(x: Array, size: int, kv_heads: int) -> Float[Array, "n kv_heads feature column"]:
    """Blocks whose columns are the queries of each group of heads, or the keys of each head."""
    x = in_blocks(x, size)
    rows, blocks, _, heads, feature = x.shape
    x = x.reshape(rows * blocks, size, kv_heads, heads // kv_heads, feature)
    return jnp.transpose(x, (0, 2, 4, 3, 1)).reshape(len(x), kv_heads, feature, -1)


def from_features(x: Array, rows: int, time: int, heads: int) -> Array:
    """The inverse of `by_features`: `[batch, time, heads, feature]`."""
    blocks, kv_heads, feature, _ = x.shape
    x = x.reshape(blocks, kv_heads, feature, heads // kv_heads, -1)
    x = jnp.transpose(x, (0, 4, 1, 3, 2)).reshape(rows, -1, heads, feature)
    return x[:, :time]


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
    shared, visit = plan(setting, given)
    rows, time, heads, _ = given.q.shape
    kv_heads, size = given.k.shape[2], setting.choice
    q = by_features(given.q, size.queries, kv_heads)
    k = jnp.swapaxes(by_features(given.k, size.keys, kv_heads), 2, 3)
    v = by_features(given.v, size.keys, kv_heads)
    bad = None if bad_kv is None else in_blocks(bad_kv, size.keys, True).reshape(len(k), -1)

    def block(_: None, xs: tuple[Visit, Array]) -> tuple[None, tuple]:
        return None, _run(setting, shared, xs[0], xs[1], (k, v, bad))

    _, (y, log_sum, met) = jax.lax.scan(block, None, (visit, q))
    y = from_features(y, rows, time, heads)
    log_sum = from_features(log_sum[:, :, None], rows, time, heads)[..., 0]
    if met is None:
        return Saved(y, log_sum, None)
    spoiled = bad_q | met.reshape(rows, -1)[:, :time]
    return Saved(jnp.where(spoiled[:, :, None, None], jnp.nan, y), log_sum, spoiled)


def _run(setting: Setting, shared: Context, visit: Visit, q: Array, keys: tuple) -> tuple:
    """One block of queries: `[kv_heads, feature, column]`, and the logarithms of its sums."""
    k, v, bad = keys
    kv_heads, _, columns = q.shape
    size = setting.choice.keys, columns // setting.choice.queries, setting.choice.queries
    low = 0.7 * float(jnp.finfo(q.dtype).min)
    blocks_of_row = len(k) // len(shared.key.ids)

    def step(n: Array, carry: tuple) -> tuple:
        top, total, y, met = carry
        block = visit.order[n]
        at = visit.query.row * blocks_of_row + block
        seen, bias = seen_and_bias(setting, shared, visit.query, block, kv_heads)
        logits = jnp.einsum("hkf,hfc->hkc", at_block(k, at), q).reshape(kv_heads, *size)
        logits = logits if bias is None else logits + bias
        new_top = jnp.maximum(top, jnp.max(jnp.where(seen, logits, low), axis=1))
        weights = jnp.where(seen, jnp.exp(logits - new_top[:, None]), 0)
        shrink = jnp.exp(top - new_top)
        total = total * shrink + jnp.sum(weights, axis=1)
        if shared.ranks is not None:
            keep = kept(setting, shared, visit.query, block, (kv_heads, size[1]))
            weights = dropped(setting, weights, keep)
        added = jnp.einsum("hfk,hkc->hfc", at_block(v, at), weights.reshape(kv_heads, -1, columns))
        y = y * shrink.reshape(kv_heads, 1, -1) + added
        if met is not None:
            met |= jnp.any(seen & at_block(bad, at)[:, None, None], axis=(0, 1, 2))
        return new_top, total, y, met

    zero = jnp.zeros_like(q, shape=(kv_heads, *size[1:]))
    met = None if bad is None else jnp.zeros_like(visit.query.ids, bool)
    start = zero + low, zero, jnp.zeros_like(q), met
    top, total, y, met = jax.lax.fori_loop(0, visit.visits, step, start)
    some = ~(total == 0)
    total = jnp.where(some, total, 1)
    log_sum = jnp.where(some, top + jnp.log(total), empty(q.dtype)).reshape(kv_heads, -1)
    return y / total.reshape(kv_heads, 1, -1), log_sum, met
