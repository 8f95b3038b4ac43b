"""Attention by einsum, which holds every pair of a query and a key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped, UInt32

from jaxmask import masks
from jaxmask._sums import accumulator
from jaxmask._types import Array, Mask, Segments, Window, promotion_allowed
from jaxmask.attention._choice import Choice
from jaxmask.attention._packed import isolate, read_values
from jaxmask.attention._pairwise import PairFunction
from jaxmask.attention._visible import ranks, softmax_over_keys, visible, zero_unseen
from jaxmask.masks import AttentionPredicate


class Setting(NamedTuple):
    """What is static. `noise`: how the keys of dropout are implemented.

    `predicate` and `bias` are evaluated on the pairs of a block, with the arrays of `Given`.
    """

    choice: Choice
    scale: float = 1.0
    causal: bool = False
    window: Window = None
    softcap: float | None = None
    dropout_rate: float = 0.0
    noise: Any = None
    predicate: PairFunction | None = None
    bias: PairFunction | None = None


class Given(NamedTuple):
    """The arrays of a call, with 0 in the padding of queries, keys and values.

    `bias [batch or 1, heads or 1, query, key]` and `allowed [batch or 1, query, key]` are of all
    pairs, or a tuple of the arrays that a function closes over. `noise`: the data of one
    random key for each query.
    """

    q: Float[Array, "batch query heads feature"]
    q_mask: Mask
    k: Float[Array, "batch key kv_heads feature"]
    v: Float[Array, "batch key kv_heads value_feature"]
    kv_mask: Mask
    bias: Any = None
    allowed: Any = None
    q_positions: Int[Array, "batch query"] | None = None
    kv_positions: Int[Array, "batch key"] | None = None
    noise: UInt32[Array, "batch query data"] | None = None


def reference(
    setting: Setting, given: Given, scale: Any, predicate: AttentionPredicate | None = None
) -> Array:
    """`[batch, query, heads, feature]`; `predicate` in the place of `given.allowed`."""
    return with_weights(setting, given, scale, predicate, weighs=False)[0]


def with_weights(
    setting: Setting,
    given: Given,
    scale: Any,
    predicate: AttentionPredicate | None = None,
    *,
    weighs: bool = True,
) -> tuple[Array, Float[Array, "batch heads query key"] | None]:
    """The result of `reference`, and what each query weighs each key with, 0 where unseen."""
    q, q_mask, k, v, kv_mask = given[:5]
    seen, bias = seen_and_bias(setting, given, predicate)
    noise = given.noise
    spoiled = None
    if isinstance(q_mask, Segments):
        q, k, v, spoiled = isolate(q, k, v, seen)
    # JAX's function lacks float16 on CPU, a softmax in float64, dropout, isolation of the sequences
    # of a packed row, a cap, values of another size, and the weights.
    in_jax = q.dtype in (jnp.float32, jnp.bfloat16) and v.shape == k.shape
    if in_jax and noise is None and spoiled is None and setting.softcap is None and not weighs:
        with promotion_allowed():
            y = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=seen, scale=scale)
        return zero_unseen(y, q_mask, seen), None
    logits = capped(setting, _logits(q, k, scale), seen)
    logits = logits if bias is None else logits + bias.astype(logits.dtype)
    softmax = weights = softmax_over_keys(logits, seen)
    if noise is not None:
        kept = _kept(setting, noise, k, kv_mask, q.shape[2])
        weights = jnp.where(kept, weights / (1 - setting.dropout_rate), 0)
    y = zero_unseen(read_values(weights, v, seen, spoiled), q_mask, seen)
    return y, _shown(softmax, q_mask, seen, spoiled) if weighs else None


def seen_and_bias(
    setting: Setting, given: Given, predicate: AttentionPredicate | None
) -> tuple[Bool[Array, "batch_or_1 heads_or_1 query_or_1 key"] | None, Array | None]:
    """Which keys each query sees, as `visible` has it, and the bias of those."""
    q, q_mask, k, _, kv_mask, bias, allowed, *positions, _ = given
    if setting.predicate is not None:
        allowed = _of_all_pairs(setting.predicate, allowed, q, k)
    if setting.bias is not None:
        bias = _bias_of_all_pairs(setting.bias, given)
    if allowed is not None:
        predicate = lambda *_: allowed  # noqa: E731
    seen = visible(
        *(q, q_mask, k, kv_mask),
        causal=setting.causal,
        window=setting.window,
        predicate=predicate,
        positions=(positions[0], positions[1]),
        where="attend",
    )
    if bias is not None:
        bias, seen = _split_bias(bias, q_mask, seen)
    return seen, bias


def _of_all_pairs(
    predicate: PairFunction, arrays: Any, q: Array, k: Array
) -> Bool[Array, "batch_or_1 query key"]:
    arrays = tuple(array[0] for array in arrays)
    allowed = predicate(arrays, jnp.arange(q.shape[1]), jnp.arange(k.shape[1]))
    return allowed if predicate.lead else allowed[None]


def _bias_of_all_pairs(
    bias: PairFunction, given: Given
) -> Float[Array, "batch_or_1 heads_or_1 query key"]:
    arrays = tuple(array[0] for array in given.bias)
    query = ranks(given.q, given.q_mask, given.q_positions, "attend", "q_positions")
    key = ranks(given.k, given.kv_mask, given.kv_positions, "attend", "kv_positions")
    if len(query) == len(key) == 1:
        return bias(arrays, query[0], key[0])
    query, key = (jnp.broadcast_to(x, (len(given.q), x.shape[1])) for x in (query, key))
    return jax.vmap(bias, (None, 0, 0))(arrays, query, key)[:, 0]


def capped(setting: Setting, logits: Array, seen: Array | None) -> Array:
    """Logits between plus and minus `softcap`."""
    if setting.softcap is None:
        return logits
    # The derivative at a nan would be nan, and 0 * nan is nan.
    logits = logits if seen is None else jnp.where(seen, logits, 0)
    return setting.softcap * jnp.tanh(logits / setting.softcap)


def _shown(weights: Array, q_mask: Mask, seen: Array | None, spoiled: Array | None) -> Array:
    """The weights as a result: 0 at keys and queries that are not seen."""
    if q_mask is not None:
        real = masks.as_bool(q_mask)[:, None, :, None]
        seen = real if seen is None else seen & real
    if spoiled is not None:
        weights = jnp.where(jnp.moveaxis(spoiled, 1, 2), jnp.nan, weights)
    return weights if seen is None else jnp.where(seen, weights, 0)


def _split_bias(bias: Array, q_mask: Mask, seen: Array | None) -> tuple[Array, Array]:
    """A key at -inf is a key that is not seen: else a query with only such keys is nan."""
    shown = bias != -jnp.inf
    seen = shown if seen is None else seen & shown
    used = seen if q_mask is None else seen & masks.as_bool(q_mask)[:, None, :, None]
    return jnp.where(used, bias, 0), seen


def _kept(
    setting: Setting, noise: Array, k: Array, kv_mask: Mask, heads: int
) -> Bool[Array, "batch heads query key"]:
    """The weights that dropout keeps."""
    of_keys = key_ranks(k, kv_mask)
    kept = jax.vmap(lambda noise, ranks: kept_pairs(setting, noise, ranks, heads))(noise, of_keys)
    return jnp.moveaxis(kept, -1, 1)


def key_ranks(k: Array, kv_mask: Mask) -> Int[Array, "batch key"]:
    """The rank of each key among the real steps of its sequence."""
    return masks.positions(jnp.ones(k.shape[:2], bool) if kv_mask is None else kv_mask)


def kept_pairs(
    setting: Setting, noise: UInt32[Array, "query data"], ranks: Int[Array, "key"], heads: int
) -> Bool[Array, "query key heads"]:
    """What dropout keeps in one row: a draw by the key of the query and the rank of the key."""
    keys = jax.random.wrap_key_data(noise, impl=setting.noise)
    pairs = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, ranks)
    draw = lambda key: jax.random.bernoulli(key, 1 - setting.dropout_rate, (heads,))  # noqa: E731
    return jax.vmap(draw)(pairs.reshape(-1)).reshape(*pairs.shape, heads)


def _logits(q: Array, k: Array, scale: Any) -> Shaped[Array, "batch heads query key"]:
    """In at least float32."""
    grouped = q.reshape(*q.shape[:2], k.shape[2], q.shape[2] // k.shape[2], q.shape[3])
    wide = accumulator(q.dtype)
    logits = jnp.einsum("btkgf,bskf->bkgts", grouped, k, preferred_element_type=wide)
    logits = logits * (q.shape[3] ** -0.5 if scale is None else scale)
    return logits.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
