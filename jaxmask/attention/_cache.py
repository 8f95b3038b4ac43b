"""Causal attention in chunks: keys and values of the real steps so far, compact in a cache."""

from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, _room, masks
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._steps import filled
from jaxmask._types import Array, ArrayLike, Lengths, Mask, Pair, RowMask, StepMask
from jaxmask.attention._choice import Choice
from jaxmask.attention._dot_product import attend
from jaxmask.attention._positions import PositionBias


class KVCache(NamedTuple):
    """Keys and values of the real steps of each row so far.

    Only real steps are stored, each at its rank among the real steps of its row, so prompts may be
    padded on either side and rows may grow at different rates.

    Attributes:
      k: `[batch, slots, kv_heads, head_features]`, at least float32.
      v: `[batch, slots, kv_heads, value_features]`, else like `k`.
      length: `[batch]`, int32: real steps so far, including those that did not fit.
      overflowed: `[batch]`, boolean: True if a real step did not fit. A window forgets steps that
        no later query sees, which is no overflow.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> cache = jm.attention.empty_cache(1, 4, kv_heads=2, head_features=3)
      >>> cache.k.shape, cache.length.tolist(), cache.overflowed.tolist()
      ((1, 4, 2, 3), [0], [False])
    """

    k: Array
    v: Array
    length: Lengths
    overflowed: RowMask

    @property
    def mask(self) -> StepMask:
        """`[batch, slots]`: the slots that hold a step."""
        return jnp.arange(self.k.shape[1])[None] < self.length[:, None]

    def positions(self, x: Array, mask: Mask) -> Array:
        """`[batch, time]`: the positions of the real steps of the next chunk in their rows."""
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        return self.length[:, None] + masks.positions(real)


jax.export.register_namedtuple_serialization(KVCache, serialized_name="jaxmask.attention.KVCache")


def empty_cache(
    batch: int,
    slots: int,
    *,
    kv_heads: int,
    head_features: int,
    value_features: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> KVCache:
    """The cache before the first step.

    Args:
      batch: number of rows.
      slots: the most real steps that a row may have, or the window of windowed attention.
      kv_heads: heads of keys and values.
      head_features: features of a head.
      value_features: features of a head of values; `head_features` where None.
      dtype: of keys and values.

    Returns:
      A `KVCache` of zeros.

    Raises:
      TypeError, ValueError: if a size is not an int, or `slots` below 1.

    Example:
      >>> import jaxmask as jm
      >>> jm.attention.empty_cache(2, 4, kv_heads=1, head_features=3).v.shape
      (2, 4, 1, 3)
    """
    where = "empty_cache"
    batch, slots = _check.rows(batch, where), _check.count(slots, where, "slots", least=1)
    kv_heads = _check.count(kv_heads, where, "kv_heads")
    of_keys = _check.count(head_features, where, "head_features")
    of_values = _check.optional_count(value_features, where, "value_features")
    sizes = of_keys, of_keys if of_values is None else of_values
    # Two arrays, since one buffer cannot be donated twice.
    k, v = (jnp.zeros((batch, slots, kv_heads, size), dtype) for size in sizes)
    return KVCache(k, v, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))


@over_explicit_axes
@refusing_pairs
def extend_cache(cache: KVCache, k: ArrayLike, v: ArrayLike, mask: Mask) -> KVCache:
    """Put the keys and values of the next chunk of a memory in a cache, for queries of any kind.

    A memory that comes in chunks, such as audio that is still being recorded, is kept so, and
    attended to by `attend(q, q_mask, cache.k, cache.v, cache.mask)`, cast to the dtype of `q`.
    However it is split, its real steps stand in the cache as in one chunk. Mask class: any. A real
    step that finds the cache full is not kept; `cache.overflowed` marks the rows.

    Args:
      k: `[batch, time, kv_heads, head_features]`, floating.
      cache, v, mask: as in `attend_cached`.

    Returns:
      The `KVCache`, whose `mask` says which slots hold a step.

    Raises:
      TypeError, ValueError, MaskError: if `cache`, `k` and `v` do not fit, or for `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> cache = jm.attention.empty_cache(1, 3, kv_heads=1, head_features=1)
      >>> x, mask = jnp.array([2.0, 9.0, 4.0]).reshape(1, 3, 1, 1), jnp.array([[True, False, True]])
      >>> cache = jm.attention.extend_cache(cache, x, x, mask)
      >>> cache.k.ravel().tolist(), cache.mask.tolist()
      ([2.0, 4.0, 0.0], [[True, True, False]])
    """
    where = "extend_cache"
    _check.cache(cache, KVCache, where, "cache")
    k, mask = _check.pair(k, mask, where, over_time=True, segments=False, name="k")
    v, _ = _check.pair(v, mask, where, over_time=True, name="v")
    slots = _check_fit(cache, k, v, None, where)
    real = _mask_ops.real_steps(mask, k.shape[:2])
    positions = cache.positions(k, mask)
    keys, values = _stored(cache, k, v, real & (positions < slots), positions)
    length = cache.length + masks.lengths(real)
    return KVCache(keys, values, length, length > slots)


