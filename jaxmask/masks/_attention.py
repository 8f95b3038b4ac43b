"""Composable attention masks: predicates of query and key positions."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask import _check
from jaxmask._mask_ops import checked_bool
from jaxmask._types import Array, Mask, Segments, promotion_allowed

AttentionPredicate: TypeAlias = Callable[
    [Int[Array, "query 1"], Int[Array, "1 key"]], Bool[Array, "*batch query key"]
]


def causal() -> AttentionPredicate:
    """A query sees itself and the keys before it.

    Returns:
      A predicate of query and key positions, to compose and to hand to `to_attention_mask`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.array([[True, True]])
      >>> jm.masks.to_attention_mask(mask, mask, predicate=jm.masks.causal())[0, 0].tolist()
      [[True, False], [True, True]]
    """
    return lambda query, key: key <= query


def window(left: int, right: int = 1) -> AttentionPredicate:
    """A query sees the `left` keys up to its own position and the `right` keys from it on.

        query - left < key < query + right

    Both counts include the query's own position, as `window` of `attention.attend` does:
    `window(n)` is its `causal=True, window=n`, and `window(n, n)` its `window=n`, where they
    compare physical positions.

    Args:
      left: keys up to the query's position, at least 1.
      right: keys from the query's position on, at least 1.

    Returns:
      A predicate of query and key positions.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.ones((1, 3), bool)
      >>> jm.masks.to_attention_mask(mask, mask, predicate=jm.masks.window(2))[0, 0].tolist()
      [[True, False, False], [True, True, False], [False, True, True]]
    """
    left = _check.count(left, "window", "left", least=1)
    right = _check.count(right, "window", "right", least=1)
    return lambda query, key: (key > query - left) & (key < query + right)


def same_segment(query: Segments, key: Segments | None = None) -> AttentionPredicate:
    """A query sees the keys of its segment; padding sees nothing.

    Args:
      query: ids `[batch, query]`.
      key: ids `[batch, key]`; the query's own where None.

    Returns:
      A predicate with a batch axis, which looks up ids by position.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> segments = jm.Segments(np.array([[1, 2, 2]]), max_segments=2)
      >>> mask = np.ones((1, 3), bool)
      >>> own_past = jm.masks.both(jm.masks.same_segment(segments), jm.masks.causal())
      >>> jm.masks.to_attention_mask(mask, mask, predicate=own_past)[0, 0].tolist()
      [[True, False, False], [False, True, False], [False, True, True]]
    """
    key = query if key is None else key
    for segments, name in ((query, "query"), (key, "key")):
        if not isinstance(segments, Segments):
            raise TypeError(
                f"same_segment: `{name}` must be `Segments`, got {_check.kind_of(segments)}."
            )
    query_ids, key_ids = jnp.asarray(query.ids), jnp.asarray(key.ids)

    def predicate(q: Array, k: Array) -> Array:
        left, right = query_ids[:, q[:, 0], None], key_ids[:, None, k[0]]
        return (left == right) & (left > 0)

    return predicate


def both(*predicates: AttentionPredicate) -> AttentionPredicate:
    """A query sees a key where every predicate allows it.

    Args:
      *predicates: at least one.

    Returns:
      The predicate that is their conjunction.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.ones((1, 3), bool)
      >>> near = jm.masks.both(jm.masks.causal(), jm.masks.window(2, 2))
      >>> jm.masks.to_attention_mask(mask, mask, predicate=near)[0, 0].tolist()
      [[True, False, False], [True, True, False], [False, True, True]]
    """
    return _combined(jnp.logical_and, predicates, "both")


def either(*predicates: AttentionPredicate) -> AttentionPredicate:
    """A query sees a key where any predicate allows it.

    Args:
      *predicates: at least one.

    Returns:
      The predicate that is their disjunction.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.ones((1, 3), bool)
      >>> either = jm.masks.either(jm.masks.causal(), lambda query, key: key == 2)
      >>> jm.masks.to_attention_mask(mask, mask, predicate=either)[0, 0].tolist()
      [[True, False, True], [True, True, True], [True, True, True]]
    """
    return _combined(jnp.logical_or, predicates, "either")


def _combined(
    join: Callable[[Array, Array], Array], predicates: tuple[AttentionPredicate, ...], where: str
) -> AttentionPredicate:
    if not predicates:
        raise ValueError(f"{where}: expected at least one predicate, got none.")
    for each in predicates:
        _check.function(each, where, "*predicates")

    def predicate(query: Array, key: Array) -> Array:
        result = predicates[0](query, key)
        for other in predicates[1:]:
            seen = other(query, key)
            with promotion_allowed():  # one of the two may have a batch axis
                result = join(result, seen)
        return result

    return predicate


def to_attention_mask(
    q_mask: Mask, kv_mask: Mask, *, predicate: AttentionPredicate | None = None
) -> Bool[Array, "batch 1 query key"]:
    """The mask of keys for each query, as `nnx.MultiHeadAttention` and `jax.nn` take it.

        seen[b, 0, q, k] = q_mask[b, q] and kv_mask[b, k] and predicate(q, k)

    Self-attention passes one mask twice. With `Segments`, a query sees only its own segment. Padded
    queries see nothing; Flax and `jax.nn.dot_product_attention` give such a query the mean of all
    values, padding included, so mask their results.

    Args:
      q_mask: `[batch, query]`, boolean, or `Segments`.
      kv_mask: `[batch, key]`, boolean, or `Segments`.
      predicate: of physical positions `[query, 1]` and `[1, key]`.

    Returns:
      `[batch, 1, query, key]`, boolean.

    Raises:
      TypeError: if a mask is not boolean, or None, which has no size.
      MaskError: if only one of the two is `Segments`, or they differ in their rows.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> mask = np.array([[True, False]])
      >>> jm.masks.to_attention_mask(mask, mask)[0, 0].tolist()
      [[True, False], [False, False]]
    """
    where = "to_attention_mask"
    for mask, name in ((q_mask, "q_mask"), (kv_mask, "kv_mask")):
        if mask is None:
            raise TypeError(
                f"{where}: `{name}` must be a mask, since None does not say how many "
                "steps there are. Pass `jnp.ones((batch, time), bool)` where all of them are real."
            )
    queries, keys = checked_bool(q_mask, where, "q_mask"), checked_bool(kv_mask, where, "kv_mask")
    _check.of_steps(queries, where, "q_mask")
    _check.of_steps(keys, where, "kv_mask")
    if len(queries) != len(keys):
        raise _check.MaskError(
            f"{where}: `q_mask` and `kv_mask` must have the same batch, got {len(queries)} rows "
            f"and {len(keys)}."
        )
    seen = queries[:, :, None] & keys[:, None, :]
    if isinstance(q_mask, Segments) != isinstance(kv_mask, Segments):
        raise _check.MaskError(
            f"{where}: `q_mask` and `kv_mask` must both be `Segments` or both boolean: a "
            "boolean mask does not say which sequence of a packed row a step belongs to."
        )
    if isinstance(q_mask, Segments) and isinstance(kv_mask, Segments):
        own = same_segment(q_mask, kv_mask)
        predicate = own if predicate is None else both(own, predicate)
    if predicate is not None:
        _check.function(predicate, where, "predicate")
        query, key = jnp.arange(queries.shape[1]), jnp.arange(keys.shape[1])
        allowed = predicate(query[:, None], key[None, :])
        with promotion_allowed():  # the predicate may lack the batch axis
            seen = seen & allowed
    return seen[:, None]
