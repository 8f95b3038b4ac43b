"""The weights computed again, block by block, from the logarithms of their sums (Dao, 2023)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.attention._blocks.forward import (
    Saved,
    Visit,
    by_features,
    empty,
    finite_steps,
    from_features,
    plan,
    without_bad,
)
from jaxmask.attention._blocks.layout import at_block, in_blocks
from jaxmask.attention._blocks.pairs import Context, corner, dropped, kept, seen_and_bias
from jaxmask.attention._reference import Given, Setting


def backward(setting: Setting, given: Given, saved: Saved, d_y: Array) -> tuple:
    """The cotangents of `q`, `k`, `v` and `bias`."""
    rows, time, heads, _ = given.q.shape
    kv_heads, size = given.k.shape[2], setting.choice
    given, *_ = without_bad(given)
    shared, visit = plan(setting, given)
    d_y, bad = _clean(saved, d_y)
    # What a weight loses by the others' growth, and each logit with it.
    shift = jnp.sum(jnp.where(d_y == 0, 0, saved.y) * d_y, axis=3, keepdims=True)
    columns = lambda x: by_features(x, size.queries, kv_heads)  # noqa: E731
    xs = (
        visit,
        *(columns(x) for x in (given.q, d_y)),
        *(columns(x)[:, :, 0] for x in (saved.log_sum[..., None], shift)),
        None if bad is None else in_blocks(bad, size.queries).reshape(len(visit.visits), -1),
    )
    k, v = (by_features(x, size.keys, kv_heads) for x in (given.k, given.v))
    by_key = jnp.swapaxes(k, 2, 3), jnp.swapaxes(v, 2, 3)

    def block(sums: tuple, xs: tuple) -> tuple[tuple, Array]:
        return _run(setting, shared, xs, (*by_key, k), sums)

    read = None if bad is None else jnp.zeros_like(shared.key.ids, bool).reshape(len(k), -1)
    d_bias = None if shared.bias is None else jnp.zeros_like(shared.bias, dtype=k.dtype)
    start = jnp.zeros_like(by_key[0]), jnp.zeros_like(by_key[1]), d_bias, read
    (d_k, d_v, d_bias, read), d_q = jax.lax.scan(block, start, xs)
    d_q = from_features(d_q, rows, time, heads)
    d_k, d_v = (
        from_features(jnp.swapaxes(x, 2, 3), rows, given.k.shape[1], kv_heads) for x in (d_k, d_v)
    )
    if bad is not None and read is not None:
        d_q = _spoil(d_q, bad)
        d_k, d_v = (_spoil(x, read.reshape(rows, -1)[:, : x.shape[1]]) for x in (d_k, d_v))
    if d_bias is not None and given.bias is not None:
        d_bias = d_bias[:, :, :time, : given.k.shape[1]].astype(given.bias.dtype)
    return d_q, d_k, d_v, d_bias


def _spoil(x: Array, bad: Array) -> Array:
    return jnp.where(bad[:, :, None, None], jnp.nan, x)


def _clean(saved: Saved, d_y: Array) -> tuple[Array, Array | None]:
    """0 at queries that see no key; in packed rows also at those with a nan or inf, and where."""
    d_y = jnp.where((saved.log_sum == empty(d_y.dtype))[..., None], 0, d_y)
    if saved.spoiled is None:
        return d_y, None
    d_y = jnp.where(saved.spoiled[:, :, None, None], 0, d_y)
    bad = ~finite_steps(d_y)
    return jnp.where(bad[:, :, None, None], 0, d_y), bad


def _run(setting: Setting, shared: Context, xs: tuple, keys: tuple, sums: tuple) -> tuple:
    """One block of queries: its cotangent, and those of the keys that it sees, added to `sums`."""
    visit, q, d_y, log_sum, shift, bad = xs
    k, v, k_by_feature = keys
    kv_heads, _, columns = q.shape
    group = columns // setting.choice.queries
    size = setting.choice.keys, group, setting.choice.queries
    blocks_of_row = len(k) // len(shared.key.ids)
    rows_of_q, rows_of_d_y = jnp.swapaxes(q, 1, 2), jnp.swapaxes(d_y, 1, 2)
    log_sum, shift = (x.reshape(kv_heads, 1, *size[1:]) for x in (log_sum, shift))

    def step(n: Array, carry: tuple) -> tuple:
        d_q, (d_k, d_v, d_bias, read) = carry
        block = visit.order[n]
        at = visit.query.row * blocks_of_row + block
        seen, bias = seen_and_bias(setting, shared, visit.query, block, kv_heads)
        logits = jnp.einsum("hkf,hfc->hkc", at_block(k, at), q).reshape(kv_heads, *size)
        logits = logits if bias is None else logits + bias
        weights = jnp.where(seen, jnp.exp(logits - log_sum), 0)
        d_weights = jnp.einsum("hkf,hfc->hkc", at_block(v, at), d_y).reshape(kv_heads, *size)
        used = weights
        if shared.ranks is not None:
            keep = kept(setting, shared, visit.query, block, (kv_heads, group))
            used, d_weights = (dropped(setting, x, keep) for x in (weights, d_weights))
        d_logits = jnp.where(seen, weights * (d_weights - shift), 0)
        flat = d_logits.reshape(kv_heads, -1, columns)
        d_q = d_q + jnp.einsum("hfk,hkc->hfc", at_block(k_by_feature, at), flat)
        d_k = _added(d_k, at, jnp.einsum("hkc,hcf->hkf", flat, rows_of_q))
        used = used.reshape(kv_heads, -1, columns)
        d_v = _added(d_v, at, jnp.einsum("hkc,hcf->hkf", used, rows_of_d_y))
        if read is not None:
            met = jnp.any(seen & bad, axis=(0, 2, 3))
            read = jax.lax.dynamic_update_index_in_dim(read, at_block(read, at) | met, at, 0)
        if d_bias is not None:
            d_bias = _added_bias(setting, d_bias, shared, visit, block, d_logits)
        return d_q, (d_k, d_v, d_bias, read)

    d_q, sums = jax.lax.fori_loop(0, visit.visits, step, (jnp.zeros_like(q), sums))
    return sums, d_q


def _added(total: Array, at: Array, more: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(total, at_block(total, at) + more, at, 0)


def _added_bias(
    setting: Setting, total: Array, shared: Context, visit: Visit, block: Array, d_logits: Array
) -> Array:
    size = setting.choice.queries, setting.choice.keys
    more = jnp.transpose(d_logits, (0, 2, 3, 1)).reshape(-1, *size)
    if total.shape[1] == 1:
        more = jnp.sum(more, axis=0, keepdims=True)
    start: Any = corner(total, shared, visit.query, block, size)
    old = jax.lax.dynamic_slice(total, start, (1, total.shape[1], *size))
    return jax.lax.dynamic_update_slice(total, old + more[None], start)
