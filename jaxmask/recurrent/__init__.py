"""Recurrent layers over padded rows: `(x, mask, weights, carry) -> (carry, (y, mask))`."""

from jaxmask.recurrent.cells import GRUWeights as GRUWeights
from jaxmask.recurrent.cells import LSTMCarry as LSTMCarry
from jaxmask.recurrent.cells import LSTMWeights as LSTMWeights
from jaxmask.recurrent.cells import SimpleWeights as SimpleWeights
from jaxmask.recurrent.cells import gru_cell as gru_cell
from jaxmask.recurrent.cells import lstm_cell as lstm_cell
from jaxmask.recurrent.cells import simple_cell as simple_cell
from jaxmask.recurrent.layers import gru as gru
from jaxmask.recurrent.layers import lstm as lstm
from jaxmask.recurrent.layers import simple as simple
from jaxmask.recurrent.layers import zero_carry as zero_carry
from jaxmask.recurrent.linear_recurrence import linear as linear
from jaxmask.recurrent.masked_scan import scan as scan
from jaxmask.recurrent.methods import Choice as Choice
from jaxmask.recurrent.methods import explain as explain
