"""What the modules of attention share: projections, norms, a memory, options of a call."""

from typing import Any, NamedTuple, TypeAlias

from flax import nnx

from jaxmask import _check, attention, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair, promotion_allowed
from jaxmask.attention import Choice, KVCache, PositionBias
from jaxmask.nn._base import (
    MaskedModule,
    ParamOptions,
    check_options,
    check_sizes,
)
from jaxmask.nn._options import Given, draw, opened


class AttentionOptions(ParamOptions, total=False):
    """What `MultiHeadAttention` and `CrossAttention` take; the former documents each."""

    num_kv_heads: int | None
    value_head_features: int | None
    normalize_qk: bool | str
    bias: PositionBias | None
    scale: float | None
    softcap: float | None
    dropout_rate: float
    method: str | Choice
    use_bias: bool
    kernel_init: nnx.Initializer
    bias_init: nnx.Initializer


class Projections(MaskedModule):
    """The parameters of multi-head attention, under the names that Flax gives them."""

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        kv_features: int,
        qkv_features: int | None,
        out_features: int | None,
        *,
        num_kv_heads: int | None = None,
        value_head_features: int | None = None,
        normalize_qk: bool | str = False,
        bias: PositionBias | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        dropout_rate: float = 0.0,
        method: str | Choice = "auto",
        rngs: nnx.Rngs,
        **options: Any,
    ):
        where = type(self).__name__
        options["rngs"] = rngs
        check_options(self, options, AttentionOptions)
        _check.choice(normalize_qk, (False, True, "layer", "rms"), where, "normalize_qk")
        if bias is not None:
            _check.function(bias, where, "bias")
        heads = _check.count(num_heads, where, "num_heads", least=1)
        kv_heads = heads if num_kv_heads is None else num_kv_heads
        kv_heads = _check.count(kv_heads, where, "num_kv_heads", least=1)
        _check.dropout_rate(dropout_rate, where)
        if not isinstance(method, Choice):
            Choice(method)  # raises where there is no such method
        qkv = in_features if qkv_features is None else qkv_features
        check_sizes(where, in_features=in_features, kv_features=kv_features, qkv_features=qkv)
        if qkv % heads or heads % kv_heads:
            raise ValueError(
                f"{where}: `num_heads` must divide `qkv_features`, and `num_kv_heads` divide "
                f"`num_heads`, got {heads} heads, {kv_heads} for keys and {qkv} features."
            )
        size, out = qkv // heads, in_features if out_features is None else out_features
        of_values = size if value_head_features is None else value_head_features
        of_values = _check.count(of_values, where, "value_head_features", least=1)
        self.query = nnx.LinearGeneral(in_features, (heads, size), **options)
        self.key = nnx.LinearGeneral(kv_features, (kv_heads, size), **options)
        self.value = nnx.LinearGeneral(kv_features, (kv_heads, of_values), **options)
        self.query_ln, self.key_ln = (_norm(normalize_qk, size, options) for _ in range(2))
        self.out = nnx.LinearGeneral((heads, of_values), out, axis=(-2, -1), **options)
        self.dropout = nnx.Dropout(dropout_rate, rngs=rngs if dropout_rate else None)
        self.in_features = in_features
        self.kv_features = kv_features
        self.head_features = size
        self.value_head_features = of_values
        self.num_kv_heads = kv_heads
        self.bias = bias
        self.scale = scale
        self.softcap = softcap
        self.method = method

    def _features(self, x: Array, features: int, name: str) -> None:
        axes, where = "[batch, time, features]", type(self).__name__
        _check.shape(x, (*x.shape[:2], features), axes, where, name)

    def _queries(self, x: Array) -> Array:
        return _normed(self.query_ln, self.query(x))

    def _keys(self, x: Array) -> Array:
        return _normed(self.key_ln, self.key(x))

    @property
    def _how(self) -> dict[str, Any]:
        """The options of a call that attends."""
        return {"scale": self.scale, "softcap": self.softcap, "method": self.method}

    def _attend(self, *given: Any, bias: Any, return_weights: bool, **how: Any) -> Any:
        """What a call returns."""
        bias = self.bias if bias is None else bias
        how |= {"bias": bias, "return_weights": return_weights, **self._how}
        if not return_weights:
            return self._merge(*attention.attend(*given, **how))
        pair, weights = attention.attend(*given, **how)
        return self._merge(*pair), weights

    @property
    def _is_noisy(self) -> bool:
        return bool(self.dropout.rate) and not self.dropout.deterministic

    def _noise(self, given: Given) -> dict[str, Any]:
        if not self._is_noisy:
            return {}
        key = draw(self.dropout.rngs, given.get("rngs"), type(self).__name__)
        return {"dropout_rate": self.dropout.rate, "key": key, "row_ids": given.get("row_ids")}

    def _refuse_noise(self, options: Any) -> None:
        if opened(self, options, resets=False)[0]._is_noisy:
            where = type(self).__name__
            raise ValueError(f"{where}: `run` streams without dropout: call `model.eval()` first.")

    def _cache(self, batch: int, slots: int) -> KVCache:
        return attention.empty_cache(
            *(batch, slots),
            kv_heads=self.num_kv_heads,
            head_features=self.head_features,
            value_features=self.value_head_features,
        )

    def _merge(self, y: Array, mask: Mask) -> Pair:
        # The projection has put its bias in the padding.
        return ops.fill(self.out(y), mask)


def _norm(kind: bool | str, features: int, options: Any) -> nnx.LayerNorm | nnx.RMSNorm | None:
    """Of queries or keys; `kind` False is none."""
    given = {name: options[name] for name in ParamOptions.__annotations__ if name in options}
    if not kind:
        return None
    return (
        nnx.RMSNorm(features, **given)
        if kind == "rms"
        else nnx.LayerNorm(features, use_bias=False, **given)
    )


def _normed(norm: Any, x: Array) -> Array:
    """Normalized by a layer of Flax, whose parameters may be wider, in the dtype of `x`."""
    if norm is None:
        return x
    with promotion_allowed():
        return norm(x).astype(x.dtype)


class ProjectedMemory(NamedTuple):
    """Keys and values of a memory, made once for all the chunks that attend to it.

    `CrossAttention.project` and `TransformerDecoderBlock.project` make it, for the same layer to
    take instead of the memory.

    Attributes:
      k: `[batch, memory_time, kv_heads, head_features]`, 0 in the padding.
      v: like `k`.
      mask: `[batch, memory_time]`, boolean, or `Segments`, or None: every step is real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.CrossAttention(2, 8, memory_features=4, rngs=nnx.Rngs(0))
      >>> memory = layer.project(jnp.ones((1, 5, 4)), jnp.ones((1, 5), bool))
      >>> memory.k.shape, layer(jnp.ones((1, 2, 8)), None, memory)[0].shape
      ((1, 5, 2, 4), (1, 2, 8))
    """

    k: Array
    v: Array
    mask: Mask


Memory: TypeAlias = ArrayLike | ProjectedMemory


def memory_pair(memory: ArrayLike, memory_mask: Mask, mask: Mask, where: str) -> Pair:
    """Check a memory and that its mask goes with that of the queries."""
    memory, memory_mask = _check.pair(
        memory, memory_mask, where, over_time=True, name="memory", mask_name="memory_mask"
    )
    _check.packed((mask, memory_mask), where, "`mask` and `memory_mask`")
    return memory, memory_mask
