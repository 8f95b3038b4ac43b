"""Scaled dot-product attention over real steps."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, random
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, promotion_allowed
from jaxmask.attention._packed import isolate, read_values
from jaxmask.attention._visible import check_masks, only_seen, softmax_over_keys, visible
from jaxmask.masks import AttentionPredicate

_HEADS = "[batch, {}, heads, head_features]"


def attend(
    q: ArrayLike,
    q_mask: Mask,
    k: ArrayLike,
    v: ArrayLike,
    kv_mask: Mask,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: ArrayLike | None = None,
    predicate: AttentionPredicate | None = None,
    scale: float | None = None,
    q_positions: ArrayLike | None = None,
    kv_positions: ArrayLike | None = None,
    dropout_rate: float = 0.0,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
) -> Pair:
    """Scaled dot-product attention of each real query over the real keys that it may see.

        y[b, i, h] = sum_j softmax_j(scale q[b, i, h] . k[b, j, g] + bias[b, h, i, j]) v[b, j, g]

    where g is the key-value head of h. A query that sees no key gives exactly 0 and passes no
    gradient; its mask stays. Mask class: any. Distances count real steps, so padding between two
    steps does not separate them. Only a `predicate` or a `bias` that measures distance is physical:
    it counts columns of the arrays, so a hole keeps its place, and queries and keys whose rows
    begin at different columns must first be moved to the left by `jm.ops.compact`.

    Args:
      q: `[batch, query, heads, head_features]`, floating.
      q_mask: `[batch, query]`, boolean, or `Segments`, or None: every query is real.
      k: `[batch, key, kv_heads, head_features]` in the dtype of `q`; `kv_heads` divides `heads`,
        and query head h reads key head `h // (heads // kv_heads)`.
      v: like `k`.
      kv_mask: `[batch, key]`, boolean, or `Segments` (with `q_mask`; equal ids see each other), or
        None: every key is real. Self-attention passes the same mask twice.
      causal: a query sees keys up to its own position.
      window: static; a query sees keys at most `window - 1` real steps away: with `causal` the
        last `window` real steps, its own included, and with 1 only its own.
      bias: `[batch or 1, heads or 1, query, key]`, added to the logits; -inf hides a key.
      predicate: of *physical* positions, as in `jm.masks.to_attention_mask`.
      scale: of the logits; `1 / sqrt(head_features)` where None.
      q_positions: `[batch, query]`, integer: what `causal` and `window` compare; the rank of each
        real step in its row, or its segment, where None.
      kv_positions: `[batch, key]`, the same of the keys.
      dropout_rate: static, of attention weights, from 0 to below 1; needs `key`.
      key: a JAX random key. Noise is keyed by row, head and the ranks of query and key among the
        real steps, so padding changes none of it.
      row_ids: `[batch]`, integer: what keys the noise of each row; its batch index where None.

    Returns:
      The pair `(y, q_mask)`, `y` like `q`. In packed rows a nan, inf or overflow of one sequence
      turns the queries that see it into nan and touches no other sequence, in values and gradients;
      in exchange, `jax.jvp` does not support packed rows.

    Raises:
      TypeError: if `q`, `k`, `v` are not floating of one dtype, or a mask is not boolean.
      ValueError, MaskError: if shapes do not fit, a mask does not belong to its array, only one
        mask is `Segments`, `window` is below 1, or `dropout_rate` has no `key`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([2.0, 4.0, jnp.nan]).reshape(1, 3, 1, 1)
      >>> mask = jnp.array([[True, True, False]])
      >>> y, mask = jm.attention.attend(jnp.zeros_like(x), mask, x, x, mask)
      >>> y.ravel().tolist(), mask.tolist()
      ([3.0, 3.0, 0.0], [[True, True, False]])

    Agrees with `jax.nn.dot_product_attention`, which runs it, and with `keras.layers` and
    `torch.nn.functional` at queries that see a key. Source: Vaswani et al., 2017, arXiv:1706.03762.
    """
    where = "attend"
    q, q_mask, k, kv_mask = check_masks(q, q_mask, k, kv_mask, where)
    v = _check_heads(q, k, v)
    _check_rate(dropout_rate, key)
    if scale is not None:
        _check.number(scale, where, "scale")
    seen = visible(
        *(q, q_mask, k, kv_mask),
        causal=causal,
        window=window,
        predicate=predicate,
        positions=(q_positions, kv_positions),
        where=where,
    )
    if bias is not None:
        bias, seen = _split_bias(_check_bias(bias, q, k), q_mask, seen)
    q, k, v = (filled(x, m) for x, m in ((q, q_mask), (k, kv_mask), (v, kv_mask)))
    spoiled = None
    if isinstance(q_mask, Segments):
        q, k, v, spoiled = isolate(q, k, v, seen)
    with jax.named_scope("jaxmask.attend"):
        # JAX's function lacks float16 on CPU, a softmax in float64, dropout, and isolation of the
        # sequences of a packed row.
        in_jax = q.dtype in (jnp.float32, jnp.bfloat16)
        if dropout_rate or not in_jax or spoiled is not None:
            kept = _kept(key, (q, q_mask), (k, kv_mask), dropout_rate, row_ids)
            logits = _logits(q, k, scale)
            logits = logits if bias is None else logits + bias.astype(logits.dtype)
            weights = softmax_over_keys(logits, seen)
            weights = weights if kept is None else jnp.where(kept, weights / (1 - dropout_rate), 0)
            y = read_values(weights, v, seen, spoiled)
        else:
            with promotion_allowed():
                y = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=seen, scale=scale)
    return only_seen(y, q_mask, seen), q_mask


def _check_heads(q: Array, k: Array, v: ArrayLike) -> Array:
    v = _check.array(v, "v", "attend")
    for x, name, steps in ((q, "q", "query"), (k, "k", "key"), (v, "v", "key")):
        _check.floating(x, "attend", name)
        if x.ndim != 4:
            raise ValueError(f"attend: `{name}` must be {_HEADS.format(steps)}, got {x.shape}.")
        if x.dtype != q.dtype:
            raise TypeError(
                f"attend: `q`, `k` and `v` must have one dtype, got {q.dtype} and {name} "
                f"{x.dtype}. Nothing is cast."
            )
    _check.shape(v, k.shape, "[batch, key, kv_heads, head_features]", "attend", "v")
    if k.shape[3] != q.shape[3]:
        raise ValueError(
            f"attend: `q` and `k` must have the same head_features, got {q.shape[3]} and "
            f"{k.shape[3]}."
        )
    if not k.shape[2] or q.shape[2] % k.shape[2]:
        raise ValueError(
            f"attend: the {k.shape[2]} heads of `k` and `v` must divide the {q.shape[2]} of `q`: "
            "each serves a group of query heads."
        )
    return v


def _check_rate(rate: float, key: Array | None) -> None:
    if _check.dropout_rate(rate, "attend") and key is None:
        raise ValueError("attend: `dropout_rate` needs a random `key`; without noise leave it 0.")


def _check_bias(bias: ArrayLike, q: Array, k: Array) -> Array:
    bias = _check.array(bias, "bias", "attend")
    _check.floating(bias, "attend", "bias")
    full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    fits = bias.ndim == 4 and bias.shape[2:] == full[2:]
    if not fits or any(n not in (1, size) for n, size in zip(bias.shape, full, strict=True)):
        raise ValueError(
            f"attend: `bias` must be [batch or 1, heads or 1, query, key] = {full}, got "
            f"{bias.shape}."
        )
    return bias


def _split_bias(bias: Array, q_mask: Mask, seen: Array | None) -> tuple[Array, Array]:
    """A key at -inf is a key that is not seen: else a query with only such keys is nan."""
    shown = bias != -jnp.inf
    seen = shown if seen is None else seen & shown
    used = seen if q_mask is None else seen & masks.as_bool(q_mask)[:, None, :, None]
    return jnp.where(used, bias, 0), seen


def _kept(
    key: Array | None,
    query: tuple[Array, Mask],
    keys: tuple[Array, Mask],
    rate: float,
    row_ids: ArrayLike | None,
) -> Array | None:
    """`[batch, heads, query, key]`, boolean: the weights that dropout keeps."""
    if key is None or not rate:
        return None
    (q, q_mask), (k, kv_mask) = query, keys
    each_query = random.step_keys(key, q, q_mask, row_ids=row_ids)
    real = _mask_ops.real_steps(kv_mask, k.shape[:2])
    each_pair = jax.vmap(jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None)))
    pairs = each_pair(each_query, masks.positions(real))
    kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, q.shape[2:3]))(pairs.reshape(-1))
    return jnp.moveaxis(kept.reshape(*pairs.shape, q.shape[2]), -1, 1)


def _logits(q: Array, k: Array, scale: float | None) -> Array:
    """`[batch, heads, query, key]`, in at least float32."""
    grouped = q.reshape(*q.shape[:2], k.shape[2], q.shape[2] // k.shape[2], q.shape[3])
    wide = accumulator(q.dtype)
    logits = jnp.einsum("btkgf,bskf->bkgts", grouped, k, preferred_element_type=wide)
    logits = logits * (q.shape[3] ** -0.5 if scale is None else scale)
    return logits.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
