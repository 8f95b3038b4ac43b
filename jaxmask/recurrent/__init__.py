"""Recurrent layers over padded rows: `(x, mask, weights, carry) -> (carry, (y, mask))`."""

from jaxmask.recurrent._cells import (
    ExtendedLSTMWeights,
    GRUWeights,
    LSTMCarry,
    LSTMWeights,
    SimpleWeights,
    gru_cell,
    lstm_cell,
    simple_cell,
    zero_carry,
)
from jaxmask.recurrent._choice import Choice, explain
from jaxmask.recurrent._layers import gru, lstm, simple
from jaxmask.recurrent._linear import linear
from jaxmask.recurrent._scan import scan

__all__ = [
    "Choice",
    "ExtendedLSTMWeights",
    "GRUWeights",
    "LSTMCarry",
    "LSTMWeights",
    "SimpleWeights",
    "explain",
    "gru",
    "gru_cell",
    "linear",
    "lstm",
    "lstm_cell",
    "scan",
    "simple",
    "simple_cell",
    "zero_carry",
]
__dir__ = __all__.copy
