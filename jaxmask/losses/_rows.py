"""Losses of whole rows: a ranking of the steps, the overlap of two segmentations."""

import jax
import jax.numpy as jnp

from jaxmask import _check, masks, ops, pool
from jaxmask._errors import refusing_pairs
from jaxmask._logs import times
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def ranking_softmax_loss(
    logits: ArrayLike, mask: Mask, targets: ArrayLike, *, weights: ArrayLike | None = None
) -> Pair:
    """Cross entropy of a softmax over the steps of each row, the items of a list.

        y[b] = -sum_t weights[b, t] targets[b, t] log softmax(logits[b])[t]    over real steps

    An item of logit -inf and relevance 0 counts 0. Padding may lie anywhere (mask class: any).

    Args:
      logits: one for each item, `[batch, time]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence is a list), or None.
      targets: the relevance of each item, `[batch, time]`, real numbers.
      weights: `[batch, time]`, floating, or None.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, in at least float32, and
      `row_mask [batch]`, True where the row has a real step. A row without one gives 0 and False.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, relevance = jnp.array([[0.0, 0.0, jnp.nan]]), jnp.array([[1, 0, 5]])
      >>> mask = jnp.array([[True, True, False]])
      >>> y, row_mask = jm.losses.ranking_softmax_loss(logits, mask, relevance)
      >>> round(float(y[0]), 4), row_mask.tolist()
      (0.6931, [True])

    Source: Cao et al., 2007, Learning to rank, doi:10.1145/1273496.1273513. Agrees with
    `optax.losses.ranking_softmax_loss` of each unpadded row.
    """
    where = "ranking_softmax_loss"
    logits, mask = _check.pair(logits, mask, where, over_time=True, name="logits")
    _check.floating(logits, where, "logits")
    if logits.ndim != 2:
        raise ValueError(
            f"{where}: `logits` must be [batch, time], one for each item, got shape {logits.shape}."
        )
    wide = ops.fill(logits, mask)[0].astype(accumulator(logits.dtype))
    log_p, _ = ops.log_softmax(wide, mask)
    # Each filled before the product: 0 * nan is nan, in the gradient too.
    relevance, _ = ops.fill(_like(targets, wide, where, "targets"), mask)
    if weights is not None:
        relevance *= ops.fill(_like(weights, wide, where, "weights"), mask)[0]
    per_row, row_mask = pool.sum(times(relevance, log_p), mask)
    return -per_row, row_mask


def _like(x: ArrayLike, logits: Array, where: str, name: str) -> Array:
    x = _check.array(x, name, where)
    _check.shape(x, logits.shape, "the shape of `logits`", where, name)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: `{name}` must be real numbers, got dtype {x.dtype}.")
    return x.astype(logits.dtype)


@refusing_pairs
def dice_loss(
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    smooth: float | Array = 1.0,
    alpha: float | Array = 0.5,
    beta: float | Array = 0.5,
    class_weights: ArrayLike | None = None,
    ignore_background: bool = False,
) -> Pair:
    """One minus the overlap of two segmentations of each row: 0 where they agree.

        p = softmax(logits) over the classes, sigmoid(logits) of one class
        I[k] = sum_t p[t, k] targets[t, k],  P[k] = sum_t p[t, k],  T[k] = sum_t targets[t, k]
        y[b] = mean_k 1 - (I + smooth) / (I + alpha (P - I) + beta (T - I) + smooth)

    The sums run over real steps and over the axes between time and classes. Padding may lie
    anywhere (mask class: any).

    Args:
      logits: `[batch, time, ..., classes]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence on its own), or None.
      targets: one-hot or probabilities, the shape of `logits`.
      smooth: above 0, keeps an absent class from 0 / 0: a number, or an array by row.
      alpha: likewise, the weight of false positives.
      beta: likewise, the weight of false negatives.
      class_weights: `[classes]`, factors of the classes' losses; the mean still divides by their
        number. None is 1.
      ignore_background: static; leave class 0 out of the mean.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]`, in at least float32, and
      `row_mask [batch]`, True where the row has a real step. A row without one gives 0 and False.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[100.0], [-100.0], [jnp.nan]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> jm.losses.dice_loss(logits, mask, jnp.array([[[1], [0], [7]]]))[0].tolist()
      [0.0]

    Source: Milletari, Navab and Ahmadi, 2016, V-Net, arXiv:1606.04797. Agrees with
    `optax.losses.dice_loss` of each unpadded row.
    """
    options = {"smooth": smooth, "alpha": alpha, "beta": beta}
    return _overlap("dice_loss", logits, mask, targets, options, class_weights, ignore_background)


