"""Attention and positions."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from tests.registry.entry import NO_SEGMENTS, Call, Entry, Input, Stream, module, simple

HEADS, KV_HEADS, HALF = Input((4, 2)), Input((2, 2)), Input((2, 2), mask=1)
SELF = (HEADS, KV_HEADS, KV_HEADS)
CROSS = (HEADS, HALF, HALF)
BLOCKS = jm.attention.Choice("blocks", queries=2, keys=2)  # several of each in a row of the laws
BY_ROW = "noise is keyed by the row, which a packed sequence changes"


def attend(**options: Any) -> Call:
    """Self-attention: keys under the mask of the queries."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        q, k, v = xs
        return [jm.attention.attend(q, masks[0], k, v, masks[0], **options)]

    return call


def attend_across(params: Any, xs: list, masks: list, rows: Any) -> list:
    return [jm.attention.attend(xs[0], masks[0], xs[1], xs[2], masks[1], window=2)]


def attend_with_noise(params: Any, xs: list, masks: list, rows: Any, method: Any = "auto") -> list:
    q, k, v, *logits = xs
    # JAX's checks would stop at a nan here, before `attend` has seen it.
    of_query, of_key = (jm.ops.fill(x, m, 1e4)[0] for x, m in zip(logits, masks, strict=True))
    bias = jnp.swapaxes(of_query, -1, -2)[..., None] + jnp.swapaxes(of_key, -1, -2)[..., None, :]
    options = {"dropout_rate": 0.4, "key": jax.random.key(0), "row_ids": rows, "bias": bias}
    return [jm.attention.attend(q, masks[0], k, v, masks[1], **options, method=method)]


def attend_with_bias(params: Any, xs: list, masks: list, rows: Any) -> list:
    q, k, v, logits = xs
    each_head = jnp.swapaxes(jm.ops.fill(logits, masks[0], 1e4)[0], -1, -2)
    bias = each_head[..., None] + each_head[..., ::-1, None, :]
    return [jm.attention.attend(q, masks[0], k, v, masks[0], bias=bias, scale=0.3)]


def attend_with_weights(params: Any, xs: list, masks: list, rows: Any) -> list:
    """And what the weights do to the keys: their own last axis grows with the padding."""
    q, k, v = xs
    options = {"window": (2, None), "bias": jm.attention.Alibi(4), "softcap": 2.0}
    pair, weights = jm.attention.attend(q, masks[0], k, v, masks[0], **options, return_weights=True)
    weights = jnp.moveaxis(weights, 1, 3)[..., None]  # [batch, query, key, heads, 1]
    read = jnp.where(weights > 0, jnp.repeat(k, 2, axis=2)[:, None], 0)
    return [pair, (jnp.sum(weights * read, axis=2), masks[0])]


def relative_bias(query: jax.Array, key: jax.Array) -> jax.Array:
    """A function as `bias` that reads an array."""
    buckets = jm.attention.relative_buckets(key - query, num_buckets=4, max_distance=3)
    table = jnp.arange(8, dtype=jnp.float32).reshape(4, 2) / 3
    return jnp.repeat(jnp.moveaxis(table[buckets[:, 0]], -1, 1), 2, axis=1)


def extended(params: Any, xs: list, masks: list, rows: Any) -> list:
    """What the queries read of a cache that holds the keys."""
    cache = jm.attention.empty_cache(len(xs[0]), 7, kv_heads=2, head_features=2)
    cache = jm.attention.extend_cache(cache, xs[1], xs[2], masks[1])
    k, v = (held.astype(xs[0].dtype) for held in (cache.k, cache.v))
    return [jm.attention.attend(xs[0], masks[0], k, v, cache.mask)]


def additive_weights() -> jm.attention.AdditiveWeights:
    keys = jax.random.split(jax.random.key(4), 3)
    shapes = (3, 4), (2, 4), (4,)
    return jm.attention.AdditiveWeights(*map(jax.random.normal, keys, shapes))


def additive(params: Any, xs: list, masks: list, rows: Any) -> list:
    return [jm.attention.additive(xs[0], masks[0], xs[1], xs[2], masks[1], params)]


def cached(window: int | None, slots: int) -> dict[str, Any]:
    """One call of a stream, and the stream."""

    def initial(params: Any, batch: int) -> Any:
        return jm.attention.empty_cache(batch, slots, kv_heads=4, head_features=2)

    def run(params: Any, cache: Any, x: jax.Array, mask: Any) -> tuple:
        return jm.attention.attend_cached(cache, x, x, x, mask, window=window)

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        _, (y, mask) = run(params, initial(params, xs[0].shape[0]), xs[0], masks[0])
        return [(y, mask)]

    return {"call": call, "stream": Stream(initial, run)}


def across(make: Callable[[nnx.Rngs], nnx.Module]) -> dict[str, Any]:
    """A module `layer(x, mask, memory, memory_mask)`."""
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        layer = nnx.merge(graph, params, rest, copy=True)
        return [layer(xs[0], masks[0], xs[1], masks[1])]

    return {"call": call, "params": params}


