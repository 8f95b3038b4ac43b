"""Calls that cannot be meant: the error comes from jaxmask, and names the function and argument."""

import functools
import inspect
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
WEIGHTS = jm.recurrent.LSTMWeights(jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.ones(8))
CARRY = jm.recurrent.zero_carry(WEIGHTS, 4)


def step(carry, token):
    return LOGITS[:, 0]


CALLS = {
    "^Add: too many positional arguments": lambda: jm.nn.Add(3),
    "^MaxPool1D: Did you mean `strides`?": lambda: jm.nn.MaxPool1D(2, stride=2),
    "^Conv1D: Did you mean `strides`?": lambda: jm.nn.Conv1D(3, 4, 3, stride=2, rngs=R),
    "^Embed: `rngs` is required": lambda: jm.nn.Embed(3, 4),
    "^Dropout: Did you mean `dropout_rate`?": lambda: jm.nn.Dropout(rate=0.5),
    "Accuracy: `Accuracy.empty(...)`": lambda: jm.metrics.Accuracy(),
    "F1: `F1.empty(...)`": lambda: jm.metrics.F1(num_classes=3),
    "Segments: `segments & real` takes a boolean array": lambda: jm.Segments(IDS, 1) & IDS,
    "Segments: nothing is broadcast": lambda: jm.Segments(IDS, 1) & ROWS,
    "Segments: no other operator": lambda: ~jm.Segments(IDS, 1),
    "Segments: no other operator ": lambda: MASK | jm.Segments(IDS, 1),
    "skip_padding: one number": lambda: jm.skip_padding(lambda x, mask: x.sum())(X, MASK),
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
    "LSTM: `x`": lambda: jm.nn.LSTM(2, 4, rngs=R)(X, MASK),
    "Conv1D: `x`": lambda: jm.nn.Conv1D(2, 4, 3, rngs=R)(X, MASK),
    "Bidirectional: `merge=None`": lambda: jm.nn.Bidirectional(
        jm.nn.GRU(3, 4, rngs=R), jm.nn.GRU(3, 4, return_sequences=False, rngs=R)
    )(X, MASK),
    "Conv1D: `kernel_size`": lambda: jm.nn.Conv1D(3, 4, 0, rngs=R),
    "ragged_vmap: `in_axes`": lambda: jm.ragged_vmap(lambda r, a: r, in_axes=(0, 3))(X, MASK, X),
    "mean: they look swapped": lambda: jm.pool.mean(MASK, X[..., 0]),
    "mean: `max_segments`  ": lambda: jm.pool.mean(X, jm.Segments(IDS, True)),
    "attend: `causal`": lambda: jm.attention.attend(HEADS, MASK, HEADS, HEADS, MASK, causal=MASK),
    "attend: `return_weights`": lambda: jm.attention.attend(
        HEADS, MASK, HEADS, HEADS, MASK, return_weights="no"
    ),
    "attend: `softcap`": lambda: jm.attention.attend(HEADS, MASK, HEADS, HEADS, MASK, softcap=1j),
    "rotary: `base` ": lambda: jm.attention.rotary(HEADS, MASK, base=0.0),
    "rotary: `interleaved`": lambda: jm.attention.rotary(HEADS, MASK, interleaved=None),
    "empty_cache: `kv_heads`": lambda: jm.attention.empty_cache(2, 3, kv_heads=-1, head_features=4),
    "extend_cache: `v`": lambda: jm.attention.extend_cache(
        jm.attention.empty_cache(4, 8, kv_heads=2, head_features=4), HEADS, HEADS + 0j, MASK
    ),
    "attend: `scores`": lambda: jm.pool.attend(X, MASK, IDS),
    "to_attention_mask: `kv_mask` ": lambda: jm.masks.to_attention_mask(MASK, MASK[:3]),
    "to_attention_mask: `q_mask`": lambda: jm.masks.to_attention_mask(MASK[..., None], MASK),
    "from_segments: `padding_id`": lambda: jm.masks.from_segments(IDS, "x"),
    "from_offsets: `offsets`": lambda: jm.masks.from_offsets(np.array([0.0, 2.0]), 3),
    "lstm: `reverse`": lambda: jm.recurrent.lstm(X, MASK, WEIGHTS, reverse="yes"),
    "linear: `reverse`": lambda: jm.recurrent.linear(X, MASK, X, reverse=ROWS),
    "lstm_cell: `x`": lambda: jm.recurrent.lstm_cell(WEIGHTS, CARRY, X[:, 0, :2]),
    "lstm_cell: `carry.h`": lambda: jm.recurrent.lstm_cell(WEIGHTS, CARRY, X[:3, 0]),
    "lstm_cell: `carry`": lambda: jm.recurrent.lstm_cell(WEIGHTS, CARRY.h, X[:, 0]),
    "zero_carry: `batch`": lambda: jm.recurrent.zero_carry(WEIGHTS, 1.5),
    "GRU.initial_carry: `batch`": lambda: jm.nn.GRU(3, 4, rngs=R).initial_carry(-1),
    "squared_error: `targets`": lambda: jm.losses.squared_error(X, MASK, X + 0j),
    "huber_loss: `delta`": lambda: jm.losses.huber_loss(X, MASK, X, delta=None),
    "huber_loss: `delta` ": lambda: jm.losses.huber_loss(X, MASK, X, delta=1j),
    "info_nce: `temperature`": lambda: jm.losses.info_nce(X, MASK, X, 0.0),
    "soft_dtw: `gamma`": lambda: jm.losses.soft_dtw(X, MASK, X, MASK, gamma=0),
    "poisson_nll_loss: `full`": lambda: jm.losses.poisson_nll_loss(X, MASK, X, full=None),
    "max_pool1d: `ceil_mode`": lambda: jm.conv.max_pool1d(X, MASK, 2, ceil_mode="floor"),
    "max_pool1d: `window`": lambda: jm.conv.max_pool1d(X, MASK, True),
    "conv2d: `frequency_padding`": lambda: jm.conv.conv2d(
        HEADS, MASK, jnp.ones((1, 1, 4, 1)), frequency_padding="x"
    ),
    "conv2d_transpose: `frequency_padding`": lambda: jm.conv.conv2d_transpose(
        HEADS, MASK, jnp.ones((1, 1, 4, 1)), frequency_padding="x"
    ),
    "log_mel: `filterbank`": lambda: jm.audio.log_mel(X[..., 0], MASK, X[0, :2], 4, 2),
    "log_mel: `floor`": lambda: jm.audio.log_mel(X[..., 0], MASK, X[0], 4, 2, floor=None),
    "mel_filterbank: `rate`": lambda: jm.audio.mel_filterbank(4, 8, None),
    "istft: `y`": lambda: jm.audio.istft(None, MASK, 4, 2),
    "greedy: `prefix`": lambda: jm.decoding.greedy(
        step, (), IDS[:, 0], None, max_length=3, end_id=0, prefix=IDS
    ),
    "each_step: `f`": lambda: jm.ops.each_step(X, X, MASK),
    "batch: `statistics`": lambda: jm.norm.batch(X, MASK, X),
    "standardize: `variance`": lambda: jm.norm.standardize(X, MASK, variance=0),
    "MultiHeadAttention: `in_features`": lambda: jm.nn.MultiHeadAttention(2, None, rngs=R),
    "TransformerEncoderBlock: `in_features`": lambda: jm.nn.TransformerEncoderBlock(2, "4", rngs=R),
    "GroupNorm: `num_groups`": lambda: jm.nn.GroupNorm(4, None, rngs=R),
    "Reshape: `feature_shape`": lambda: jm.nn.Reshape(4),
    "LearnedPositions: `features`": lambda: jm.nn.LearnedPositions(8, 1.5, rngs=R),
    "AttentionPool: `x`": lambda: jm.nn.AttentionPool(4, rngs=R)(X, MASK),
    "reduce: Unpack it": lambda: jm.losses.reduce((X, MASK)),
    "sum_and_count: Unpack it": lambda: jm.losses.sum_and_count((X, MASK)),
    "mean: Unpack it": lambda: jm.pool.mean((X, MASK)),
    "softmax: Unpack it": lambda: jm.ops.softmax((X, MASK)),
    "mean: Pass `packed.as_segments()`": lambda: jm.pool.mean(X, jm.pack_sequences([[1.0]], 6)),
    "mean: `jm.Segments(ids, max_segments)`": lambda: jm.pool.mean(X, IDS),
    "mean: Pass `jnp.asarray(mask)`": lambda: jm.pool.mean(X, [[True] * 6] * 4),
    "squared_error: If it holds 0 and 1, pass `where.astype(bool)`": lambda: (
        jm.losses.squared_error(X, MASK, X, where=X)
    ),
    "ctc_loss: out of the mask: `label_mask & (labels != 9)`": lambda: jm.losses.ctc_loss(
        LOGITS, MASK, np.full((4, 2), 9), np.ones((4, 2), bool)
    ),
    "ctc_loss: not be 0, the blank": lambda: jm.losses.ctc_loss(
        LOGITS, MASK, np.zeros((4, 2), int), np.ones((4, 2), bool)
    ),
    "Embed: There are 3 embeddings: if 7 is an id, it takes 8": lambda: jm.nn.Embed(3, 4, rngs=R)(
        np.full((4, 2), 7)
    ),
    "quantile_loss: `quantile` must lie between 0 and 1": lambda: jm.losses.quantile_loss(
        X, MASK, X, quantile=1.5
    ),
    "quantile_loss: leading axes of `predictions`": lambda: jm.losses.quantile_loss(
        X, MASK, X, quantile=jnp.ones(3)
    ),
    "^dropout: `key`": lambda: jm.random.dropout(X, MASK, 3, 0.5),
    "^gaussian_noise: `key`": lambda: jm.random.gaussian_noise(X, MASK, 3, 0.5),
    "from_lengths: name it in `static_argnames`": lambda: jax.jit(jm.masks.from_lengths)(
        jnp.ones(4, int), 6
    ),
    "attend: or name it in `static_argnames`": lambda: jax.jit(
        lambda causal: jm.attention.attend(HEADS, MASK, HEADS, HEADS, MASK, causal=causal)
    )(True),
    "^GRU: `rngs` is required": lambda: jm.nn.GRU(3, 4),
    "^LayerNorm: `rngs` is required": lambda: jm.nn.LayerNorm(3),
    "^CrossAttention: `rngs` is required": lambda: jm.nn.CrossAttention(2, 4),
    "^TransformerEncoderBlock: `rngs` is required": lambda: jm.nn.TransformerEncoderBlock(2, 4),
    "^MinGRU: `rngs` is required": lambda: jm.nn.MinGRU(3, 4),
    "^GRU: Did you mean `hidden_features`?": lambda: jm.nn.GRU(3, 4, hidden=4, rngs=R),
    "^MultiHeadAttention: Did you mean `num_heads`?": lambda: jm.nn.MultiHeadAttention(
        2, 4, heads=2, rngs=R
    ),
    "^GRU: `reverse`": lambda: jm.nn.GRU(3, 4, reverse="yes", rngs=R),
    "^MinGRU: `reverse`": lambda: jm.nn.MinGRU(3, 4, reverse="yes", rngs=R),
    "SkipPadding: take that layer out of SkipPadding": lambda: jm.nn.SkipPadding(
        jm.nn.BatchNorm(3, rngs=R), lengths=(2,)
    )(X, MASK),
    "unpack_sequences: `packed`": lambda: jm.unpack_sequences(X, None),
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


def masked_calls():
    """Every public function and method that needs a mask: its name, itself, what it requires."""
    rooms = "ops pool shape norm random conv attention audio recurrent losses metrics decoding leak"
    for room in map(functools.partial(getattr, jm), rooms.split()):
        for name in room.__all__:
            f, method = getattr(room, name), getattr(getattr(room, name), "update", None)
            if inspect.isclass(f) and method is not None:
                empty = object.__new__(type(name, (f,), {}))  # which is no pytree
                yield f"{name}.update", functools.partial(method, empty), method
            elif inspect.isfunction(f):
                yield name, f, f
    decoder = jm.nn.TransformerDecoderBlock(2, 4, rngs=R)
    for layer in (jm.nn.CrossAttention(2, 4, rngs=R), decoder):
        yield type(layer).__name__, layer, type(layer).__call__
    yield "SkipPadding", jm.skip_padding(jm.pool.mean), type(jm.skip_padding(jm.pool.mean)).__call__


def test_a_pair_in_place_of_an_array_is_named_wherever_one_may_stand():
    """Where a mask follows and where none does."""
    seen = 0
    for name, call, f in masked_calls():
        each = inspect.signature(f).parameters.values()
        each = [p for p in each if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        names = [p.name for p in each if p.name != "self"]
        at = next((i for i, n in enumerate(names) if n.endswith("mask")), 0) - 1
        if at < 0:  # no mask is needed
            continue
        arguments = [X] * at + [(X, MASK)] + [X] * (len(names) - at - 2)
        for some in ([(X, MASK)], arguments):
            with pytest.raises(TypeError, match="Unpack it: `") as caught:
                call(*some)
            assert str(caught.value).startswith(f"{name}: got a pair")
            assert "is missing" in str(caught.value)
        seen += 1
    assert seen > 120


@pytest.mark.parametrize(
    ("module", "name", "near"),
    [
        (jm.nn, "Linear", "flax.nnx.Linear"),
        (jm.nn, "Conv", "Conv1D"),
        (jm.nn, "LSMT", "LSTM"),
        (jm.losses, "cross_entropy", "softmax_cross_entropy_with_integer_labels"),
        (jm.metrics, "F1Score", "F1"),
        (jm.metrics, "WordErrorRate", "TokenErrorRate"),
    ],
)
def test_modules_name_what_is_near(module, name, near):
    with pytest.raises(AttributeError, match=re.escape(f"Did you mean `{near}`?")):
        getattr(module, name)
    assert not hasattr(module, "__wrapped__")
