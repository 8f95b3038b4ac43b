"""Transformer blocks: attention and a small network, each in a residual branch."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, random
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled_with_copies
from jaxmask._types import Array, ArrayLike, Mask, Pair, Window
from jaxmask.attention import Choice, KVCache, PositionBias
from jaxmask.nn._attention import CrossAttention, MultiHeadAttention
from jaxmask.nn._base import MaskedModule, ParamOptions, check_options
from jaxmask.nn._options import Given, NoiseCall, draw, opened
from jaxmask.nn._projections import Memory, ProjectedMemory


class BlockOptions(ParamOptions, total=False):
    """What both blocks take; `TransformerEncoderBlock` documents each."""

    norm_first: bool
    activation: Callable[[Array], Array]
    dropout_rate: float
    epsilon: float
    num_kv_heads: int | None
    value_head_features: int | None
    window: Window
    rotary: bool
    rotary_base: float
    rotary_features: int | None
    normalize_qk: bool | str
    bias: PositionBias | None
    scale: float | None
    softcap: float | None
    max_length: int | None
    method: str | Choice


class _Block(MaskedModule):
    """Residual branches around self-attention and a network of two layers."""

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        mlp_features: int | None,
        *,
        norm_first: bool = True,
        activation: Callable[[Array], Array] = jax.nn.gelu,
        dropout_rate: float = 0.0,
        epsilon: float = 1e-6,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **attention: Any,
    ):
        _check.function(activation, type(self).__name__, "activation")
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        in_features = _check.count(in_features, type(self).__name__, "in_features", least=1)
        hidden = 4 * in_features if mlp_features is None else mlp_features
        self.attention = MultiHeadAttention(
            num_heads, in_features, dropout_rate=dropout_rate, **attention, **options
        )
        self.attention_norm = nnx.LayerNorm(in_features, epsilon=epsilon, **options)
        self.mlp_in = nnx.Linear(in_features, hidden, **options)
        self.mlp_out = nnx.Linear(hidden, in_features, **options)
        self.mlp_norm = nnx.LayerNorm(in_features, epsilon=epsilon, **options)
        self.dropout = nnx.Dropout(dropout_rate, rngs=rngs if dropout_rate else None)
        self.activation = activation
        self.norm_first = norm_first
        self.in_features = in_features

    def _pair(self, x: ArrayLike, mask: Mask, *, segments: bool = True) -> Pair:
        where, axes = type(self).__name__, "[batch, time, in_features]"
        x, mask = _check.pair(x, mask, where, over_time=True, segments=segments)
        _check.shape(x, (*x.shape[:2], self.in_features), axes, where, "x")
        # Once, so that nothing inside has to fill: attention sees no padded key, every other part
        # acts on each step alone, and no cotangent comes back from padding.
        return filled_with_copies(x, mask), mask

    def _before(self, norm: nnx.LayerNorm, x: Array) -> Array:
        return norm(x) if self.norm_first else x

    def _after(self, norm: nnx.LayerNorm, x: Array, y: Array, mask: Mask, given: Given) -> Array:
        """Add a branch to the shortcut past it."""
        if self.dropout.rate and not self.dropout.deterministic:
            key = draw(self.dropout.rngs, given.get("rngs"), type(self).__name__)
            rows = given.get("row_ids")
            y, _ = random.dropout(y, mask, key, self.dropout.rate, row_ids=rows)
        return x + y if self.norm_first else norm(x + y)

    def _mlp(self, x: Array, mask: Mask, given: Given) -> Pair:
        """The last branch, and 0 in the padding again."""
        y = self.mlp_out(self.activation(self.mlp_in(self._before(self.mlp_norm, x))))
        return ops.fill(self._after(self.mlp_norm, x, y, mask, given), mask)

    def _attended(self, x: Array, mask: Mask, given: Given) -> Array:
        y, _ = self.attention(self._before(self.attention_norm, x), mask, **given)
        return self._after(self.attention_norm, x, y, mask, given)

    def _attended_chunk(
        self, carry: KVCache, x: Array, mask: Mask, given: Given
    ) -> tuple[KVCache, Pair]:
        before = self._before(self.attention_norm, x)
        carry, (y, mask) = self.attention.run(carry, before, mask, **given)
        return carry, (self._after(self.attention_norm, x, y, mask, given), mask)

    def initial_carry(self, batch: int) -> KVCache:
        """An empty cache, float32, as `MultiHeadAttention.initial_carry` makes it."""
        return self.attention.initial_carry(batch)


class TransformerEncoderBlock(_Block):
    """Self-attention and a network of two layers, each a residual branch with a layer norm.

        pre-norm:   x = x + attention(norm(x));  y = x + mlp(norm(x))
        post-norm:  x = norm(x + attention(x));  y = norm(x + mlp(x))

    Mask class: any. The mask goes in and out, in both forms, and padding stays exactly 0. With
    `causal` it is the block of a decoder-only model, and streams: `initial_carry` and `run` under
    the rules of `MultiHeadAttention`.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to `y` of the shape of `x` and
    the same mask.

    Args:
      in_features: size of the last axis of `x` and `y`.
      mlp_features: hidden features of the network; `4 * in_features` where None.
      norm_first: pre-norm, or else post-norm; default True.
      activation: of the network; default `jax.nn.gelu` (by tanh).
      dropout_rate: of attention weights and of both branches, in training mode; default 0.
      num_kv_heads, value_head_features, window, rotary, rotary_base, rotary_features, normalize_qk,
        bias, scale, softcap, max_length, method, num_heads, causal, dtype, param_dtype, rngs: as in
        `MultiHeadAttention`, with the same defaults: no `window`, no `rotary` (base 10000, all
        features), no `max_length`.
      epsilon: of the norms; default 1e-6.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.TransformerEncoderBlock(2, 8, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 3, 8)), jnp.array([[True, True, False]]))
      >>> y.shape, y[0, 2].any().item(), mask.tolist()
      ((1, 3, 8), False, [[True, True, False]])

    Agrees with `torch.nn.TransformerEncoderLayer`. Source: Vaswani et al., 2017, arXiv:1706.03762;
    pre-norm: Xiong et al., 2020, arXiv:2002.04745.
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        mlp_features: int | None = None,
        *,
        causal: bool = False,
        **options: Unpack[BlockOptions],
    ):
        check_options(self, options, BlockOptions)
        super().__init__(num_heads, in_features, mlp_features, causal=causal, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None, **options: Unpack[NoiseCall]) -> Pair:
        """Run both branches and return `(y, mask)`; options as in `Sequential`."""
        x, mask = self._pair(x, mask)
        block, given = opened(self, options, resets=False)
        return block._mlp(block._attended(x, mask, given), mask, given)

    def run(
        self, carry: KVCache, x: ArrayLike, mask: Mask = None, **options: Unpack[NoiseCall]
    ) -> tuple[KVCache, Pair]:
        """Run the next chunk of each row; needs eval mode. Returns `(carry, (y, mask))`."""
        block, given = opened(self, options, resets=False)
        pair = self._pair(x, mask, segments=False)
        carry, (x, mask) = block._attended_chunk(carry, *pair, given)
        return carry, block._mlp(x, mask, given)

    def compute_mask(self, x: ArrayLike, mask: Mask = None) -> Mask:
        """The mask that calling the module gives, without running it."""
        return self._pair(x, mask)[1]


