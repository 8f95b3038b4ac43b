"""Additive attention, of Bahdanau et al."""

from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, common_dtype
from jaxmask.attention._packed import isolate, read_values
from jaxmask.attention._visible import check_masks, softmax_over_keys, visible, zero_unseen


class AdditiveWeights(NamedTuple):
    """The parameters of additive attention.

    Attributes:
      w_q: `[query_features, hidden]`.
      w_k: `[key_features, hidden]`.
      scale: `[hidden]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.attention.AdditiveWeights(jnp.ones((2, 4)), jnp.ones((3, 4)), jnp.ones(4))
      >>> weights.scale.shape
      (4,)
    """

    w_q: Array
    w_k: Array
    scale: Array


jax.export.register_namedtuple_serialization(
    AdditiveWeights, serialized_name="jaxmask.attention.AdditiveWeights"
)


@refusing_pairs
def additive(
    q: ArrayLike,
    q_mask: Mask,
    k: ArrayLike,
    v: ArrayLike,
    kv_mask: Mask,
    weights: AdditiveWeights,
    *,
    causal: bool = False,
) -> Pair:
    """Attention whose scores come from a small network of query and key.

        y[b, i] = sum_j softmax_j(scale . tanh(q[b, i] @ w_q + k[b, j] @ w_k)) v[b, j]

    over the real keys that a query may see. A query that sees none gives exactly 0; its mask stays.
    Mask class: any. Needs memory for `[batch, query, key, hidden]` values.

    Args:
      q: `[batch, query, query_features]`, floating.
      q_mask: `[batch, query]`, boolean, or `Segments`, or None.
      k: `[batch, key, key_features]`, floating.
      v: `[batch, key, value_features]`, floating.
      kv_mask: `[batch, key]`, boolean, or `Segments` (with `q_mask`), or None: every key is real.
      weights: `AdditiveWeights(w_q, w_k, scale)`.
      causal: a query sees keys up to its own position, counted in real steps.

    Returns:
      The pair `(y, q_mask)`: `y [batch, query, value_features]` in the dtype of `v`.

    Raises:
      TypeError: if an array is not floating, or a mask not boolean.
      ValueError, MaskError: if shapes do not fit, or a mask does not belong to its array.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.attention.AdditiveWeights(jnp.eye(1), jnp.eye(1), jnp.zeros(1))
      >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> jm.attention.additive(x, mask, x, x, mask, weights)[0].ravel().tolist()
      [3.0, 3.0, 0.0]

    Agrees with `keras.layers.AdditiveAttention` where `w_q` and `w_k` are identities. Source:
    Bahdanau et al., 2015, arXiv:1409.0473.
    """
    where = "additive"
    q, q_mask, k, kv_mask = check_masks(q, q_mask, k, kv_mask, where)
    v, weights = _check_additive(q, k, v, weights)
    causal = _check.flag(causal, where, "causal")
    seen = visible(q, q_mask, k, kv_mask, causal=causal, where=where)
    q, k, v = (filled(x, m) for x, m in ((q, q_mask), (k, kv_mask), (v, kv_mask)))
    spoiled = None
    if isinstance(q_mask, Segments):
        q, k, v, spoiled = isolate(q, k, v, seen)
    with jax.named_scope("jaxmask.additive"):
        wide = accumulator(common_dtype(q.dtype, k.dtype))
        by_query = jnp.matmul(q, weights.w_q, preferred_element_type=wide)
        by_key = jnp.matmul(k, weights.w_k, preferred_element_type=wide)
        summed = by_query[:, :, None] + by_key[:, None]
        if spoiled is not None and seen is not None:
            # Two sequences that overflow would make inf - inf of each other.
            summed = jnp.where(seen[:, 0, :, :, None], summed, 0)
        logits = jnp.einsum("btsh,h->bts", jnp.tanh(summed), weights.scale.astype(wide))
        each_key = softmax_over_keys(logits[:, None], seen)
        y = read_values(each_key, v[:, :, None], seen, spoiled)
    return zero_unseen(y, q_mask, seen)[:, :, 0], q_mask


def _check_additive(
    q: Array, k: Array, v: ArrayLike, weights: AdditiveWeights
) -> tuple[Array, AdditiveWeights]:
    where, names = "additive", ("weights.w_q", "weights.w_k", "weights.scale")
    v = _check.array(v, "v", where)
    if not isinstance(weights, tuple) or len(weights) != 3:
        raise TypeError(
            f"{where}: `weights` must be `jm.attention.AdditiveWeights(w_q, w_k, scale)`, got "
            f"{type(weights).__name__}."
        )
    weights = AdditiveWeights(*map(_check.array, weights, names, [where] * 3))
    for x, name in zip((q, k, v, *weights), ("q", "k", "v", *names), strict=True):
        _check.floating(x, where, name)
    for x, name in ((q, "q"), (k, "k"), (v, "v")):
        if x.ndim != 3:
            raise ValueError(f"{where}: `{name}` must be [batch, time, feature], got {x.shape}.")
    _check.shape(v, (*k.shape[:2], v.shape[2]), "[batch, key, value_features]", where, "v")
    hidden = weights.scale.size
    _check.shape(weights.scale, (hidden,), "[hidden]", where, names[2])
    _check.shape(weights.w_q, (q.shape[2], hidden), "[query_features, hidden]", where, names[0])
    _check.shape(weights.w_k, (k.shape[2], hidden), "[key_features, hidden]", where, names[1])
    return v, weights