FUNCTIONS = [
    Entry("attention.attend", attend(), SELF),
    Entry("attention.attend:causal,window", attend(causal=True, window=2), SELF),
    Entry(
        "attention.attend:predicate",
        attend(predicate=jm.masks.window(2, 2)),
        SELF,
        mask_class="contiguous",
    ),
    Entry("attention.attend:across,window", attend_across, CROSS),
    Entry("attention.attend:bias", attend_with_bias, (*SELF, Input((4,)))),
    Entry(
        "attention.attend:dropout,across,bias",
        attend_with_noise,
        (*CROSS, Input((1,)), Input((1,), mask=1)),
        exempt={"segments": BY_ROW},
    ),
    Entry("attention.attend:weights,softcap,alibi", attend_with_weights, SELF),
    Entry("attention.attend:blocks", attend(method=BLOCKS), SELF),
    Entry(
        "attention.attend:blocks,softcap,relative",
        attend(method=BLOCKS, window=(2, 3), softcap=2.0, bias=relative_bias),
        (HEADS, KV_HEADS, Input((2, 3))),
    ),
    Entry(
        "attention.attend:blocks,causal,window",
        attend(causal=True, window=2, method=BLOCKS),
        SELF,
    ),
    Entry(
        "attention.attend:blocks,dropout,across,bias",
        functools.partial(attend_with_noise, method=BLOCKS),
        (*CROSS, Input((1,)), Input((1,), mask=1)),
        exempt={"segments": BY_ROW},
    ),
    Entry(
        "attention.attend_cached",
        **cached(None, 7),
        inputs=(HEADS,),
        exempt={
            "segments": NO_SEGMENTS,
            "no_mask": "a full cache makes padding; tested in test_attention.py",
        },
    ),
    Entry(
        "attention.attend_cached:window",
        **cached(2, 2),
        inputs=(HEADS,),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "attention.extend_cache",
        extended,
        CROSS,
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "attention.additive",
        additive,
        (Input((3,)), Input((2,), mask=1), Input((3,), mask=1)),
        params=additive_weights(),
    ),
    Entry("attention.rotary", simple(jm.attention.rotary), (HEADS,)),
]

MODULES = [
    Entry(
        "nn.MultiHeadAttention",
        **module(
            lambda rngs: jm.nn.MultiHeadAttention(
                *(4, 3, 16),
                num_kv_heads=2,
                value_head_features=3,
                causal=True,
                rotary=True,
                rotary_features=2,
                normalize_qk="rms",
                bias=jm.nn.RelativeBias(
                    4, num_buckets=4, max_distance=5, bidirectional=False, rngs=rngs
                ),
                max_length=9,
                rngs=rngs,
            ),
            streams=True,
        ),
    ),
    Entry(
        "nn.CrossAttention",
        **across(lambda rngs: jm.nn.CrossAttention(1, 3, rngs=rngs)),
        inputs=(Input(), Input(mask=1)),
    ),
    Entry(
        "nn.AdditiveAttention",
        **across(lambda rngs: jm.nn.AdditiveAttention(3, rngs=rngs)),
        inputs=(Input(), Input(mask=1)),
    ),
    Entry(
        "nn.LearnedPositions",
        **module(lambda rngs: jm.nn.LearnedPositions(9, 3, rngs=rngs), streams=True),
    ),
    Entry(
        "nn.SinusoidalPositions",
        **module(lambda rngs: jm.nn.SinusoidalPositions(4), streams=True),
        inputs=(Input((4,)),),
    ),
    Entry(
        "nn.TransformerEncoderBlock",
        **module(
            lambda rngs: jm.nn.TransformerEncoderBlock(
                1, 3, 4, causal=True, norm_first=False, window=3, rngs=rngs
            ),
            streams=True,
        ),
    ),
    Entry(
        "nn.TransformerDecoderBlock",
        **across(lambda rngs: jm.nn.TransformerDecoderBlock(1, 3, 4, rngs=rngs)),
        inputs=(Input(), Input(mask=1)),
    ),
]

ENTRIES: list[Entry] = [*FUNCTIONS, *MODULES]

NOT_MASKED: dict[str, str] = {
    "attention.AdditiveWeights": "a container",
    "attention.Alibi": "a function of positions, no mask; runs as `bias` of attend",
    "attention.Choice": "a container",
    "attention.KVCache": "a container",
    "nn.ProjectedMemory": "a container",
    "nn.RelativeBias": "a function of positions, no mask; runs in nn.MultiHeadAttention",
    "attention.PositionBias": "a type",
    "attention.empty_cache": "makes a carry",
    "attention.explain": "tells which method runs",
    "attention.relative_buckets": "distances in, no mask; tested in test_attention_options.py",
    "attention.sinusoids": "positions in, no mask; tested in test_attention.py",
}
