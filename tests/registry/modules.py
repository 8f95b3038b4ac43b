"""Modules."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from tests.registry.entry import IDS, NO_SEGMENTS, PERMUTED_ROWS, Entry, Input, module


def _bidirectional(merge: str, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    return lambda rngs: jm.nn.Bidirectional(
        jm.nn.LSTM(3, 4, rngs=rngs, **options), jm.nn.LSTM(3, 4, rngs=rngs, **options), merge
    )


def _stack(rngs: nnx.Rngs) -> nnx.Module:
    return jm.nn.Sequential(
        jm.nn.Embed(7, 3, mask_zero=False, rngs=rngs),
        jm.nn.Bidirectional(jm.nn.LSTM(3, 2, rngs=rngs), jm.nn.LSTM(3, 2, rngs=rngs)),
        nnx.LayerNorm(4, rngs=rngs),
        jm.nn.Upsample(2),
        nnx.Linear(4, 3, rngs=rngs),
        nnx.gelu,
        jm.nn.AttentionPool(3, rngs=rngs),
        nnx.Linear(3, 2, rngs=rngs),
    )


def _causal(rngs: nnx.Rngs) -> nnx.Module:
    return jm.nn.Sequential(
        jm.nn.Embed(7, 3, mask_zero=False, rngs=rngs),
        jm.nn.LSTM(3, 4, rngs=rngs),
        nnx.LayerNorm(4, rngs=rngs),
        jm.nn.Upsample(2),
        jnp.tanh,
        jm.nn.Sequential(jm.nn.GRU(4, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)),
    )


def _stacked(rngs: nnx.Rngs) -> nnx.Module:
    layers = jm.nn.GRU(3, 4, rngs=rngs), jm.nn.RNN(nnx.LSTMCell(4, 4, rngs=rngs))
    stack = jm.nn.StackedRNN(*layers, residual=True, dropout_rate=0.5, rngs=rngs)
    stack.eval()
    return stack


def _zoneout(rngs: nnx.Rngs) -> nnx.Module:
    cell = jm.nn.ZoneoutCell(nnx.LSTMCell(3, 4, rngs=rngs), (0.5, 0.1), rngs=rngs)
    layer = jm.nn.RNN(cell)
    layer.eval()
    return layer


ENTRIES = [
    Entry(
        "nn.Embed",
        **module(lambda rngs: jm.nn.Embed(7, 3, rngs=rngs)),
        inputs=(IDS,),
        of_rows=True,
    ),
    Entry(
        "nn.Embed:mask_zero",
        **module(lambda rngs: jm.nn.Embed(7, 3, mask_zero=True, rngs=rngs)),
        inputs=(Input(features=(), kind="ids", high=7),),
        of_rows=True,
        exempt={"no_mask": "it makes a mask where there was none"},
    ),
    Entry(
        "nn.Masking",
        **module(lambda rngs: jm.nn.Masking(0.0)),
        of_rows=True,
        exempt={"no_mask": "it makes a mask where there was none"},
    ),
    Entry("nn.LSTM", **module(lambda rngs: jm.nn.LSTM(3, 4, rngs=rngs), streams=True)),
    Entry(
        "nn.LSTM:last", **module(lambda rngs: jm.nn.LSTM(3, 4, return_sequences=False, rngs=rngs))
    ),
    Entry(
        "nn.LSTM:reverse,last",
        **module(lambda rngs: jm.nn.LSTM(3, 4, return_sequences=False, reverse=True, rngs=rngs)),
    ),
    Entry("nn.GRU", **module(lambda rngs: jm.nn.GRU(3, 4, rngs=rngs), streams=True)),
    Entry("nn.SimpleRNN", **module(lambda rngs: jm.nn.SimpleRNN(3, 4, rngs=rngs), streams=True)),
    *(
        Entry(
            f"nn.RNN:{cell.__name__}",
            **module(lambda rngs, cell=cell: jm.nn.RNN(cell(3, 4, rngs=rngs)), streams=True),
        )
        for cell in (nnx.LSTMCell, nnx.GRUCell, jm.nn.LayerNormLSTMCell)
    ),
    Entry("nn.RNN:ZoneoutCell", **module(_zoneout, streams=True)),
    Entry(
        "nn.RNN:ConvLSTMCell",
        **module(lambda rngs: jm.nn.RNN(jm.nn.ConvLSTMCell(2, 2, (3,), rngs=rngs))),
        inputs=(Input(features=(3, 2)),),
    ),
    Entry("nn.StackedRNN", **module(_stacked, streams=True)),
    *(
        Entry(f"nn.Bidirectional:{merge}", **module(_bidirectional(merge)))
        for merge in ("concat", "sum", "mul", "ave")
    ),
    Entry("nn.Bidirectional:last", **module(_bidirectional("concat", return_sequences=False))),
    Entry(
        "nn.Bidirectional:foreign",
        **module(
            lambda rngs: jm.nn.Bidirectional(
                jm.nn.LSTM(3, 4, rngs=rngs),
                jm.nn.Sequential(jm.nn.LSTM(3, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)),
                "sum",
            )
        ),
    ),
    *(
        Entry(f"nn.{name}", **module(lambda rngs, name=name: getattr(jm.nn, name)()))
        for name in (
            *("GlobalMeanPool", "GlobalMaxPool", "GlobalMinPool", "GlobalSumPool"),
            *("GlobalStdPool", "GlobalVarPool", "StatisticsPool", "FirstStep", "LastStep"),
            *("Flatten", "Flip"),
        )
    ),
    Entry("nn.AttentionPool", **module(lambda rngs: jm.nn.AttentionPool(3, rngs=rngs))),
    Entry("nn.Reshape", **module(lambda rngs: jm.nn.Reshape((3, 1))), of_rows=True),
    Entry(
        "nn.Permute",
        **module(lambda rngs: jm.nn.Permute((0, 1, 3, 2))),
        inputs=(Input(features=(2, 3)),),
        exempt={"row_masks": PERMUTED_ROWS},
    ),
    Entry("nn.Upsample", **module(lambda rngs: jm.nn.Upsample(2))),
    Entry("nn.Pad", **module(lambda rngs: jm.nn.Pad((1, 2))), makes_padding=True),
    Entry("nn.Crop", **module(lambda rngs: jm.nn.Crop((1, 1))), exempt={"segments": NO_SEGMENTS}),
    Entry(
        "nn.Passthrough",
        **module(lambda rngs: jm.nn.Passthrough(nnx.LayerNorm(3, rngs=rngs))),
        of_rows=True,
    ),
    Entry(
        "nn.TimeDistributed",
        **module(lambda rngs: jm.nn.TimeDistributed(nnx.Linear(3, 2, rngs=rngs))),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry("nn.Sequential", **module(_stack), inputs=(IDS,)),
    Entry("nn.Sequential:causal", **module(_causal, streams=True), inputs=(IDS,)),
]

NOT_MASKED = {
    **dict.fromkeys(
        ("nn.ConvLSTMCell", "nn.LayerNormLSTMCell", "nn.ZoneoutCell"),
        "a cell, one step and no mask; `nn.RNN` runs it",
    ),
    "nn.SeededCarry": "a container",
    "nn.Consume": "ends the mask; tested in test_sequential.py",
    "nn.DropMask": "ends the mask; tested in test_sequential.py",
    "nn.Repeat": "makes steps of rows; tested in test_shape.py",
    "nn.register": "a table; tested in test_sequential.py",
    "nn.unit_forget_bias": "an initializer",
}