@refusing_pairs
def tversky_loss(
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    alpha: float | Array = 0.3,
    beta: float | Array = 0.7,
    smooth: float | Array = 1.0,
    class_weights: ArrayLike | None = None,
    ignore_background: bool = False,
) -> Pair:
    """`dice_loss` in which false positives and false negatives weigh differently.

        y[b] = mean_k 1 - (I + smooth) / (I + alpha (P - I) + beta (T - I) + smooth)

    Arguments and result are those of `dice_loss`, which has `alpha = beta = 0.5`; here what is
    missed weighs more. With both 1 it is the loss of the Jaccard index.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[100.0], [-100.0], [jnp.nan]]])
      >>> mask, targets = jnp.array([[True, True, False]]), jnp.array([[[1], [1], [7]]])
      >>> y, _ = jm.losses.tversky_loss(logits, mask, targets)  # 1 - 2 / 2.7
      >>> round(float(y[0]), 4)
      0.2593

    Source: Salehi, Erdogmus and Gholipour, 2017, Tversky loss function for image segmentation,
    arXiv:1706.05721. Keras's `Tversky` takes probabilities, sums over the batch, and has 0.5 for
    both weights.
    """
    options = {"smooth": smooth, "alpha": alpha, "beta": beta}
    return _overlap(
        "tversky_loss", logits, mask, targets, options, class_weights, ignore_background
    )


def _overlap(
    where: str,
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    options: dict[str, float | Array],
    class_weights: ArrayLike | None,
    ignore_background: bool,
) -> Pair:
    logits, mask = _check.pair(logits, mask, where, over_time=True, name="logits")
    _check.floating(logits, where, "logits")
    if logits.ndim < 3:
        raise ValueError(
            f"{where}: `logits` must be [batch, time, ..., classes], got shape {logits.shape}."
        )
    wide = ops.fill(logits, mask)[0].astype(accumulator(logits.dtype))
    truth, _ = ops.fill(_like(targets, wide, where, "targets"), mask)
    p = jax.nn.sigmoid(wide) if wide.shape[-1] == 1 else jax.nn.softmax(wide, axis=-1)
    both, predicted, true = (_total(x, mask) for x in (p * truth, p, truth))
    rows = masks.rows(mask)
    smooth, alpha, beta = (_by_row(x, both, rows, where, name) for name, x in options.items())
    overlap = (both + smooth) / (both + alpha * (predicted - both) + beta * (true - both) + smooth)
    first = int(_check.flag(ignore_background, where, "ignore_background") and wide.shape[-1] > 1)
    each = (1 - overlap)[:, first:]
    if class_weights is None:
        return ops.fill(jnp.mean(each, axis=-1), rows)
    weights = _check.array(class_weights, "class_weights", where)
    _check.shape(weights, wide.shape[-1:], "[classes]", where, "class_weights")
    return ops.fill(jnp.mean(weights.astype(each.dtype)[None, first:] * each, axis=-1), rows)


def _by_row(value: float | Array, x: Array, rows: Mask, where: str, name: str) -> Array:
    value = _check.by_row_or_step(value, x, where, name, dtype=x.dtype)
    return ops.fill(jnp.broadcast_to(value, x.shape), rows, 1)[0] if value.ndim else value


def _total(x: Array, mask: Mask) -> Array:
    """`[batch, classes]`: the sum over time and the axes between time and the classes."""
    y, rows = pool.sum(x, mask)
    # 0 / 0 in an empty row makes the gradients of options nan.
    return ops.fill(jnp.sum(y, axis=tuple(range(1, y.ndim - 1))), rows, 1)[0]
