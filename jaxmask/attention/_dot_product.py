"""Scaled dot-product attention over real steps."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import _check, random
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Segments, Window
from jaxmask.attention import _kernels
from jaxmask.attention._blocks import transforms
from jaxmask.attention._choice import Asks, Choice, choose
from jaxmask.attention._pairwise import as_pair_function
from jaxmask.attention._positions import PositionBias
from jaxmask.attention._reference import Given, Setting, reference, with_weights
from jaxmask.attention._visible import check_masks, ranks
from jaxmask.masks import AttentionPredicate

_HEADS = "[batch, {}, heads, head_features]"


@over_explicit_axes
@refusing_pairs
def attend(
    q: ArrayLike,
    q_mask: Mask,
    k: ArrayLike,
    v: ArrayLike,
    kv_mask: Mask,
    *,
    causal: bool = False,
    window: Window = None,
    bias: ArrayLike | PositionBias | None = None,
    predicate: AttentionPredicate | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    q_positions: ArrayLike | None = None,
    kv_positions: ArrayLike | None = None,
    dropout_rate: float = 0.0,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
    return_weights: bool = False,
    method: str | Choice = "auto",
) -> Any:
    """Scaled dot-product attention of each real query over the real keys that it may see.

        y[b, i, h] = sum_j softmax_j(scale q[b, i, h] . k[b, j, g] + bias[b, h, i, j]) v[b, j, g]

    where g is the key-value head of h. With `softcap` the product becomes
    `softcap tanh(scale q . k / softcap)`. A query that sees no key gives exactly 0 and passes no
    gradient; its mask stays. Mask class: any. Distances count real steps, so padding between two
    steps does not separate them, also in a `bias` that is a function. Only a `predicate` or a
    `bias` array that measures distance is physical: it counts columns of the arrays, so a hole
    keeps its place, and queries and keys whose rows begin at different columns must first be moved
    to the left by `jm.ops.compact`.

    Args:
      q: `[batch, query, heads, head_features]`, floating.
      q_mask: `[batch, query]`, boolean, or `Segments`, or None: every query is real.
      k: `[batch, key, kv_heads, head_features]` in the dtype of `q`; `kv_heads` divides `heads`,
        and query head h reads key head `h // (heads // kv_heads)`.
      v: `[batch, key, kv_heads, value_features]`, else like `k`.
      kv_mask: `[batch, key]`, boolean, or `Segments` (with `q_mask`; equal ids see each other), or
        None: every key is real. Self-attention passes the same mask twice.
      causal: a query sees keys up to its own position.
      window: static; a query sees keys at most `window - 1` real steps away: with `causal` the
        last `window` real steps, its own included, and with 1 only its own. A pair `(left, right)`
        counts the steps up to the query and those from it on, its own in both, as
        `jm.masks.window` does; None in it is no bound, so `(None, 1)` is `causal`.
      bias: `[batch or 1, heads or 1, query, key]`, added to the logits after the cap; -inf hides a
        key. Or a function `(query [batch or 1, 1, query, 1], key [batch or 1, 1, 1, key])` of
        positions in real steps that returns that, such as `Alibi(heads)` or `nn.RelativeBias`.
      predicate: of *physical* positions, as in `jm.masks.to_attention_mask`.
      scale: of the logits; `1 / sqrt(head_features)` where None.
      softcap: static and positive; the bound of the logits before the bias. None is no bound.
      q_positions: `[batch, query]`, integer: what `causal`, `window` and a function as `bias`
        compare; the rank of each real step in its row, or its segment, where None.
      kv_positions: `[batch, key]`, the same of the keys.
      dropout_rate: static, of attention weights, from 0 to below 1; needs `key`.
      key: a JAX random key. Noise is keyed by row, head, the rank of the query among the real steps
        of its row and that of the key in its sequence, so padding changes none of it.
      row_ids: `[batch]`, integer: what keys the noise of each row; its batch index where None.
      return_weights: return the softmax as well, as it is before dropout.
      method: how, never what. `"reference"` is an einsum over all pairs. `"blocks"` takes blocks of
        queries against the blocks of keys in which they see one, so its memory grows with the
        length of a row and not with its square (but for a `bias` array, which is held whole), and
        what padding, `causal`, `window`, `Segments`, `bias` and `predicate` hide costs no time; it
        has no forward-mode derivative and no weights. It asks functions as `predicate` and `bias`
        for a block at a time where they are plainly functions of one pair, else for all at once.
        `"cudnn"` and `"splash"` are the kernels that JAX has for GPUs (`implementation=` of
        `jax.nn.dot_product_attention`) and TPUs; the reference runs in their place where they have
        none for what is asked, or on another device. `"auto"` chooses between the first two, and
        `explain` says what and why. A `Choice` gives the sizes of blocks too.

    Returns:
      The pair `(y, q_mask)`, `y [batch, query, heads, value_features]` in the dtype of `q`. With
      `return_weights`, `((y, q_mask), weights)`: `weights [batch, heads, query, key]`, at least
      float32, which sum to 1 over the keys that a query sees, and are 0 elsewhere, so at all keys
      of a query that is padding or sees none. In packed rows a nan, inf or overflow of one sequence
      turns the queries that see it into nan and touches no other sequence, in values and gradients;
      in exchange, `jax.jvp` does not support packed rows.

    Raises:
      TypeError: if `q`, `k`, `v` are not floating of one dtype, or a mask is not boolean.
      ValueError, MaskError: if shapes do not fit, a mask does not belong to its array, only one
        mask is `Segments`, `window` is below 1, `dropout_rate` has no `key`, or `method` is unknown
        or cannot run.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([2.0, 4.0, jnp.nan]).reshape(1, 3, 1, 1)
      >>> mask = jnp.array([[True, True, False]])
      >>> y, mask = jm.attention.attend(jnp.zeros_like(x), mask, x, x, mask)
      >>> y.ravel().tolist(), mask.tolist()
      ([3.0, 3.0, 0.0], [[True, True, False]])

    Agrees with `jax.nn.dot_product_attention`, with `keras.layers` and with `torch.nn.functional`
    at queries that see a key. Sources: Vaswani et al., 2017, arXiv:1706.03762; of `"blocks"`: Rabe
    and Staats, 2021, arXiv:2112.05682, and Dao, 2023, arXiv:2307.08691.
    """
    where, is_one_mask = "attend", q_mask is kv_mask
    q, q_mask, k, kv_mask = check_masks(q, q_mask, k, kv_mask, where)
    v = _check_heads(q, k, v)
    _check_rate(dropout_rate, key)
    if scale is not None:
        _check.number(scale, where, "scale")
    window = _check.window(window, where)
    causal = _check.flag(causal, where, "causal")
    return_weights = _check.flag(return_weights, where, "return_weights")
    packed = isinstance(q_mask, Segments)
    asks = Asks(
        *(causal, window, packed, packed and not is_one_mask),
        dense=predicate is not None or q_positions is not None or kv_positions is not None,
        bias=bias is not None,
        softcap=softcap is not None,
        noise=bool(dropout_rate),
        return_weights=return_weights,
    )
    choice = choose(method, q, k, v, where, asks)
    setting = Setting(choice, 1.0, causal, window, _check_cap(softcap))
    q_positions = _given_positions(q, q_positions, "q_positions")
    kv_positions = _given_positions(k, kv_positions, "kv_positions")
    if not (causal or window is not None or callable(bias)):  # nothing compares them
        q_positions = kv_positions = None
    noise = None
    if key is not None and dropout_rate:
        keys = random.step_keys(key, q, q_mask, row_ids=row_ids)
        noise, impl = jax.random.key_data(keys), jax.random.key_impl(keys)
        setting = setting._replace(dropout_rate=dropout_rate, noise=impl)
    q, k, v = (filled(x, m) for x, m in ((q, q_mask), (k, kv_mask), (v, kv_mask)))
    given = Given(q, q_mask, k, v, kv_mask, None, None, q_positions, kv_positions, noise)
    setting, given = _with_bias(setting, given, bias)
    with jax.named_scope("jaxmask.attend"):
        if choice.method == "blocks":
            return _in_blocks(setting, given, scale, predicate), q_mask
        if choice.method in ("cudnn", "splash"):
            return _kernels.run(setting, given, scale, predicate, asks), q_mask
        if return_weights:
            y, weights = with_weights(setting, given, scale, predicate)
            return (y, q_mask), weights
        return reference(setting, given, scale, predicate), q_mask


def _with_bias(setting: Setting, given: Given, bias: Any) -> tuple[Setting, Given]:
    """Check a bias; a function is evaluated block by block if it can be, else on all pairs."""
    if bias is None:
        return setting, given
    q, k = given.q, given.k
    if not callable(bias):
        return setting, given._replace(bias=_check_bias(bias, q, k))
    by_pair = as_pair_function(bias, 4) if setting.choice.method == "blocks" else None
    if by_pair is not None and by_pair[0].lead in ((1, 1), (1, q.shape[2])):
        arrays = tuple(_varying(a, q) for a in by_pair[1])
        return setting._replace(bias=by_pair[0]), given._replace(bias=arrays)
    query = ranks(q, given.q_mask, given.q_positions, "attend", "q_positions")
    key = ranks(k, given.kv_mask, given.kv_positions, "attend", "kv_positions")
    whole = jnp.asarray(bias(query[:, None, :, None], key[:, None, None, :]))
    return setting, given._replace(bias=_check_bias(whole, q, k))


def _varying(a: Array, x: Array) -> Array:
    """In a `shard_map` an array that varies as `x` does, so that gradients are summed."""
    return a + jnp.zeros_like(x, shape=(), dtype=a.dtype) if a.dtype != bool else a


def _given_positions(x: Array, positions: ArrayLike | None, name: str) -> Array | None:
    return None if positions is None else ranks(x, None, positions, "attend", name)


def _in_blocks(
    setting: Setting,
    given: Given,
    scale: float | ArrayLike | None,
    predicate: AttentionPredicate | None,
) -> Array:
    q, k, v = given.q, given.k, given.v
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if isinstance(scale, int | float):
        setting = setting._replace(scale=float(scale))
    else:  # it may have a gradient
        wide = accumulator(q.dtype)
        q = q.astype(wide) * jnp.asarray(scale, wide)
        given = given._replace(q=q, k=k.astype(wide), v=v.astype(wide))
    if predicate is not None:
        setting, given = _with_predicate(setting, given, predicate)
    try:
        return transforms.run(setting, given).astype(v.dtype)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            'attend: `method="blocks"`, asked for or taken by "auto", has no forward-mode '
            'derivative (`jax.jvp`, `jax.jacfwd`). Pass `method="reference"`.'
        ) from error


def _with_predicate(
    setting: Setting, given: Given, predicate: AttentionPredicate
) -> tuple[Setting, Given]:
    _check.function(predicate, "attend", "predicate")
    (rows, queries), keys = given.q.shape[:2], given.k.shape[1]
    by_pair = as_pair_function(predicate, 2)
    if by_pair is not None and by_pair[0].lead in ((), (1,), (rows,)):
        return setting._replace(predicate=by_pair[0]), given._replace(allowed=by_pair[1])
    allowed = predicate(jnp.arange(queries)[:, None], jnp.arange(keys)[None])
    allowed = allowed if allowed.ndim > 2 else allowed[None]
    whole = jnp.broadcast_to(allowed, (len(allowed), queries, keys))
    return setting, given._replace(allowed=whole)


def _check_cap(softcap: float | None) -> float | None:
    if softcap is None:
        return None
    if not _check.static_number(softcap, "attend", "softcap") > 0:
        raise ValueError(f"attend: `softcap` must be positive, got {softcap}.")
    return float(softcap)


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
    axes = "[batch, key, kv_heads, value_features]"
    _check.shape(v, (*k.shape[:3], v.shape[3]), axes, "attend", "v")
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
