"""What one block of queries sees in one block of keys, and the logits of the two."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt32

from jaxmask import _mask_ops, masks
from jaxmask._types import Array
from jaxmask.attention._blocks.layout import Side, at_block, in_blocks, padded, seen_pairs
from jaxmask.attention._reference import Given, Setting, kept_pairs

# Elements of a block lie as `[kv_heads, key, group, query]`: its columns are then the queries of
# the heads that read one head of keys.
Pairs = Float[Array, "kv_heads key group query"]


class Context(NamedTuple):
    """What all blocks of all rows share, padded to whole blocks."""

    key: Side
    allowed: Bool[Array, "batch_or_1 1 query key"] | None
    bias: Float[Array, "batch_or_1 heads_or_1 query key"] | None
    ranks: Int[Array, "batch key_blocks size"] | None


class Query(NamedTuple):
    """A block of queries: its row, its number there, and what is known of each query."""

    row: Int[Array, ""]
    block: Int[Array, ""]
    ids: Int[Array, "query"]
    at: Int[Array, "query"]
    noise: UInt32[Array, "query data"] | None


def context(setting: Setting, given: Given, key: Side) -> Context:
    size = setting.choice.queries, setting.choice.keys
    allowed = None if given.allowed is None else _whole(given.allowed[:, None], size)
    bias = None if given.bias is None else _whole(given.bias, size)
    if given.noise is None:
        return Context(key, allowed, bias, None)
    real = _mask_ops.real_steps(given.kv_mask, given.k.shape[:2])
    return Context(key, allowed, bias, in_blocks(masks.positions(real), size[1]))


def _whole(x: Array, size: tuple[int, int]) -> Array:
    return padded(padded(x, size[0], axis=2), size[1], axis=3)


def queries(given: Given, query: Side) -> Query:
    """The blocks of queries of all rows, on one leading axis."""
    rows, blocks, size = query.ids.shape
    row, block = jnp.divmod(jnp.arange(rows * blocks, dtype=jnp.int32), blocks)
    noise = None
    if given.noise is not None:
        noise = in_blocks(given.noise, size).reshape(rows * blocks, size, -1)
    return Query(row, block, query.ids.reshape(-1, size), query.at.reshape(-1, size), noise)


def corner(x: Array, shared: Context, query: Query, block: Array, size: tuple[int, int]) -> tuple:
    """Where a pair of blocks begins in a `[batch or 1, heads or 1, query, key]` array."""
    row = query.row * len(x) // len(shared.key.ids)
    return row, 0, query.block * size[0], block * size[1]


def seen_and_bias(
    setting: Setting, shared: Context, query: Query, block: Array, kv_heads: int
) -> tuple[Bool[Array, "kv_heads_or_1 key group_or_1 query"], Pairs | None]:
    """Which keys the queries see, and the bias of those, 0 elsewhere."""
    ids, at = (at_block(at_block(x, query.row), block) for x in shared.key[:2])
    seen = seen_pairs(setting, query.ids, query.at, ids, at)[None, :, None, :]
    if shared.allowed is not None:
        seen &= _cut(setting, shared.allowed, shared, query, block, kv_heads)
    if shared.bias is None:
        return seen, None
    bias = _cut(setting, shared.bias, shared, query, block, kv_heads)
    seen &= bias != -jnp.inf
    return seen, jnp.where(seen, bias, 0)


def _cut(
    setting: Setting, x: Array, shared: Context, query: Query, block: Array, kv_heads: int
) -> Array:
    size = setting.choice.queries, setting.choice.keys
    start = corner(x, shared, query, block, size)
    x = jax.lax.dynamic_slice(x, start, (1, x.shape[1], *size))[0]
    kv_heads = min(kv_heads, len(x))  # 1 where all heads share it
    return jnp.transpose(x.reshape(kv_heads, -1, *size), (0, 3, 1, 2))


def kept(setting: Setting, shared: Context, query: Query, block: Array, heads: tuple) -> Array:
    """The weights that dropout keeps, for `(kv_heads, group)` heads."""
    assert query.noise is not None
    assert shared.ranks is not None
    ranks = at_block(at_block(shared.ranks, query.row), block)
    each = kept_pairs(setting, query.noise, ranks, heads[0] * heads[1])
    return jnp.transpose(each.reshape(*each.shape[:2], *heads), (2, 1, 3, 0))


def dropped(setting: Setting, weights: Pairs, keep: Array | None) -> Pairs:
    return weights if keep is None else jnp.where(keep, weights / (1 - setting.dropout_rate), 0)
