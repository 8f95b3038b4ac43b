"""Calls that cannot be meant: the error comes from jaxmask, and names the function and argument."""

import re
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

X, MASK, ROWS = jnp.ones((4, 6, 3)), jnp.ones((4, 6), bool), jnp.ones(4, bool)
IDS, LOGITS, KEY = jnp.ones((4, 6), jnp.int32), jnp.ones((4, 6, 5)), jax.random.key(0)
HEADS, KEYS = jnp.ones((4, 6, 2, 4)), jax.random.split(KEY, 4)
R = nnx.Rngs(0)


def step(carry, token):
    return LOGITS[:, 0]


CALLS = {
    "mean: `x`": lambda: jm.pool.mean(np.full((4, 6), "a"), MASK),
    "layer: `x`": lambda: jm.norm.layer(np.full((4, 6, 3), None), MASK),
    "layer: `epsilon`": lambda: jm.norm.layer(X, MASK, epsilon="a"),
    "mean: `max_segments`": lambda: jm.pool.mean(X, jm.Segments(IDS, 1.5)),
    "mean: `max_segments` ": lambda: jm.pool.mean(X, jm.Segments(IDS, -1)),
    "positions: `mask`": lambda: jm.masks.positions(ROWS),
    "rows: `mask`": lambda: jm.masks.rows(ROWS),
    "is_right_padded: `mask`": lambda: jm.masks.is_right_padded(ROWS),
    "lengths: `mask`": lambda: jm.masks.lengths(jnp.ones((2, 2, 2), bool)),
    "from_values: `padding_value`": lambda: jm.masks.from_values(IDS, "a"),
    "same_segment: `query`": lambda: jm.masks.same_segment(MASK),
    "both: `*predicates`": lambda: jm.masks.both(MASK),
    "to_attention_mask: `predicate`": lambda: jm.masks.to_attention_mask(
        MASK, MASK, predicate=MASK
    ),
    "to_attention_mask: `kv_mask`": lambda: jm.masks.to_attention_mask(MASK, None),
    "shift: `steps`": lambda: jm.ops.shift(X, MASK, 1.5),
    "reshape: `feature_shape`": lambda: jm.shape.reshape(X, MASK, (1.5, 2)),
    "split: `indices_or_sections`": lambda: jm.shape.split(X, MASK, 1.5),
    "spatial_dropout: `key`": lambda: jm.random.spatial_dropout(X, MASK, 3, 0.5),
    "spatial_dropout: `key` ": lambda: jm.random.spatial_dropout(
        X, MASK, jax.random.split(KEY, 4), 0.5
    ),
    "dropout: `dropout_rate`": lambda: jax.jit(lambda r: jm.random.dropout(X, MASK, KEY, r)[0])(
        0.5
    ),
    "gaussian_noise: `stddev`": lambda: jm.random.gaussian_noise(X, MASK, KEY, None),
    "time_masking: `max_ratio`": lambda: jm.random.time_masking(X, MASK, KEY, 2, max_ratio="a"),
    "attend: `scale`": lambda: jm.attention.attend(HEADS, MASK, HEADS, HEADS, MASK, scale="a"),
    "rotary: `base`": lambda: jm.attention.rotary(HEADS, MASK, base="a"),
    "ntxent: `temperature`": lambda: jm.losses.ntxent(X, MASK, IDS, "a"),
    "scan: `cell`": lambda: jm.recurrent.scan(None, X, MASK, jnp.ones((4, 3))),
    "greedy: `step`": lambda: jm.decoding.greedy(None, (), IDS[:, 0], None, max_length=3, end_id=0),
    "greedy: function `step`": lambda: jm.decoding.greedy(
        step, (), IDS[:, 0], None, max_length=3, end_id=0
    ),
    "Passthrough: `f`": lambda: jm.nn.Passthrough(None),
    "Consume: `f`": lambda: jm.nn.Consume(None),
    "Embed: `num_embeddings`": lambda: jm.nn.Embed(-5, 3, rngs=R),
    "Embed: `features`": lambda: jm.nn.Embed(5, 3.5, rngs=R),
    "LSTM: `hidden_features`": lambda: jm.nn.LSTM(3, -1, rngs=R),
    "LSTM: `method`": lambda: jm.nn.LSTM(3, 4, method="fast", rngs=R),
    "GRU: `method`": lambda: jm.nn.GRU(3, 4, method=None, rngs=R),
    "Residual: `layer`": lambda: jm.nn.Residual(None),
    "Residual: `combine`": lambda: jm.nn.Residual(jnp.tanh, combine="xor"),
    "Add: `combine`": lambda: jm.nn.Add(combine="xor"),
    "StackedRNN: layer 0": lambda: jm.nn.StackedRNN(jm.nn.LSTM),
    "Bidirectional: `backward`": lambda: jm.nn.Bidirectional(jnp.tanh, None),
    "TimeDistributed: `layer`": lambda: jm.nn.TimeDistributed(3),
    "SpectralNorm: `layer`": lambda: jm.nn.SpectralNorm(jnp.tanh, rngs=R),
    "RNN: `cell`": lambda: jm.nn.RNN(None),
    "RNN: `cell` ": lambda: jm.nn.RNN(nnx.LSTMCell),
    "MaxPool1D: `window`": lambda: jm.nn.MaxPool1D(0),
    "AvgPool1D: `padding`": lambda: jm.nn.AvgPool1D(2, padding="x"),
    "Downsample: `factor`": lambda: jm.nn.Downsample(0),
    "Upsample: `factor`": lambda: jm.nn.Upsample(1.5),
    "Repeat: `time`": lambda: jm.nn.Repeat(-1),
    "Pad: `width`": lambda: jm.nn.Pad(1),
    "Crop: `width`": lambda: jm.nn.Crop((1, -1)),
    "Frames: `strides`": lambda: jm.nn.Frames(4, 0),
    "LogMelSpectrogram: `padding`": lambda: jm.nn.LogMelSpectrogram(
        4, rate=100, window=8, strides=4, padding="x"
    ),
    "GaussianNoise: `stddev`": lambda: jm.nn.GaussianNoise(-1),
    "TimeMasking: `max_ratio`": lambda: jm.nn.TimeMasking(2, max_ratio=2),
    "FeatureMasking: `max_width`": lambda: jm.nn.FeatureMasking(-1),
    "GroupNorm: `num_features`": lambda: jm.nn.GroupNorm(0, 1, rngs=R),
    "RMSNorm: got an unexpected keyword argument 'use_bias'": lambda: jm.nn.RMSNorm(
        3, use_bias=True, rngs=R
    ),
    "Conv1D: `padding`": lambda: jm.nn.Conv1D(3, 4, 3, padding="x", rngs=R),
    "Conv1D: `mask_rule`": lambda: jm.nn.Conv1D(3, 4, 3, mask_rule="any", rngs=R),
    "Conv1D: `groups`": lambda: jm.nn.Conv1D(3, 4, 3, groups=2, rngs=R),
    "DepthwiseConv1D: `dilation`": lambda: jm.nn.DepthwiseConv1D(3, 4, dilation=0, rngs=R),
    "ConvTranspose1D: `padding`": lambda: jm.nn.ConvTranspose1D(3, 4, 3, padding="full", rngs=R),
    "Conv2D: `kernel_size`": lambda: jm.nn.Conv2D(3, 4, 3, rngs=R),
    "Conv2D: `strides`": lambda: jm.nn.Conv2D(3, 4, (3, 3), strides=(0, 1), rngs=R),
    "SimpleRNN: `activation`": lambda: jm.nn.SimpleRNN(3, 4, activation="gelu", rngs=R),
    "MinGRU: `hidden_features`": lambda: jm.nn.MinGRU(3, 0, rngs=R),
    "MultiHeadAttention: got an unexpected keyword argument 'axis'": lambda: (
        jm.nn.MultiHeadAttention(2, 4, axis=1, rngs=R)
    ),
    "TransformerEncoderBlock: `activation`": lambda: jm.nn.TransformerEncoderBlock(
        2, 4, activation="gelu", rngs=R
    ),
    "AdditiveAttention: `hidden_features`": lambda: jm.nn.AdditiveAttention(3, 4, 0, rngs=R),
    "Conv1D: `kernel_size`": lambda: jm.nn.Conv1D(3, 4, 0, rngs=R),
    "ragged_vmap: `in_axes`": lambda: jm.ragged_vmap(lambda r, a: r, in_axes=(0, 3))(X, MASK, X),
}


@pytest.mark.parametrize("names", CALLS)
def test_errors_are_ours_and_name_the_argument(names):
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[names]()
    where, _, argument = names.partition(": ")
    assert re.search(where, str(caught.value))
    assert argument.strip() in str(caught.value)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(last.filename).is_relative_to(Path(jm.__file__).parent)
