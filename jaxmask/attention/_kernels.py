"""`method="cudnn"` and `"splash"`: kernels that JAX has for GPUs and TPUs.

Both support right padding only, and apply causal masks and windows by column. Real steps are first
moved to the front (packed sequences contiguously), so columns are positions; outputs at padding are
overwritten.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxmask import _mask_ops
from jaxmask._sums import accumulator
from jaxmask._types import Array, Mask, Segments, promotion_allowed
from jaxmask.attention._choice import Asks, needs_all_pairs
from jaxmask.attention._reference import Given, Setting, reference, seen_and_bias
from jaxmask.attention._visible import zero_unseen

LANES = 128  # of a TPU; block sizes are multiples of it


def run(setting: Setting, given: Given, scale: Any, predicate: Any, asks: Asks) -> Array:
    """`[batch, query, heads, feature]`, 0 at queries that see no key."""
    is_array = isinstance(scale, jax.Array)
    if is_array:  # it may have a gradient
        given = given._replace(q=_scaled(given.q, scale))
    scale = 1.0 if is_array else given.q.shape[3] ** -0.5 if scale is None else float(scale)
    if setting.choice.method == "cudnn":
        return _cudnn(setting, given, scale, predicate, asks)
    return jax.lax.platform_dependent(
        given,
        tpu=functools.partial(splash, setting, scale, interpret=False),
        default=lambda given: reference(setting, given, scale),
    )


def _scaled(q: Array, scale: Any) -> Array:
    return (q.astype(accumulator(q.dtype)) * scale).astype(q.dtype)


def _cudnn(setting: Setting, given: Given, scale: float, predicate: Any, asks: Asks) -> Array:
    options: dict[str, Any] = {"scale": scale, "implementation": "cudnn"}
    seen, bias = seen_and_bias(setting, given, predicate)
    if needs_all_pairs(asks):
        seen = None if seen is None else jnp.broadcast_to(seen, _pairs(given, seen))
        with promotion_allowed():
            y = jax.nn.dot_product_attention(*given[:1], given.k, given.v, bias, seen, **options)
        return zero_unseen(y, given.q_mask, seen)
    q, back, q_lengths = _to_the_front(given.q, given.q_mask)
    k, _, kv_lengths = _to_the_front(given.k, given.kv_mask)
    v, _, _ = _to_the_front(given.v, given.kv_mask)
    left = setting.window[0] if isinstance(setting.window, tuple) else setting.window
    y = jax.nn.dot_product_attention(
        *(q, k, v),
        is_causal=setting.causal,
        local_window_size=None if left is None else (left - 1, 0),
        query_seq_lengths=q_lengths,
        key_value_seq_lengths=kv_lengths,
        **options,
    )
    return zero_unseen(_moved(y, back), given.q_mask, seen)


def _pairs(given: Given, seen: Array) -> tuple[int, ...]:
    return *seen.shape[:2], given.q.shape[1], given.k.shape[1]


def _ids(x: Array, mask: Mask) -> Int[Array, "batch time"]:
    if isinstance(mask, Segments):
        return jnp.asarray(mask.ids).astype(jnp.int32)
    return _mask_ops.real_steps(mask, x.shape[:2]).astype(jnp.int32)


def _to_the_front(x: Array, mask: Mask) -> tuple[Array, Array | None, Array | None]:
    """`x` with real steps first, the inverse permutation, and the number of real steps, at least 1.

    An empty row would divide by 0, and its output is overwritten.
    """
    if mask is None:
        return x, None, None
    order, back = _orders(_ids(x, mask))
    real = _mask_ops.real_steps(mask, x.shape[:2])
    lengths = jnp.maximum(jnp.sum(real, axis=1, dtype=jnp.int32), 1)
    return _moved(x, order), back, lengths


def _orders(ids: Int[Array, "batch time"]) -> tuple[Array, Array]:
    """The permutation with each sequence contiguous and padding last, and its inverse."""
    order = jnp.argsort(jnp.where(ids > 0, ids, jnp.iinfo(ids.dtype).max), axis=1, stable=True)
    return order, jnp.argsort(order, axis=1)


def _moved(x: Array, order: Array | None) -> Array:
    return x if order is None else jnp.take_along_axis(x, _mask_ops.expand(order, x.ndim), axis=1)


def splash(setting: Setting, scale: float, given: Given, *, interpret: bool) -> Array:
    """Splash attention of a TPU; `interpret` runs its kernel anywhere, slowly."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels

    queries, keys = given.q.shape[1], given.k.shape[1]
    ids, back = [], None
    arrays = {"q": _scaled(given.q, scale), "k": given.k, "v": given.v}
    for names, mask in (("q", given.q_mask), ("kv", given.kv_mask)):
        own = _ids(arrays[names[0]], mask)
        order, inverse = _orders(own)
        for name in names if mask is not None else ():
            arrays[name] = _moved(arrays[name], order)
        back = inverse if names == "q" and mask is not None else back
        ids.append(jnp.take_along_axis(own, order, axis=1))
    rows = -(-queries // LANES) * LANES
    columns = -(-keys // LANES) * LANES
    if setting.causal or setting.window is not None:
        # So that each query has its own column: a block of queries that visits no keys is nan.
        columns = max(rows, columns)
    ids = [_right_padded(x, n) for x, n in zip(ids, (rows, columns), strict=True)]
    q, k, v = (
        jnp.swapaxes(_right_padded(x, n), 1, 2)
        for x, n in zip(arrays.values(), (rows, columns, columns), strict=True)
    )
    kernel = kernels.make_splash_mha(
        _static_mask(setting, given.q.shape[2], rows, columns),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=setting.softcap,
        interpret=interpret,
    )
    y = jax.vmap(kernel)(q, k, v, segment_ids=kernels.SegmentIds(*ids))
    y = _moved(jnp.swapaxes(y, 1, 2)[:, :queries], back).astype(given.q.dtype)
    return zero_unseen(y, given.q_mask, seen_and_bias(setting, given, None)[0])


def _right_padded(x: Array, time: int) -> Array:
    """Right-padded with zeros.

    As a segment id 0 is padding, which attends to padding, so no query has an empty set of keys.
    """
    return jnp.pad(x, [(0, time - n if i == 1 else 0) for i, n in enumerate(x.shape)])


def _static_mask(setting: Setting, heads: int, rows: int, columns: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    left, right = setting.window if isinstance(setting.window, tuple) else (setting.window,) * 2
    right = 1 if setting.causal else right
    if left is None and right is None:
        own: Any = masks.FullMask((rows, columns))
    elif left is None and right == 1:
        own = masks.CausalMask((rows, columns))
    else:
        size = (None if left is None else left - 1, None if right is None else right - 1)
        own = masks.LocalMask((rows, columns), size, 0)
    return masks.MultiHeadMask([own] * heads)
