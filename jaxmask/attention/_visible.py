"""Which keys each query sees, and 0 where it sees none."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from jaxmask import _check, _mask_ops, masks
from jaxmask._types import Array, ArrayLike, Mask, Segments, Window
from jaxmask.masks import AttentionPredicate


def check_masks(
    q: ArrayLike, q_mask: Mask, k: ArrayLike, kv_mask: Mask, where: str
) -> tuple[Array, Mask, Array, Mask]:
    """Check the pairs of queries and keys, and that they fit each other."""
    q, q_mask = _check.pair(q, q_mask, where, over_time=True, name="q", mask_name="q_mask")
    k, kv_mask = _check.pair(k, kv_mask, where, over_time=True, name="k", mask_name="kv_mask")
    _check.packed((q_mask, kv_mask), where, "`q_mask` and `kv_mask`")
    if q.shape[0] != k.shape[0]:
        raise ValueError(
            f"{where}: `q` and `k` must have one batch size, got {q.shape[0]} and {k.shape[0]}."
        )
    return q, q_mask, k, kv_mask


def ranks(x: Array, mask: Mask, given: ArrayLike | None, where: str, name: str) -> Array:
    """`[batch|1, time]`: the given positions, else the rank of each real step."""
    if given is not None:
        positions = _check.array(given, name, where)
        _check.shape(positions, x.shape[:2], "[batch, time]", where, name)
        if not jnp.issubdtype(positions.dtype, jnp.integer):
            raise TypeError(f"{where}: `{name}` must be integers, got dtype {positions.dtype}.")
        # Unsigned and narrow integers cannot hold the differences that are taken.
        return positions.astype(jnp.int64 if positions.dtype.itemsize == 8 else jnp.int32)
    return jnp.arange(x.shape[1])[None] if mask is None else masks.positions(mask)


def near(
    causal: bool, window: Window, q_low: Array, q_high: Array, k_low: Array, k_high: Array
) -> Any:
    """Whether a query between two positions may see a key between two others; None: no bound."""
    left, right = window if isinstance(window, tuple) else (window, window)
    right = 1 if causal else right
    ahead = None if right is None else k_low < q_high + right
    if left is None:
        return ahead
    behind = k_high > q_low - left
    return behind if ahead is None else behind & ahead


def visible(
    q: Array,
    q_mask: Mask,
    k: Array,
    kv_mask: Mask,
    *,
    causal: bool = False,
    window: Window = None,
    predicate: AttentionPredicate | None = None,
    positions: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
    where: str,
) -> Bool[Array, "batch_or_1 1 query_or_1 key"] | None:
    """Which keys each query sees; None if every query sees all.

    Axes that it does not depend on have size 1. The entries of padded queries have no meaning, as
    their results are discarded.
    """
    seen = None
    if predicate is not None or isinstance(q_mask, Segments):
        q_full, kv_full = (
            jnp.ones(x.shape[:2], bool) if mask is None else mask
            for x, mask in ((q, q_mask), (k, kv_mask))
        )
        seen = masks.to_attention_mask(q_full, kv_full, predicate=predicate)
    elif kv_mask is not None:
        seen = masks.as_bool(kv_mask)[:, None, None, :]
    if causal or window is not None:
        close = _near(q, q_mask, k, kv_mask, causal, window, positions, where)[:, None]
        seen = close if seen is None else seen & close
    return seen


def _near(
    q: Array,
    q_mask: Mask,
    k: Array,
    kv_mask: Mask,
    causal: bool,
    window: Window,
    positions: tuple[ArrayLike | None, ArrayLike | None],
    where: str,
) -> Bool[Array, "batch_or_1 query key"]:
    """`causal` and `window`, by distance in real steps: padding in between does not count."""
    query = ranks(q, q_mask, positions[0], where, "q_positions")[:, :, None]
    key = ranks(k, kv_mask, positions[1], where, "kv_positions")[:, None, :]
    return near(causal, window, query, query, key, key)


def softmax_over_keys(logits: Array, seen: Array | None) -> Array:
    """Softmax of `[..., key]` over the visible keys, whatever the logits of the others."""
    if seen is not None:
        # Finite, so that a query that sees no key stays finite until it is replaced.
        logits = jnp.where(seen, logits, 0.7 * jnp.finfo(logits.dtype).min)
    return jax.nn.softmax(logits, axis=-1)


def zero_unseen(y: Array, q_mask: Mask, seen: Array | None) -> Array:
    """Zero `y` at padded queries, and at those that see no key."""
    keep = _mask_ops.select_in(y, q_mask)
    if seen is not None:
        some = jnp.any(seen, axis=-1)  # [batch|1, heads|1, query|1]
        keep = keep & jnp.moveaxis(some, 1, 2)[..., None]
    return y if q_mask is None and seen is None else jnp.where(keep, y, 0)