@over_explicit_axes
@refusing_pairs
def attend_cached(
    cache: KVCache,
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: Mask,
    *,
    window: int | None = None,
    bias: PositionBias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    method: str | Choice = "auto",
) -> tuple[KVCache, Pair]:
    """Causal self-attention of the next chunk to itself and to all that the cache holds.

    However a row is split into chunks, values and gradients are those of one causal `attend`. Mask
    class: any.

    A real step that finds the cache full becomes padding: 0, and False in the mask that comes out,
    which is therefore boolean even where `mask` is None; `cache.overflowed` marks the rows.

    Args:
      cache: as the previous chunk returned it, or `empty_cache`.
      q: `[batch, time, heads, head_features]`, floating; rotate it and `k` with
        `rotary(..., positions=cache.positions(q, mask))`.
      k: `[batch, time, kv_heads, head_features]`.
      v: `[batch, time, kv_heads, value_features]`.
      mask: `[batch, time]`, boolean, or None.
      window: one number, as in `attend`. The cache then holds the last `window` steps, whatever
        the length of the row: it has as many slots and never overflows.
      bias: a function of positions, as in `attend`; an array would have no place for a key that
        the cache holds.
      scale, softcap, method: as in `attend`.

    Returns:
      `(cache, (y, mask))`, `y` as in `attend`.

    Raises:
      TypeError, ValueError, MaskError: as `attend`; if `cache` does not fit, or does not
        have `window` slots; for `Segments`, whose sequences one cache would mix.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> cache = jm.attention.empty_cache(1, 2, kv_heads=1, head_features=1)
      >>> x = jnp.array([2.0, 4.0, 9.0]).reshape(1, 3, 1, 1)
      >>> cache, (y, mask) = jm.attention.attend_cached(cache, jnp.zeros_like(x), x, x, None)
      >>> y.ravel().tolist(), mask.tolist(), cache.overflowed.tolist()
      ([2.0, 3.0, 0.0], [[True, True, False]], [True])
    """
    where = "attend_cached"
    _check.cache(cache, KVCache, where, "cache")
    q, mask = _check.pair(q, mask, where, over_time=True, segments=False, name="q")
    k, _ = _check.pair(k, mask, where, over_time=True, name="k")
    v, _ = _check.pair(v, mask, where, over_time=True, name="v")
    slots = _check_fit(cache, k, v, window, where)
    if bias is not None:
        _check.function(bias, where, "bias")
    real = _mask_ops.real_steps(mask, q.shape[:2])
    positions, length = cache.positions(q, mask), cache.length + masks.lengths(real)
    if window is None:
        _room.check(slots, where, "the cache", "slots")
        mask = real = keep = real & (positions < slots)
        overflowed = length > slots
    else:
        keep = real & (positions >= length[:, None] - slots)
        overflowed = cache.overflowed
    new = KVCache(*_stored(cache, k, v, keep, positions), length, overflowed)
    keys, values, kv_mask, kv_positions = (
        _slots(new) if window is None else _slots_and_chunk(cache, k, v, real, positions)
    )
    y, _ = attend(
        *(q, real, keys.astype(q.dtype), values.astype(q.dtype), kv_mask),
        causal=True,
        window=window,
        bias=bias,
        scale=scale,
        softcap=softcap,
        method=method,
        q_positions=positions,
        kv_positions=kv_positions,
    )
    return new, (y, mask)


def _stored(
    cache: KVCache, k: Array, v: Array, keep: StepMask, positions: Array
) -> tuple[Array, Array]:
    slots = cache.k.shape[1]
    # What is not kept gets distinct indices past the end, where it is dropped.
    index = jnp.where(keep, positions % slots, slots + jnp.arange(keep.shape[1]))
    row = jnp.arange(keep.shape[0])[:, None]

    def store(old: Array, x: Array) -> Array:
        old = _as_wide(old, x)
        safe = filled(x, keep).astype(old.dtype)
        return old.at[row, index].set(safe, mode="drop", unique_indices=True)

    return store(cache.k, k), store(cache.v, v)


def _as_wide(old: Array, x: Array) -> Array:
    """The cache in float64 if the steps are, since float32 would lose half their digits."""
    return jnp.asarray(old, x.dtype if x.dtype == jnp.float64 else None)


def _slots(cache: KVCache) -> tuple[Array, Array, StepMask, Array]:
    """The keys and values of the cache, which are real, and their positions."""
    slot = jnp.arange(cache.k.shape[1])[None]
    return cache.k, cache.v, cache.mask, jnp.broadcast_to(slot, cache.mask.shape)


def _slots_and_chunk(
    cache: KVCache, k: Array, v: Array, real: StepMask, positions: Array
) -> tuple[Array, Array, StepMask, Array]:
    """The old ring, then the chunk, which would overwrite what its first queries see."""
    slots = cache.k.shape[1]
    last = cache.length[:, None] - 1
    held = last - (last - jnp.arange(slots)[None]) % slots  # the newest position of each slot
    keys, values = (
        jnp.concatenate([old, filled(x, real).astype(old.dtype)], axis=1)
        for old, x in ((_as_wide(cache.k, k), k), (_as_wide(cache.v, v), v))
    )
    kv_mask = jnp.concatenate([held >= 0, real], axis=1)
    return keys, values, kv_mask, jnp.concatenate([held, positions], axis=1)


def _check_fit(cache: KVCache, k: Array, v: Array, window: int | None, where: str) -> int:
    axes = "[batch, time, kv_heads, features]"
    batch, slots = cache.k.shape[:2]
    for x, held, name in ((k, cache.k, "k"), (v, cache.v, "v")):
        _check.floating(x, where, name)
        if x.ndim != 4 or (x.shape[0], *x.shape[2:]) != (batch, *held.shape[2:]):
            expected = (batch, "time", *held.shape[2:])
            raise ValueError(
                f"{where}: `{name}` must be {axes} = {expected} as in the cache, got {x.shape}."
            )
    if window is not None and _check.count(window, where, "window", least=1) != slots:
        raise ValueError(
            f"{where}: a cache for `window` {window} must have as many slots, got {slots}."
        )
    return slots
