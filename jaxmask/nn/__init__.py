"""Flax NNX modules: parameters and configuration, each one call above a pure function."""

from typing import TYPE_CHECKING

from jaxmask._errors import absent
from jaxmask.nn._attention import AdditiveAttention, CrossAttention, MultiHeadAttention
from jaxmask.nn._audio import Frames, LogMelSpectrogram
from jaxmask.nn._bidirectional import Bidirectional
from jaxmask.nn._cells import ConvLSTMCell, LayerNormLSTMCell
from jaxmask.nn._conv import Conv1D, DepthwiseConv1D, SeparableConv1D
from jaxmask.nn._conv_space import Conv2D, Conv3D
from jaxmask.nn._conv_transpose import ConvTranspose1D, ConvTranspose2D
from jaxmask.nn._crf import CRF
from jaxmask.nn._embed import Embed, Masking
from jaxmask.nn._join import Consume, DropMask, Passthrough, register
from jaxmask.nn._linear_recurrence import RGLRU, MinGRU, MinLSTM
from jaxmask.nn._merge import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Residual,
    Subtract,
)
from jaxmask.nn._norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, Standardize
from jaxmask.nn._pool import (
    AttentionPool,
    FirstStep,
    GlobalMaxPool,
    GlobalMeanPool,
    GlobalMinPool,
    GlobalStdPool,
    GlobalSumPool,
    GlobalVarPool,
    LastStep,
    StatisticsPool,
)
from jaxmask.nn._position import LearnedPositions, RelativeBias, SinusoidalPositions
from jaxmask.nn._projections import ProjectedMemory
from jaxmask.nn._ragged import RaggedVmap
from jaxmask.nn._random import (
    Dropout,
    FeatureMasking,
    GaussianNoise,
    SpatialDropout,
    TimeMasking,
    TimeWarp,
)
from jaxmask.nn._recurrent import GRU, LSTM, SimpleRNN, unit_forget_bias
from jaxmask.nn._rnn import RNN
from jaxmask.nn._seeded import SeededCarry
from jaxmask.nn._sequential import Sequential, TimeDistributed
from jaxmask.nn._shape import (
    Crop,
    Downsample,
    Flatten,
    Flip,
    Pad,
    Permute,
    Repeat,
    Reshape,
    Upsample,
)
from jaxmask.nn._skip import SkipPadding
from jaxmask.nn._spectral import SpectralNorm
from jaxmask.nn._stacked import StackedRNN
from jaxmask.nn._transformer import TransformerDecoderBlock, TransformerEncoderBlock
from jaxmask.nn._window_pool import AvgPool1D, LpPool1D, MaxPool1D, MinPool1D
from jaxmask.nn._zoneout import ZoneoutCell

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RGLRU",
    "RNN",
    "Add",
    "AdditiveAttention",
    "AttentionPool",
    "Average",
    "AvgPool1D",
    "BatchNorm",
    "Bidirectional",
    "Concatenate",
    "Consume",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvLSTMCell",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "Crop",
    "CrossAttention",
    "DepthwiseConv1D",
    "Dot",
    "Downsample",
    "DropMask",
    "Dropout",
    "Embed",
    "FeatureMasking",
    "FirstStep",
    "Flatten",
    "Flip",
    "Frames",
    "GaussianNoise",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "GlobalMinPool",
    "GlobalStdPool",
    "GlobalSumPool",
    "GlobalVarPool",
    "GroupNorm",
    "InstanceNorm",
    "LastStep",
    "LayerNorm",
    "LayerNormLSTMCell",
    "LearnedPositions",
    "LogMelSpectrogram",
    "LpPool1D",
    "Masking",
    "MaxPool1D",
    "Maximum",
    "MinGRU",
    "MinLSTM",
    "MinPool1D",
    "Minimum",
    "MultiHeadAttention",
    "Multiply",
    "Pad",
    "Passthrough",
    "Permute",
    "ProjectedMemory",
    "RMSNorm",
    "RaggedVmap",
    "RelativeBias",
    "Repeat",
    "Reshape",
    "Residual",
    "SeededCarry",
    "SeparableConv1D",
    "Sequential",
    "SimpleRNN",
    "SinusoidalPositions",
    "SkipPadding",
    "SpatialDropout",
    "SpectralNorm",
    "StackedRNN",
    "Standardize",
    "StatisticsPool",
    "Subtract",
    "TimeDistributed",
    "TimeMasking",
    "TimeWarp",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "Upsample",
    "ZoneoutCell",
    "register",
    "unit_forget_bias",
]
__dir__ = __all__.copy
_ELSEWHERE = {
    "Dense": "flax.nnx.Linear",
    "LSTMCell": "jaxmask.nn.RNN(flax.nnx.LSTMCell(...))",
    "Linear": "flax.nnx.Linear",
}
if not TYPE_CHECKING:  # a type checker would take it for any name
    __getattr__ = absent(__name__, __all__, _ELSEWHERE)
