"""What one block of queries sees in one block of keys, with which bias, and what dropout keeps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt32

from jaxmask._types import Array
from jaxmask.attention._blocks.layout import (
    Side,
    at_block,
    in_blocks,
    padded,
    physical,
    seen_pairs,
    start,
)
from jaxmask.attention._reference import Given, Setting, kept_pairs, key_ranks


class Context(NamedTuple):
    """What all blocks share; a bias and what a predicate allows are padded to whole blocks.

    Where they are evaluated by block, these are the arrays they close over. `all_seen`: no pair is
    hidden, by what is static.
    """

    query: Side
    key: Side
    allowed: Any  # [batch or 1, 1, query, key]
    bias: Any  # [batch or 1, heads or 1, query, key]
    noise: UInt32[Array, "batch query_blocks size data"] | None
    ranks: Int[Array, "batch key_blocks size"] | None
    steps: tuple[int, int]
    all_seen: bool


class Place(NamedTuple):
    """Where a block of queries meets one of keys: a row, and the number of each there."""

    row: Int[Array, ""]
    query: Int[Array, ""]
    key: Int[Array, ""]


def context(setting: Setting, given: Given, query: Side, key: Side) -> Context:
    size = setting.choice.queries, setting.choice.keys
    allowed, bias = given.allowed, given.bias
    if allowed is not None and not isinstance(allowed, tuple):
        allowed = _whole(allowed[:, None], size)
    if bias is not None and not isinstance(bias, tuple):
        bias = _whole(bias, size)
    steps = given.q.shape[1], given.k.shape[1]
    rest = steps, _all_seen(setting, given)
    if given.noise is None:
        return Context(query, key, allowed, bias, None, None, *rest)
    noise = in_blocks(given.noise, size[0])
    ranks = key_ranks(given.k, given.kv_mask)
    return Context(query, key, allowed, bias, noise, in_blocks(ranks, size[1]), *rest)


def _all_seen(setting: Setting, given: Given) -> bool:
    hiding = setting.window, setting.predicate, given.q_mask, given.kv_mask, given.allowed
    if setting.causal or given.bias is not None or any(x is not None for x in hiding):
        return False
    return given.q.shape[1] % setting.choice.queries == given.k.shape[1] % setting.choice.keys == 0


def _whole(x: Array, size: tuple[int, int]) -> Array:
    return padded(padded(x, size[0], axis=2), size[1], axis=3)


def seen_and_bias(
    setting: Setting, shared: Context, place: Place, kv_heads: int
) -> tuple[Bool[Array, "kv_heads_or_1 group_or_1 query key"] | None, Array | None]:
    """Which keys the queries see, None if all, and the bias of those, 0 elsewhere."""
    if shared.all_seen:
        return None, None
    row = place.row
    q_ids, q_at = (at_block(at_block(x, row), place.query) for x in shared.query[:2])
    k_ids, k_at = (at_block(at_block(x, row), place.key) for x in shared.key[:2])
    seen = seen_pairs(setting, q_ids, q_at, k_ids, k_at)[None, None]
    if setting.predicate is not None:
        seen &= _allowed(setting, shared, place)
    elif shared.allowed is not None:
        seen &= _cut(setting, shared, shared.allowed, place, kv_heads)
    if shared.bias is None:
        return seen, None
    if setting.bias is None:
        bias = _cut(setting, shared, shared.bias, place, kv_heads)
    else:
        bias = asked_bias(setting, shared, place, own_arrays(shared, shared.bias, place))
        bias = bias.reshape(min(kv_heads, len(bias)), -1, *bias.shape[1:])
    seen &= bias != -jnp.inf
    return seen, jnp.where(seen, bias, 0)


def where_seen(seen: Array | None, x: Array, otherwise: float) -> Array:
    return x if seen is None else jnp.where(seen, x, otherwise)


def _allowed(setting: Setting, shared: Context, place: Place) -> Bool[Array, "1 1 query key"]:
    """What a predicate of physical positions says."""
    assert setting.predicate is not None
    arrays = own_arrays(shared, shared.allowed, place)
    size = setting.choice.queries, setting.choice.keys
    query, key = map(physical, place[1:], size, shared.steps)
    return of_row(setting.predicate(arrays, query, key), place.row)[None, None]


def of_row(allowed: Array, row: Array) -> Array:
    """What a predicate says of one row, where its result has an axis of rows."""
    return allowed if allowed.ndim == 2 else at_block(allowed, row % len(allowed))


def asked_bias(
    setting: Setting, shared: Context, place: Place, arrays: tuple[Array, ...]
) -> Float[Array, "heads_or_1 query key"]:
    assert setting.bias is not None
    query = at_block(at_block(shared.query.at, place.row), place.query)
    key = at_block(at_block(shared.key.at, place.row), place.key)
    return setting.bias(arrays, query, key)[0]


def own_arrays(shared: Context, arrays: tuple[Array, ...], place: Place) -> tuple[Array, ...]:
    """The arrays for a row: `vmap` makes several of each."""
    return tuple(at_block(a, place.row * len(a) // len(shared.key.ids)) for a in arrays)


def corner(setting: Setting, shared: Context, x: Array, place: Place) -> tuple:
    """Where two blocks meet in a `[batch or 1, heads or 1, query, key]` array."""
    row = place.row * len(x) // len(shared.key.ids)
    return start(row, 0, place.query * setting.choice.queries, place.key * setting.choice.keys)


def _cut(setting: Setting, shared: Context, x: Array, place: Place, kv_heads: int) -> Array:
    size = setting.choice.queries, setting.choice.keys
    x = jax.lax.dynamic_slice(x, corner(setting, shared, x, place), (1, x.shape[1], *size))[0]
    return x.reshape(min(kv_heads, len(x)), -1, *size)  # one where all heads share it


def kept(
    setting: Setting, shared: Context, place: Place, heads: tuple[int, int]
) -> Bool[Array, "kv_heads group query key"] | None:
    """The weights that dropout keeps, for `(kv_heads, group)` heads."""
    if shared.noise is None or shared.ranks is None:
        return None
    noise = at_block(at_block(shared.noise, place.row), place.query)
    ranks = at_block(at_block(shared.ranks, place.row), place.key)
    each = kept_pairs(setting, noise, ranks, heads[0] * heads[1])
    return jnp.transpose(each.reshape(*each.shape[:2], *heads), (2, 3, 0, 1))


def dropped(setting: Setting, weights: Array, keep: Array | None) -> Array:
    return weights if keep is None else jnp.where(keep, weights / (1 - setting.dropout_rate), 0)