class TransformerDecoderBlock(_Block):
    """Causal self-attention, attention to a memory, and a network of two layers.

    Each is a residual branch with a layer norm before it (pre-norm) or after it (post-norm). It
    takes two pairs, `layer(x, mask, memory, memory_mask)`. Mask class: any, of both masks.
    Streaming: `run(carry, x, mask, memory, memory_mask)` takes the rows of `x` chunk by chunk, with
    the whole memory at each call, or what `project(memory, memory_mask)` made of it once, under the
    rules of `MultiHeadAttention`.

    Shapes: `x [batch, time, in_features]`, mask `[batch, time]`, `memory [batch, memory_time,
    memory_features]`, memory mask `[batch, memory_time]` to `y` of the shape of `x` and its mask.

    Args:
      num_heads: heads of the queries.
      in_features: size of the last axis of `x` and `y`.
      mlp_features: hidden features of the network; `4 * in_features` where None.
      memory_features: size of the last axis of `memory`; `in_features` where None.
      **options: as in `TransformerEncoderBlock`, with its defaults; `normalize_qk`, `scale`,
        `softcap` and `method` are those of both attentions, the others of the first.

    Raises:
      TypeError, MaskError: on call, if a mask does not belong to its array, or only one of the two
        is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.TransformerDecoderBlock(2, 8, memory_features=4, rngs=nnx.Rngs(0))
      >>> memory, memory_mask = jnp.ones((1, 5, 4)), jnp.zeros((1, 5), bool)
      >>> y, mask = layer(jnp.ones((1, 2, 8)), jnp.array([[True, False]]), memory, memory_mask)
      >>> y.shape, mask.tolist()
      ((1, 2, 8), [[True, False]])

    Agrees with `torch.nn.TransformerDecoderLayer`. Source: Vaswani et al., 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        mlp_features: int | None = None,
        *,
        memory_features: int | None = None,
        **options: Unpack[BlockOptions],
    ):
        check_options(self, options, BlockOptions)
        super().__init__(num_heads, in_features, mlp_features, causal=True, **options)
        given: dict[str, Any] = {"dropout_rate": 0.0, "epsilon": 1e-6, **options}
        shared = {name: given[name] for name in ParamOptions.__annotations__ if name in given}
        sizes = num_heads, in_features, memory_features
        rate, epsilon = given["dropout_rate"], given["epsilon"]
        both = ("normalize_qk", "scale", "softcap", "method")
        shared_attention = {name: given[name] for name in both if name in given}
        shared_attention |= {"dropout_rate": rate, **shared}
        self.cross_attention = CrossAttention(*sizes, **shared_attention)
        self.cross_norm = nnx.LayerNorm(in_features, epsilon=epsilon, **shared)

    @refusing_pairs
    def __call__(  # type: ignore[override]
        self,
        x: ArrayLike,
        mask: Mask,
        memory: Memory,
        memory_mask: Mask = None,
        **options: Unpack[NoiseCall],
    ) -> Pair:
        """Run the three branches and return `(y, mask)`; a memory mask of None: all are real."""
        x, mask = self._pair(x, mask)
        block, given = opened(self, options, resets=False)
        return block._rest(block._attended(x, mask, given), mask, memory, memory_mask, given)

    def run(
        self,
        carry: KVCache,
        x: ArrayLike,
        mask: Mask,
        memory: Memory,
        memory_mask: Mask = None,
        **options: Unpack[NoiseCall],
    ) -> tuple[KVCache, Pair]:
        """Run the next chunk of `x`; needs eval mode. Returns `(carry, (y, mask))`."""
        x, mask = self._pair(x, mask, segments=False)
        block, given = opened(self, options, resets=False)
        carry, (x, mask) = block._attended_chunk(carry, x, mask, given)
        return carry, block._rest(x, mask, memory, memory_mask, given)

    def project(self, memory: ArrayLike, memory_mask: Mask = None) -> ProjectedMemory:
        """Keys and values of a memory, once for all chunks: `run(carry, x, mask, memory)`."""
        return self.cross_attention.project(memory, memory_mask)

    def _rest(self, x: Array, mask: Mask, memory: Memory, memory_mask: Mask, given: Given) -> Pair:
        query = self._before(self.cross_norm, x)
        y, _ = self.cross_attention(query, mask, memory, memory_mask, **given)
        return self._mlp(self._after(self.cross_norm, x, y, mask, given), mask, given)

    def compute_mask(  # type: ignore[override]
        self, x: ArrayLike, mask: Mask, memory: Memory, memory_mask: Mask = None
    ) -> Mask:
        """The mask of `x`, which calling the module gives."""
        return self._pair(x, mask)[1]
