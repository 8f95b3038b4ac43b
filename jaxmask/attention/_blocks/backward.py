"""The weights computed again, block by block, from the logarithms of their sums (Dao, 2023)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxmask._derivatives import floats
from jaxmask._sums import accumulator
from jaxmask._types import Array
from jaxmask.attention._blocks.forward import (
    Saved,
    finite_steps,
    lowest,
    no_sum,
    scaled,
    without_bad,
)
from jaxmask.attention._blocks.layout import (
    at_block,
    in_blocks,
    padded,
    read,
    seen_blocks,
    seen_first,
    sides,
    start,
    write,
)
from jaxmask.attention._blocks.pairs import (
    Context,
    Place,
    asked_bias,
    context,
    corner,
    dropped,
    kept,
    own_arrays,
    seen_and_bias,
    where_seen,
)
from jaxmask.attention._pairwise import cotangents
from jaxmask.attention._reference import Given, Setting, capped


class Queries(NamedTuple):
    """What the queries bring, padded to whole blocks.

    `shift`: what all logits of a query lose, as weights sum to 1. `bad`: whose cotangent is nan or
    inf, in packed rows.
    """

    q: Float[Array, "batch query heads feature"]
    d_y: Float[Array, "batch query heads feature"]
    log_sums: Float[Array, "batch blocks kv_heads group_and_query"]
    shift: Float[Array, "batch blocks kv_heads group_and_query"]
    bad: Bool[Array, "batch blocks query"] | None


class Sums(NamedTuple):
    """The gradients that many blocks add to: `d_q` by feature, as its product comes."""

    d_q: Float[Array, "batch blocks kv_heads feature group_and_query"]
    d_bias: Any  # like `Context.bias`, or a list of the floating arrays there


def backward(setting: Setting, given: Given, saved: Saved, d_y: Array) -> tuple:
    """The cotangents of `q`, `k`, `v` and `bias`."""
    given, *_ = without_bad(given)
    query, key = sides(setting, given)
    seen = jnp.swapaxes(seen_blocks(setting, given, query, key), 1, 2)
    shared = context(setting, given, query, key)
    rows, blocks, _ = seen.shape
    queries, bad = _queries(setting, given, saved, d_y)
    k, v = (padded(x, setting.choice.keys) for x in (given.k, given.v))

    def block(carry: tuple, xs: tuple) -> tuple[tuple, Array | None]:
        (sums, d_k, d_v), (row, number, *visits) = carry, xs
        sums, *grads, met = _run(setting, shared, (row, number), queries, (k, v), visits, sums)
        d_k, d_v = (
            write(d, x, row, number, setting.choice.keys)
            for d, x in zip((d_k, d_v), grads, strict=True)
        )
        return (sums, d_k, d_v), met

    numbers = jnp.divmod(jnp.arange(rows * blocks, dtype=jnp.int32), blocks)
    visits = seen_first(seen.reshape(rows * blocks, -1))
    wide = accumulator(k.dtype)
    zero_k, zero_v = (jnp.zeros_like(x, dtype=wide) for x in (k, v))
    carry = _no_sums(setting, given, shared), zero_k, zero_v
    (sums, d_k, d_v), met = jax.lax.scan(block, carry, (*numbers, *visits))
    d_q = _by_step(sums.d_q, given.q)
    d_k, d_v = (d[:, : given.k.shape[1]].astype(k.dtype) for d in (d_k, d_v))
    if bad is not None and met is not None:
        met = met.reshape(rows, -1)[:, : given.k.shape[1]]
        d_q, d_k, d_v = (_spoil(x, m) for x, m in ((d_q, bad), (d_k, met), (d_v, met)))
    return d_q, d_k, d_v, _of_bias(given, sums)


def _no_sums(setting: Setting, given: Given, shared: Context) -> Sums:
    rows, blocks, size = shared.query.ids.shape
    _, _, heads, feature = given.q.shape
    kv_heads, wide = given.k.shape[2], accumulator(given.q.dtype)
    shape = rows, blocks, kv_heads, feature, heads // kv_heads * size
    d_bias = shared.bias
    if d_bias is not None:
        zeros = [
            jnp.zeros_like(a, dtype=jnp.promote_types(a.dtype, wide)) for a in floats(d_bias)[0]
        ]
        d_bias = zeros if setting.bias is not None else zeros[0]
    return Sums(jnp.zeros_like(given.q, shape=shape, dtype=wide), d_bias)


def _by_step(d_q: Array, q: Array) -> Array:
    rows, time, heads, feature = q.shape
    _, blocks, kv_heads, _, columns = d_q.shape
    group = heads // kv_heads
    d_q = d_q.reshape(rows, blocks, kv_heads, feature, group, columns // group)
    d_q = jnp.transpose(d_q, (0, 1, 5, 2, 4, 3)).reshape(rows, -1, heads, feature)
    return d_q[:, :time].astype(q.dtype)


def _of_bias(given: Given, sums: Sums) -> Any:
    if isinstance(given.bias, tuple):
        given_floats, _ = floats(given.bias)
        grads = [d.astype(a.dtype) for d, a in zip(sums.d_bias, given_floats, strict=True)]
        return cotangents(given.bias, grads)
    if sums.d_bias is None or given.bias is None:
        return None
    d_bias = sums.d_bias[:, :, : given.q.shape[1], : given.k.shape[1]]
    return d_bias.astype(given.bias.dtype)


def _spoil(x: Array, bad: Array) -> Array:
    return jnp.where(bad[:, :, None, None], jnp.nan, x)


def _queries(
    setting: Setting, given: Given, saved: Saved, d_y: Array
) -> tuple[Queries, Array | None]:
    """What the queries bring, and whose cotangent is nan or inf, in packed rows.

    The cotangent is 0 where a query sees no key, and in packed rows also where it holds or sees a
    nan or inf, or brings one.
    """
    rows, time, heads, _ = given.q.shape
    size, kv_heads = setting.choice.queries, given.k.shape[2]
    log_sums, bad = saved.log_sums, None
    some = log_sums != no_sum(log_sums.dtype)
    some = some.reshape(rows, some.shape[1], heads, size)
    some = jnp.swapaxes(some, 2, 3).reshape(rows, -1, heads)[:, :time]
    if saved.spoiled is not None:
        some &= ~saved.spoiled[:, :, None]
    d_y = jnp.where(some[..., None], d_y, 0)
    if saved.spoiled is not None:
        bad = ~finite_steps(d_y)
        d_y = jnp.where(bad[:, :, None, None], 0, d_y)
    wide = log_sums.dtype
    y = jnp.where(some[..., None], saved.y, 0)
    shift = in_blocks(jnp.sum(y.astype(wide) * d_y.astype(wide), axis=3), size)
    shift = jnp.swapaxes(shift, 2, 3).reshape(rows, -1, kv_heads, heads // kv_heads * size)
    in_rows = None if bad is None else in_blocks(bad, size)
    return Queries(padded(given.q, size), padded(d_y, size), log_sums, shift, in_rows), bad


def _run(
    setting: Setting,
    shared: Context,
    where: tuple,
    queries: Queries,
    keys: tuple[Array, Array],
    visits: list,
    sums: Sums,
) -> tuple[Sums, Array, Array, Array | None]:
    """One block of keys: its cotangents, and those of the queries that see it, added to `sums`."""
    (row, number), (order, count) = where, visits
    size, kv_heads = setting.choice, keys[0].shape[2]
    wide = accumulator(keys[0].dtype)
    k, v = (read(x, row, number, size.keys, kv_heads).astype(wide) for x in keys)
    k_by_feature = jnp.swapaxes(k, 1, 2)
    low, _ = lowest(wide)
    grouped = kv_heads, size.keys, -1, size.queries

    def step(n: Array, carry: tuple) -> tuple:
        d_k, d_v, met, (d_q, d_bias) = carry
        place = Place(row, order[n], number)
        q, d_y = (
            read(x, row, place.query, size.queries, kv_heads).astype(wide) for x in queries[:2]
        )
        q = scaled(setting, q)
        log_sums, shift = (at_block(at_block(x, row), place.query) for x in queries[2:4])
        seen, bias = seen_and_bias(setting, shared, place, kv_heads)
        seen, bias = (None if x is None else by_key(x) for x in (seen, bias))
        logits = jnp.einsum("hkf,hqf->hkq", k, q).reshape(grouped)
        logits, slope = capped(setting, logits, seen), None
        if setting.softcap is not None:
            slope = 1 - (logits / setting.softcap) ** 2
        logits = logits if bias is None else logits + bias.astype(logits.dtype)
        logits = where_seen(seen, logits, low).reshape(kv_heads, size.keys, -1)
        weights = jnp.exp(logits - log_sums[:, None])
        if queries.bad is not None and seen is not None:
            weights = only(seen, weights)
        d_weights = jnp.einsum("hkf,hqf->hkq", v, d_y)
        keep = kept(setting, shared, place, (kv_heads, weights.shape[2] // size.queries))
        keep = None if keep is None else by_key(keep).reshape(weights.shape)
        d_weights = dropped(setting, d_weights, keep)
        d_logits = weights * (d_weights - shift[:, None])
        if queries.bad is not None and seen is not None:
            d_logits = only(seen, d_logits)
            bad = at_block(at_block(queries.bad, row), place.query)
            met |= jnp.any(seen & bad, axis=(0, 2, 3))
        by_bias, d_logits = d_logits, _through(d_logits, slope)
        d_k += jnp.einsum("hkq,hqf->hkf", d_logits, q)
        d_v += jnp.einsum("hkq,hqf->hkf", dropped(setting, weights, keep), d_y)
        more = jnp.einsum("hfk,hkq->hfq", k_by_feature, d_logits) * setting.scale
        d_q = _added(d_q, more[None, None], start(row, place.query, 0, 0, 0))
        if jax.tree.leaves(d_bias):
            by_query = jnp.transpose(by_bias.reshape(grouped), (0, 2, 3, 1))
            by_query = by_query.reshape(-1, size.queries, size.keys)
            d_bias = _added_to_bias(setting, shared, d_bias, place, by_query)
        return d_k, d_v, met, Sums(d_q, d_bias)

    # Of packed rows, since another sequence may overflow, and 0 * inf is nan.
    only = lambda seen, x: jnp.where(seen, x.reshape(grouped), 0).reshape(x.shape)  # noqa: E731
    met = None if queries.bad is None else jnp.zeros_like(shared.key.ids[0, 0], bool)
    carry = jnp.zeros_like(k), jnp.zeros_like(v), met, sums
    d_k, d_v, met, sums = jax.lax.fori_loop(0, count, step, carry)
    return sums, d_k, d_v, met


def _through(d: Array, slope: Array | None) -> Array:
    """A cotangent of the logits before their cap."""
    return d if slope is None else d * slope.reshape(d.shape)


def _added_to_bias(
    setting: Setting, shared: Context, total: Any, place: Place, d: Float[Array, "heads query key"]
) -> Any:
    """Add what a block gives to the gradient of the bias, or of the arrays that it reads."""
    if setting.bias is None:
        d = jnp.sum(d, axis=0, keepdims=True) if total.shape[1] == 1 else d
        return _added(total, d[None], corner(setting, shared, total, place))
    own, replaced = floats(own_arrays(shared, shared.bias, place))
    block, pull = jax.vjp(lambda *new: asked_bias(setting, shared, place, replaced(new)), *own)
    d = jnp.sum(d, axis=0, keepdims=True) if len(block) == 1 else d
    row = place.row * len(total[0]) // len(shared.key.ids)  # `vmap` makes several of each
    return [
        _added(a, more[None].astype(a.dtype), start(row, *[0] * more.ndim))
        for a, more in zip(total, pull(d.astype(block.dtype)), strict=True)
    ]


def by_key(x: Array) -> Array:
    """From `[kv_heads, group, query, key]` to `[kv_heads, key, group, query]`."""
    return jnp.transpose(x, (0, 3, 1, 2))


def _added(total: Array, more: Array, at: tuple) -> Array:
    old = jax.lax.dynamic_slice(total, at, more.shape)
    return jax.lax.dynamic_update_slice(total, old + more, at)
