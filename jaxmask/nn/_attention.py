"""Attention modules: parameters and configuration; the arithmetic is `jaxmask.attention`."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _mask_ops, attention, ops
from jaxmask._errors import refusing_pairs
from jaxmask._types import Array, ArrayLike, Mask, Pair, Window
from jaxmask.attention import AdditiveWeights, KVCache, PositionBias
from jaxmask.nn._base import MaskedModule, check_sizes
from jaxmask.nn._options import NoiseCall, opened
from jaxmask.nn._projections import (
    AttentionOptions,
    Memory,
    ProjectedMemory,
    Projections,
    memory_pair,
)


class MultiHeadAttention(Projections):
    """Self-attention in several heads; the arithmetic is `jaxmask.attention.attend`.

    Mask class: any. Each real step attends to the real steps of its row (of its segment, with
    `Segments` as the mask). Distances, of `window` and of `rotary`, count real steps.

    Streaming: with `causal`, `run` takes a row chunk by chunk, whatever the padding of each, and
    `initial_carry` gives an empty cache of `window` or else of `max_length` steps. A real step
    beyond `max_length` becomes padding, 0 and False in the mask that comes out of `run`, which is
    boolean for that reason; `carry.overflowed` is True for such rows. With `window` nothing
    overflows. A call has no such limit.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time, out_features]` and the same mask, with `return_weights` `((y, mask), weights)`,
    `weights [batch, num_heads, time, time]`.

    Args:
      num_heads: heads of the queries.
      in_features: size of the last axis of `x`.
      qkv_features: of all query heads together; `in_features` where None.
      out_features: size of the last axis of `y`; `in_features` where None.
      num_kv_heads: heads of keys and values, a divisor of `num_heads`; `num_heads` where None (the
        default).
      value_head_features: of a head of values; those of a query head where None (the default).
      causal: a step attends only to itself and earlier steps.
      window: a step sees steps at most `window - 1` real steps away, or a pair (up to the step,
        from it on), as in `jaxmask.attention.attend`.
      rotary: rotate queries and keys by their positions, `jaxmask.attention.rotary`.
      rotary_base: base of the wavelengths of `rotary`.
      rotary_features: features of a head that rotate; all where None.
      normalize_qk: normalise each head of queries and keys, before they rotate: True (or "layer")
        by a layer norm without bias, as Flax does, "rms" by its root mean square; default False.
      bias: a function of positions, such as `jaxmask.attention.Alibi` or `jaxmask.nn.RelativeBias`;
        a call may be given another one, or an array. Default None.
      scale, softcap: of the logits, as in `jaxmask.attention.attend`; default None.
      dropout_rate: of attention weights, in training mode; default 0. Noise is keyed by real steps.
      method: how to attend, as in `jaxmask.attention.attend`; default "auto".
      max_length: slots of the cache of `run`, for attention without `window`.
      use_bias: of the projections; default True.
      kernel_init: of the projections; `nnx.with_partitioning` shards them. Default: LeCun normal.
      bias_init: of the projections; default zeros.
      dtype: of the computation; that of `x` and the parameters where None (the default).
      param_dtype: dtype in which parameters are stored; default float32.
      rngs: source of the `params` and, with dropout, `dropout` random streams.

    Attributes:
      query, key, value, out: `nnx.LinearGeneral`, as in `nnx.MultiHeadAttention`, whose parameters
        fit (`nnx.update(layer, nnx.state(theirs, nnx.Param))`); query_ln, key_ln: the norms.

    Raises:
      ValueError: if heads do not divide, `dropout_rate` is not from 0 to below 1, `window` is below
        1, or heads of `rotary` are odd; on call, if `x` has other features.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.MultiHeadAttention(2, 8, causal=True, rotary=True, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 3, 8)), jnp.array([[False, True, True]]))
      >>> y.shape, y[0, 0].any().item(), mask.tolist()
      ((1, 3, 8), False, [[False, True, True]])

    Agrees with `flax.nnx.MultiHeadAttention`, `keras.layers.MultiHeadAttention` and
    `torch.nn.MultiheadAttention`. Source: Vaswani et al., 2017, arXiv:1706.03762; grouped heads:
    Ainslie et al., 2023, arXiv:2305.13245.
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        *,
        causal: bool = False,
        window: Window = None,
        rotary: bool = False,
        rotary_base: float = 10000.0,
        rotary_features: int | None = None,
        max_length: int | None = None,
        **options: Unpack[AttentionOptions],
    ):
        super().__init__(num_heads, in_features, in_features, qkv_features, out_features, **options)
        self.window = _check.window(window, "MultiHeadAttention")
        turned = self.head_features if rotary_features is None else rotary_features
        if rotary and (turned % 2 or turned > self.head_features):
            raise ValueError(
                "MultiHeadAttention: `rotary` rotates features in pairs, so `rotary_features`, and "
                f"without it the {self.head_features} features of a head, must be even, and no "
                f"more than those, got {turned}."
            )
        self.causal = causal
        self.rotary_features = rotary_features
        self.rotary = rotary
        self.rotary_base = rotary_base
        self.max_length = max_length

    def _heads(self, x: Array, mask: Mask, positions: Array | None = None) -> tuple[Array, ...]:
        self._features(x, self.in_features, "x")
        safe, _ = ops.fill(x, mask)
        q, k, v = self._queries(safe), self._keys(safe), self.value(safe)
        if self.rotary:
            options: dict[str, Any] = {"base": self.rotary_base, "positions": positions}
            options["features"] = self.rotary_features
            q, _ = attention.rotary(q, mask, **options)
            k, _ = attention.rotary(k, mask, **options)
        return q, k, v

    def __call__(
        self,
        x: ArrayLike,
        mask: Mask = None,
        *,
        bias: ArrayLike | PositionBias | None = None,
        return_weights: bool = False,
        **options: Unpack[NoiseCall],
    ) -> Any:
        """Attend to the real steps of each row and return `(y, mask)`; options as `Sequential`.

        `bias`: as in `jaxmask.attention.attend`, in the place of the layer's own.
        """
        x, mask = _check.pair(x, mask, "MultiHeadAttention", over_time=True)
        layer, given = opened(self, options, resets=False)
        q, k, v = self._heads(x, mask)
        how = {"causal": self.causal, "window": self.window, **layer._noise(given)}
        how |= {"bias": bias, "return_weights": return_weights}
        return self._attend(q, mask, k, v, mask, **how)

    def compute_mask(self, x: ArrayLike, mask: Mask = None) -> Mask:
        """The mask that calling the module gives, without running it."""
        return _check.pair(x, mask, "MultiHeadAttention", over_time=True)[1]

    def initial_carry(self, batch: int) -> KVCache:
        """An empty cache, float32; needs `causal`, and `window` or `max_length`."""
        if not self.causal:
            raise _check.MaskError(
                "MultiHeadAttention: `run` needs `causal=True`: a step that sees later ones cannot "
                "be streamed, whatever its mask."
            )
        slots = self.max_length if self._window is None else self._window
        if slots is None:
            raise ValueError(
                "MultiHeadAttention: streaming keeps keys and values in a cache of static size. "
                "Build the layer with `max_length=` (the most real steps of a row) or `window=`."
            )
        return self._cache(batch, slots)

    @property
    def _window(self) -> int | None:
        """How many steps up to its own a step of a stream sees."""
        return self.window[0] if isinstance(self.window, tuple) else self.window

    def run(
        self, carry: KVCache, x: ArrayLike, mask: Mask = None, **options: Unpack[NoiseCall]
    ) -> tuple[KVCache, Pair]:
        """Attend from a chunk to itself and to all earlier ones; returns `(carry, (y, mask))`."""
        where = "MultiHeadAttention"
        x, mask = _check.pair(x, mask, where, over_time=True, segments=False)
        if not self.causal:
            self.initial_carry(x.shape[0])  # raises the error that says why
        self._refuse_noise(options)
        _check.cache(carry, KVCache, where, "carry")
        q, k, v = self._heads(x, mask, carry.positions(x, mask))
        how = {"window": self._window, "bias": self.bias, **self._how}
        carry, (y, mask) = attention.attend_cached(carry, q, k, v, mask, **how)
        return carry, self._merge(y, mask)


class CrossAttention(Projections):
    """Attention from one sequence to another; the arithmetic is `jaxmask.attention.attend`.

    It takes two pairs, `layer(x, mask, memory, memory_mask)`, so `Sequential` cannot hold it.
    Mask class: any, of both masks. Where the memory of a row is empty, attention gives 0, and the
    layer the bias of its last projection.

    Streaming: a memory that does not change is projected once, `project`. One that comes in chunks
    is kept in a cache of `max_length` steps: `run(carry, x, mask, memory, memory_mask)` adds a
    chunk of it, or none where it is None, and attends from every step of `x` to all that it holds.
    A row of more memory than that becomes padding: 0, and False in the mask, which is boolean.

    Shapes: `x [batch, time, in_features]`, mask `[batch, time]`, `memory [batch, memory_time,
    memory_features]`, memory mask `[batch, memory_time]` to `y [batch, time, out_features]` and the
    mask of `x`.

    Args:
      memory_features: size of the last axis of `memory`; `in_features` where None.
      max_length: slots of the cache of `run`.
      num_heads, in_features, qkv_features, out_features: as in `MultiHeadAttention`.
      **options: `num_kv_heads`, `value_head_features`, `normalize_qk`, `bias`, `scale`, `softcap`,
        `dropout_rate`, `method`, `use_bias`, `kernel_init`, `bias_init`, `dtype`, `param_dtype` and
        `rngs`, with the defaults of `MultiHeadAttention`.

    Raises:
      ValueError: if heads do not divide, or `dropout_rate` is not from 0 to below 1; on call, if
        `x` or `memory` has other features.
      TypeError, MaskError: on call, if a mask does not belong to its array, or only one of the two
        is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.CrossAttention(2, 8, memory_features=4, rngs=nnx.Rngs(0))
      >>> memory, memory_mask = jnp.ones((1, 5, 4)), jnp.ones((1, 5), bool)
      >>> y, mask = layer(jnp.ones((1, 2, 8)), jnp.array([[True, False]]), memory, memory_mask)
      >>> y.shape, mask.tolist()
      ((1, 2, 8), [[True, False]])

    Agrees with `flax.nnx.MultiHeadAttention` and `torch.nn.MultiheadAttention`. Source: Vaswani et
    al., 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        memory_features: int | None = None,
        qkv_features: int | None = None,
        out_features: int | None = None,
        *,
        max_length: int | None = None,
        **options: Unpack[AttentionOptions],
    ):
        self.max_length = max_length
        memory_features = in_features if memory_features is None else memory_features
        super().__init__(
            num_heads, in_features, memory_features, qkv_features, out_features, **options
        )

    @refusing_pairs
    def __call__(  # type: ignore[override]
        self,
        x: ArrayLike,
        mask: Mask,
        memory: Memory,
        memory_mask: Mask = None,
        *,
        bias: ArrayLike | PositionBias | None = None,
        return_weights: bool = False,
        **options: Unpack[NoiseCall],
    ) -> Any:
        """Attend to the real steps of the memory and return `(y, mask)`; None: all are real.

        `memory` may be what `project` made of it; then its mask is in it. Options as in
        `MultiHeadAttention`.
        """
        x, mask = _check.pair(x, mask, "CrossAttention", over_time=True)
        layer, given = opened(self, options, resets=False)
        self._features(x, self.in_features, "x")
        if not isinstance(memory, ProjectedMemory):
            memory = self.project(memory, memory_mask)
        elif memory_mask is not None:
            raise _check.MaskError(
                "CrossAttention: a projected memory holds its mask; leave `memory_mask` None."
            )
        k, memory_mask = memory_pair(memory.k, memory.mask, mask, "CrossAttention")
        q = self._queries(ops.fill(x, mask)[0])
        how = {"bias": bias, "return_weights": return_weights, **layer._noise(given)}
        return self._attend(q, mask, k, memory.v, memory_mask, **how)

    def initial_carry(self, batch: int) -> KVCache:
        """An empty cache, float32, for a memory that comes in chunks; needs `max_length`."""
        if self.max_length is None:
            raise ValueError(
                "CrossAttention: a memory that comes in chunks is kept in a cache of static size. "
                "Build the layer with `max_length=`, the most real steps of a memory."
            )
        return self._cache(batch, self.max_length)

    def run(
        self,
        carry: KVCache,
        x: ArrayLike,
        mask: Mask = None,
        memory: ArrayLike | None = None,
        memory_mask: Mask = None,
        **options: Unpack[NoiseCall],
    ) -> tuple[KVCache, Pair]:
        """Keep a chunk of the memory, attend to all that is kept; returns `(carry, (y, mask))`."""
        self._refuse_noise(options)
        _check.cache(carry, KVCache, "CrossAttention", "carry")
        if memory is not None:
            made = self.project(memory, memory_mask)
            carry = attention.extend_cache(carry, made.k, made.v, made.mask)
        x, mask = _check.pair(x, mask, "CrossAttention", over_time=True, segments=False)
        self._features(x, self.in_features, "x")
        mask = _mask_ops.real_steps(mask, x.shape[:2]) & ~carry.overflowed[:, None]
        q = self._queries(ops.fill(x, mask)[0])
        k, v = (held.astype(q.dtype) for held in (carry.k, carry.v))
        attended = self._attend(q, mask, k, v, carry.mask, bias=None, return_weights=False)
        return carry, attended

    def project(self, memory: ArrayLike, memory_mask: Mask = None) -> ProjectedMemory:
        """Keys and values of a memory, to reuse in many calls that attend to it."""
        memory, memory_mask = _check.pair(
            *(memory, memory_mask, "CrossAttention"),
            over_time=True,
            name="memory",
            mask_name="memory_mask",
        )
        self._features(memory, self.kv_features, "memory")
        safe, _ = ops.fill(memory, memory_mask)
        k, v = (ops.fill(part(safe), memory_mask)[0] for part in (self._keys, self.value))
        return ProjectedMemory(k, v, memory_mask)

    def compute_mask(  # type: ignore[override]
        self, x: ArrayLike, mask: Mask, memory: Memory, memory_mask: Mask = None
    ) -> Mask:
        """The mask of `x`, which calling the module gives."""
        return _check.pair(x, mask, "CrossAttention", over_time=True)[1]


class AdditiveAttention(MaskedModule):
    """Attention by a small network of query and key: `jaxmask.attention.additive`.

    It takes two pairs, `layer(x, mask, memory, memory_mask)`. Mask class: any, of both masks.

    Shapes: `x [batch, time, in_features]`, mask `[batch, time]`, `memory [batch, memory_time,
    memory_features]`, memory mask `[batch, memory_time]` to `y [batch, time, memory_features]` and
    the mask of `x`.

    Args:
      memory_features: size of the last axis of `memory`; `in_features` where None.
      hidden_features: of the network; `in_features` where None.
      kernel_init: of its two projections.
      scale_init: of the vector that maps the hidden features to a score.
      in_features: size of the last axis of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.AdditiveAttention(8, 4, rngs=nnx.Rngs(0))
      >>> memory, memory_mask = jnp.ones((1, 5, 4)), jnp.zeros((1, 5), bool)
      >>> y, mask = layer(jnp.ones((1, 2, 8)), None, memory, memory_mask)
      >>> y.shape, y.any().item()
      ((1, 2, 4), False)

    Source: Bahdanau et al., 2015, arXiv:1409.0473.
    """

    def __init__(
        self,
        in_features: int,
        memory_features: int | None = None,
        hidden_features: int | None = None,
        *,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        scale_init: nnx.Initializer = nnx.initializers.ones,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        memory_features = in_features if memory_features is None else memory_features
        hidden = in_features if hidden_features is None else hidden_features
        sizes = {"in_features": in_features, "memory_features": memory_features}
        check_sizes("AdditiveAttention", **sizes, hidden_features=hidden)
        self.w_q = nnx.Param(kernel_init(rngs.params(), (in_features, hidden), param_dtype))
        self.w_k = nnx.Param(kernel_init(rngs.params(), (memory_features, hidden), param_dtype))
        self.scale = nnx.Param(scale_init(rngs.params(), (hidden,), param_dtype))

    @refusing_pairs
    def __call__(  # type: ignore[override]
        self, x: ArrayLike, mask: Mask, memory: ArrayLike, memory_mask: Mask = None
    ) -> Pair:
        """Attend to the real steps of the memory and return `(y, mask)`; None: all are real."""
        memory, memory_mask = memory_pair(memory, memory_mask, mask, "AdditiveAttention")
        weights = AdditiveWeights(self.w_q[...], self.w_k[...], self.scale[...])
        return attention.additive(x, mask, memory, memory, memory_mask, weights)
