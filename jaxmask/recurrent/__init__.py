"""Recurrent layers over padded rows: `(x, mask, weights, carry) -> (carry, (y, mask))`."""

from jaxmask.recurrent.cells import LSTMCarry as LSTMCarry
from jaxmask.recurrent.cells import LSTMWeights as LSTMWeights
from jaxmask.recurrent.cells import lstm_cell as lstm_cell
from jaxmask.recurrent.layers import lstm as lstm
from jaxmask.recurrent.layers import zero_carry as zero_carry
from jaxmask.recurrent.masked_scan import scan as scan
