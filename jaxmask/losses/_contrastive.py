"""Losses that pull some vectors together and push others apart."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step
from jaxmask.losses._accumulate import AxisName


@refusing_pairs
def triplet_margin_loss(
    anchors: ArrayLike,
    mask: Mask,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    norm_degree: int = 2,
    margin: float | Array = 1.0,
    eps: float | Array = 1e-6,
) -> Pair:
    """Zero where an anchor is nearer to its positive than to its negative by a margin.

        d(a, b) = (sum_k (a[k] - b[k])^n + eps)^(1/n)     n = norm_degree
        y = max(0, d(anchors, positives) - d(anchors, negatives) + margin)

    Args:
      anchors: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      positives: the shape of `anchors`, floating.
      negatives: the shape of `anchors`, floating.
      norm_degree: static, even and at least 2; there are no absolute values (as in optax), so an
        odd degree would be no norm.
      margin: how much nearer the positive must be: a number, or an array by row or by step.
      eps: likewise; keeps the gradient finite where two vectors are equal.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> anchor = jnp.zeros((1, 2, 1))
      >>> near, far = jnp.array([[[1.0], [jnp.nan]]]), jnp.array([[[1.5], [jnp.nan]]])
      >>> mask = jnp.array([[True, False]])
      >>> jm.losses.triplet_margin_loss(anchor, mask, near, far)[0].round(4).tolist()
      [[0.5, 0.0]]

    Source: Balntas et al., 2016, Learning local feature descriptors with triplets,
    doi:10.5244/C.30.119. Agrees with `optax.losses.triplet_margin_loss` of each unpadded row.
    """
    where = "triplet_margin_loss"
    if _check.count(norm_degree, where, "norm_degree", least=2) % 2:
        raise ValueError(f"{where}: `norm_degree` must be even, got {norm_degree}.")

    def loss(anchors: Array, near: Array, far: Array, margin: Array, eps: Array) -> Array:
        def distance(other: Array) -> Array:
            power = jnp.sum((anchors - other) ** norm_degree, axis=-1)
            return (power + eps) ** (1 / norm_degree)

        gap = distance(near) - distance(far) + margin
        return jnp.where(gap <= 0, 0, gap)  # not `jnp.maximum`: its gradient compares for equality

    options = {"margin": margin, "eps": eps}
    arrays = {"anchors": anchors, "positives": positives, "negatives": negatives}
    return _per_step.over_features(where, loss, mask, arrays, options)


@over_explicit_axes
@refusing_pairs
def info_nce(
    queries: ArrayLike,
    mask: Mask,
    keys: ArrayLike,
    temperature: float | Array = 0.07,
    *,
    similarity: str = "cosine",
    axis_name: AxisName | None = None,
) -> Pair:
    """Cross entropy of picking each query's own key among the keys of all real items.

        s[i, j] = similarity(queries[i], keys[j]) / temperature
        y[i] = log sum_j exp(s[i, j]) - s[i, i]     j over the real items of the batch

    Rows mix by definition: every real row (or step) is a negative of the others. Padding is neither
    a positive nor a negative. For a symmetric loss, add the loss with keys and queries swapped.

    Args:
      queries: `[batch, feature]` with a row mask, or `[batch, time, feature]`, where each step is
        an item; floating.
      mask: boolean, or `Segments` (whose sequences are negatives of each other too), or None.
      keys: the shape of `queries`, floating; the positive of a query has the same index.
      temperature: a scalar, above 0.
      similarity: "cosine", or "dot" for vectors of unit length.
      axis_name: an axis of `shard_map`, or several, whose devices hold parts of the batch: the keys
        of all of them are compared, and each device gets the loss of its own queries. Over devices
        sum the totals and the counts of `sum_and_count`, as `accumulate` does.

    Returns:
      The pair `(per_item, mask)`: `per_item [batch]` or `[batch, time]` in nats, in at least
      float32, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, row_mask = jnp.array([[1.0], [1.0], [jnp.nan]]), jnp.array([True, True, False])
      >>> y, _ = jm.losses.info_nce(x, row_mask, x)
      >>> [round(value, 4) for value in y.tolist()]
      [0.6931, 0.6931, 0.0]

    Source: van den Oord, Li and Vinyals, 2018, arXiv:1807.03748. Agrees with PyTorch's
    `cross_entropy` of the similarities of the real rows.
    """
    where = "info_nce"
    _check.choice(similarity, ("cosine", "dot"), where, "similarity")
    _check.positive(temperature, where, "temperature")
    items, leading, mask = _items(queries, mask, where, "queries")
    keys = _check.array(keys, "keys", where)
    _check.floating(keys, where, "keys")
    _check.shape(keys, (*leading, items.shape[-1]), "the shape of `queries`", where, "keys")
    others, real = _items(keys, mask, where, "keys")[0], _flat(mask, items)
    if similarity == "cosine":
        items, others = _unit(items), _unit(others)
    first = _first_item(items.shape[0], axis_name)
    scores = items @ _everywhere(others, axis_name).T / temperature
    total, _ = ops.logsumexp(scores, jnp.broadcast_to(_everywhere(real, axis_name), scores.shape))
    own = jax.lax.dynamic_slice_in_dim(scores, first, items.shape[0], axis=1)
    return ops.fill((total - jnp.diagonal(own)).reshape(leading), mask)


@over_explicit_axes
@refusing_pairs
def ntxent(
    embeddings: ArrayLike,
    mask: Mask,
    labels: ArrayLike,
    temperature: float | Array = 0.07,
    *,
    axis_name: AxisName | None = None,
) -> Pair:
    """Cross entropy of each positive pair against the negatives of its first item.

        s[i, j] = cosine(embeddings[i], embeddings[j]) / temperature
        P(i) = {j != i: labels[j] = labels[i]},   N(i) = {j: labels[j] != labels[i]}
        y[i] = mean over p in P(i) of log(exp(s[i, p]) + sum_{n in N(i)} exp(s[i, n])) - s[i, p]

    Rows mix by definition. Padding is neither a positive nor a negative.

    Args:
      embeddings: `[batch, feature]` with a row mask, or `[batch, time, feature]`, where each step
        is an item; floating.
      mask: boolean, or `Segments` (whose sequences are compared with each other too), or None.
      labels: `[batch]` or `[batch, time]`, integer; items that share a label are positives.
      temperature: a scalar, above 0.
      axis_name: as in `info_nce`: the items of all devices are compared.

    Returns:
      The pair `(per_item, mask)`: `per_item [batch]` or `[batch, time]` in nats, in at least
      float32; the mask is True where a real item has a positive. An item without one gives 0 and
      False, since it has no loss.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, labels = jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([4, 4, 5])
      >>> y, mask = jm.losses.ntxent(x, jnp.array([True, True, True]), labels, 1.0)
      >>> [round(value, 4) for value in y.tolist()], mask.tolist()
      ([0.1269, 0.1269, 0.0], [True, True, False])

    Source: Chen et al., 2020, SimCLR, arXiv:2002.05709. The mean over items agrees with
    `optax.losses.ntxent` of the real items where all have equally many positives; optax weighs each
    item by its number of positives.
    """
    where = "ntxent"
    _check.positive(temperature, where, "temperature")
    pairs = _compared(embeddings, mask, labels, axis_name, where)
    scores = pairs.similarity / temperature
    # One sum for each pair: all negatives, and the positive itself.
    negatives, some = ops.logsumexp(scores, pairs.negative)
    each = jax.nn.softplus(negatives[:, None] - scores)
    each = jnp.where(_mask_ops.expand(masks.as_bool(some), 2), each, 0)
    count = jnp.sum(pairs.positive, axis=1)
    total = jnp.sum(jnp.where(pairs.positive, each, 0), axis=1)
    y = (total / jnp.maximum(count, 1).astype(total.dtype)).reshape(pairs.leading)
    has_loss = (count > 0).reshape(pairs.leading)
    return ops.fill(y, _mask_ops.intersect(pairs.mask, has_loss, where))


@over_explicit_axes
@refusing_pairs
def circle_loss(
    embeddings: ArrayLike,
    mask: Mask,
    labels: ArrayLike,
    *,
    gamma: float | Array = 80.0,
    margin: float | Array = 0.4,
    axis_name: AxisName | None = None,
) -> Pair:
    """Circle loss: pairs that are far from what they should be weigh more.

        s[i, j] = cosine(embeddings[i], embeddings[j]),   m = margin
        P(i) = {j != i: labels[j] = labels[i]},   N(i) = {j: labels[j] != labels[i]}
        y[i] = log(1 + sum_{n in N(i)} exp(gamma a[n] (s[i, n] - m))
                     * sum_{p in P(i)} exp(-gamma b[p] (s[i, p] - 1 + m)))
        a[n] = max(0, s[i, n] + m),   b[p] = max(0, 1 + m - s[i, p]),   without a gradient

    Rows mix by definition. Padding is neither a positive nor a negative.

    Args:
      gamma: a scalar, above 0, the scale.
      margin: a scalar, in (0, 1).
      embeddings, mask, labels, axis_name: as in `ntxent`.

    Returns:
      The pair `(per_item, mask)`: `per_item [batch]` or `[batch, time]`, in at least float32; the
      mask is True where a real item has a positive and a negative. Other items give 0 and False,
      since they have no loss.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([4, 4, 5])
      >>> y, mask = jm.losses.circle_loss(x, None, labels, gamma=1.0)
      >>> [round(value, 4) for value in y.tolist()], mask.tolist()
      ([1.1989, 1.0899, 0.0], [True, True, False])

    Source: Sun et al., 2020, Circle loss: a unified perspective of pair similarity optimization,
    arXiv:2002.10857. The values agree with Keras's `Circle` of the real items, which differentiates
    the weights too.
    """
    where = "circle_loss"
    _check.number(gamma, where, "gamma")
    _check.number(margin, where, "margin")
    pairs = _compared(embeddings, mask, labels, axis_name, where)
    s = pairs.similarity
    fixed = jax.lax.stop_gradient(s)
    of_negatives = gamma * jnp.maximum(fixed + margin, 0) * (s - margin)
    of_positives = -gamma * jnp.maximum(1 + margin - fixed, 0) * (s - 1 + margin)
    apart, has_negative = ops.logsumexp(of_negatives, pairs.negative)
    together, has_positive = ops.logsumexp(of_positives, pairs.positive)
    has_loss = masks.as_bool(has_negative) & masks.as_bool(has_positive)
    y = jax.nn.softplus(jnp.where(has_loss, apart + together, 0)).reshape(pairs.leading)
    has_loss = has_loss.reshape(pairs.leading)
    return ops.fill(y, _mask_ops.intersect(pairs.mask, has_loss, where))


class _Pairs(NamedTuple):
    """Items against the items of all devices, `[item, other]`."""

    similarity: Array
    positive: Array
    negative: Array
    leading: tuple[int, ...]
    mask: Mask


def _compared(
    embeddings: ArrayLike, mask: Mask, labels: ArrayLike, axis_name: AxisName | None, where: str
) -> _Pairs:
    items, leading, mask = _items(embeddings, mask, where, "embeddings")
    labels = _check.array(labels, "labels", where)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: `labels` must be integer, got dtype {labels.dtype}.")
    axes = "the shape of `embeddings` without its last axis"
    _check.shape(labels, leading, axes, where, "labels")
    real, flat, items = _flat(mask, items), labels.reshape(-1), _unit(items)
    first = _first_item(items.shape[0], axis_name)
    all_items, all_real, all_labels = (_everywhere(x, axis_name) for x in (items, real, flat))
    same = flat[:, None] == all_labels[None, :]
    itself = (first + jnp.arange(flat.shape[0]))[:, None] == jnp.arange(all_labels.shape[0])[None]
    positive = same & real[:, None] & all_real[None, :] & ~itself
    return _Pairs(items @ all_items.T, positive, ~same & all_real[None], leading, mask)


def _everywhere(x: Array, axis_name: AxisName | None) -> Array:
    """The items of all devices, those of the first device first."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _first_item(count: int, axis_name: AxisName | None) -> Array | int:
    """The index of this device's first item among those of all."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * count


def _items(x: ArrayLike, mask: Mask, where: str, name: str) -> tuple[Array, tuple[int, ...], Mask]:
    """Filled vectors `[item, feature]` in at least float32, and the axes that were flattened."""
    x, mask = _check.pair(x, mask, where, name=name)
    _check.floating(x, where, name)
    leading = x.shape[:-1]
    axes = (x.ndim - 1,) if mask is None else (mask.ndim,)
    if len(leading) not in axes or len(leading) > 2:
        raise ValueError(
            f"{where}: `{name}` must have one feature axis after those of the mask, "
            f"`[batch, feature]` or `[batch, time, feature]`, got shape {x.shape}."
        )
    # Not 0: the gradient of a norm is nan there.
    safe, _ = ops.fill(x, mask, 1)
    return safe.reshape(math.prod(leading), x.shape[-1]).astype(accumulator(x.dtype)), leading, mask


def _flat(mask: Mask, items: Array) -> Array:
    return _mask_ops.real_steps(mask, (items.shape[0],)).reshape(-1)


def _unit(x: Array) -> Array:
    """Vectors of length 1; a vector of zeros stays, with a finite gradient."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jnp.where(square > 0, 1 / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
