"""Arrays in blocks of queries and of keys, and which pairs of blocks hold a pair that is seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Shaped

from jaxmask import _mask_ops
from jaxmask._types import Array, Mask, Segments
from jaxmask.attention._reference import Given, Setting
from jaxmask.attention._visible import near, ranks

LARGEST = jnp.iinfo(jnp.int32).max


class Side(NamedTuple):
    """The queries or the keys, by block. `ids` of padding are 0 for queries and -1 for keys.

    `at`: the positions that `causal` and `window` compare. `order`: positions that tell apart the
    sequences of a packed row as well, where there are such.
    """

    ids: Int[Array, "batch blocks size"]
    at: Int[Array, "batch blocks size"]
    order: Int[Array, "batch blocks size"]


def sides(setting: Setting, given: Given) -> tuple[Side, Side]:
    """Of queries and of keys."""
    apart = _steps_apart(given)
    query = given.q, given.q_mask, given.q_positions, setting.choice.queries, 0
    key = given.k, given.kv_mask, given.kv_positions, setting.choice.keys, -1
    return _side(*query, apart), _side(*key, apart)


def _steps_apart(given: Given) -> tuple[int, int]:
    """The most segments, and a distance that is larger than any within a segment; 0 if unknown."""
    query, key = given.q_mask, given.kv_mask
    if not isinstance(query, Segments) or not isinstance(key, Segments):
        return 0, 0
    if given.q_positions is not None or given.kv_positions is not None:
        return 0, 0
    most = 1 + max(query.max_segments, key.max_segments)
    apart = max(given.q.shape[1], given.k.shape[1])
    return (most, apart) if (most + 1) * apart < LARGEST else (0, 0)


def _side(
    x: Array, mask: Mask, positions: Array | None, size: int, padding: int, apart: tuple[int, int]
) -> Side:
    if isinstance(mask, Segments):
        ids = jnp.asarray(mask.ids).astype(jnp.int32)
    else:
        ids = _mask_ops.real_steps(mask, x.shape[:2]).astype(jnp.int32)
    at = jnp.broadcast_to(ranks(x, mask, positions, "attend", "positions"), ids.shape)
    most, distance = apart
    order = at + distance * jnp.minimum(ids, most)
    ids = jnp.where(ids > 0, ids, padding)
    return Side(in_blocks(ids, size, padding), in_blocks(at, size), in_blocks(order, size))


def in_blocks(x: Array, size: int, fill: int = 0, axis: int = 1) -> Shaped[Array, "..."]:
    """Cut an axis into `(blocks, size)`, with `fill` behind its end."""
    x = padded(x, size, fill, axis)
    return x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])


def padded(x: Array, size: int, fill: int | bool = 0, axis: int = 1) -> Array:
    """Up to a multiple of `size`."""
    extra = [(0, -x.shape[i] % size if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, extra, constant_values=fill) if any(n for _, n in extra) else x


def seen_blocks(
    setting: Setting, given: Given, query: Side, key: Side
) -> Bool[Array, "batch query_blocks key_blocks"]:
    """False where no query of a block sees a key of the other; may be True too often."""
    q_low, q_high = (x[:, :, None] for x in _bounds(query.ids, query.ids > 0))
    k_low, k_high = (x[:, None, :] for x in _bounds(key.ids, key.ids > 0))
    seen = (q_low <= k_high) & (k_low <= q_high)
    if setting.causal or setting.window is not None:
        q_low, q_high = (x[:, :, None] for x in _bounds(query.order, query.ids > 0))
        k_low, k_high = (x[:, None, :] for x in _bounds(key.order, key.ids > 0))
        seen &= near(setting.causal, setting.window, q_low, q_high, k_low, k_high)
    size = setting.choice.queries, setting.choice.keys
    if setting.predicate is not None:
        seen &= _some_visible(setting, given, seen.shape)
    elif given.allowed is not None:
        seen &= _some(given.allowed, size, len(seen))
    if given.bias is not None and setting.bias is None:
        seen &= _some(jnp.any(given.bias != -jnp.inf, axis=1), size, len(seen))
    return seen


def _bounds(x: Array, real: Array) -> tuple[Array, Array]:
    """The least and the largest of each block; where nothing is real, no interval meets them."""
    largest = jnp.iinfo(x.dtype).max
    low = jnp.min(jnp.where(real, x, largest), axis=2)
    return low, jnp.max(jnp.where(real, x, -largest), axis=2)


def _some(allowed: Array, size: tuple[int, int], rows: int) -> Array:
    """Whether any pair of each two blocks is allowed, for all rows."""
    cut = padded(padded(allowed, size[0], axis=1), size[1], axis=2)
    cut = cut.reshape(len(cut), cut.shape[1] // size[0], size[0], -1, size[1])
    return jnp.repeat(jnp.any(cut, axis=(2, 4)), rows // len(cut), axis=0)


def _some_visible(
    setting: Setting, given: Given, shape: tuple[int, ...]
) -> Bool[Array, "batch query_blocks key_blocks"]:
    """The same for a predicate, evaluated on a block of queries and all keys at a time."""
    (rows, queries, keys), size, steps = shape, setting.choice, (given.q.shape[1], given.k.shape[1])
    key, predicate = physical(0, keys * size.keys, steps[1]), setting.predicate
    assert predicate is not None

    def strip(number: Array) -> Array:
        ask = lambda *arrays: predicate(  # noqa: E731
            arrays, physical(number, size.queries, steps[0]), key
        )
        allowed = jax.vmap(ask)(*given.allowed) if given.allowed else ask()[None]
        allowed = allowed if allowed.ndim > 3 else allowed[:, None]  # [copy, row, query, key]
        allowed = allowed.reshape(*allowed.shape[:3], keys, size.keys)
        return jnp.any(allowed, axis=(2, 4)).reshape(-1, keys)

    some = jax.lax.map(strip, jnp.arange(queries, dtype=jnp.int32))
    return jnp.repeat(jnp.swapaxes(some, 0, 1), rows // some.shape[1], axis=0)


def physical(block: Array | int, size: int, steps: int) -> Int[Array, "size"]:
    """The columns of a block; past the end of a row the last one, whose answer nobody reads."""
    return jnp.minimum(block * size + jnp.arange(size, dtype=jnp.int32), steps - 1)


def seen_pairs(
    setting: Setting, q_ids: Array, q_at: Array, k_ids: Array, k_at: Array
) -> Bool[Array, "query key"]:
    """What masks, `causal` and `window` let the queries of one block see in another."""
    seen = q_ids[:, None] == k_ids[None, :]
    if not setting.causal and setting.window is None:
        return seen
    query, key = q_at[:, None], k_at[None, :]
    return seen & near(setting.causal, setting.window, query, query, key, key)


def seen_first(seen: Bool[Array, "n blocks"]) -> tuple[Array, Array]:
    """The numbers of the blocks to visit, first in each row, and how many they are."""
    order = jnp.argsort(~seen, axis=1, stable=True).astype(jnp.int32)
    return order, jnp.sum(seen, axis=1, dtype=jnp.int32)


def at_block(x: Array, index: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, index, keepdims=False)


def start(*indices: Array | int) -> tuple[Array, ...]:
    """Indices of one dtype, also where integers are of 64 bits by default."""
    return tuple(jnp.asarray(index, jnp.int32) for index in indices)


def read(
    x: Shaped[Array, "batch time heads feature"], row: Array, block: Array, size: int, kv_heads: int
) -> Shaped[Array, "kv_heads group_and_step feature"]:
    """A block of all heads, those that read one head of keys side by side."""
    x = jax.lax.dynamic_slice(x, start(row, block * size, 0, 0), (1, size, *x.shape[2:]))
    x = x.reshape(size, kv_heads, -1, x.shape[3])
    return jnp.transpose(x, (1, 2, 0, 3)).reshape(kv_heads, -1, x.shape[3])


def write(total: Array, x: Array, row: Array, block: Array, size: int) -> Array:
    """The inverse of `read`: `total` with a block of it replaced."""
    kv_heads, _, feature = x.shape
    x = jnp.transpose(x.reshape(kv_heads, -1, size, feature), (2, 0, 1, 3))
    x = x.reshape(1, size, *total.shape[2:]).astype(total.dtype)
    return jax.lax.dynamic_update_slice(total, x, start(row, block * size, 0, 0))
