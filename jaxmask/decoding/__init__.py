"""From scores to ids: the best tags, labels or tokens of ragged rows, `(ids, mask)`.

Everything runs under `jax.jit`, with static sizes. Rows end where they end: at their own last real
step, or at their own end token. A row that has nothing to say has an empty mask.
"""

from jaxmask.decoding.autoregressive import beam as beam
from jaxmask.decoding.autoregressive import greedy as greedy
from jaxmask.decoding.chain import crf_marginals as crf_marginals
from jaxmask.decoding.chain import viterbi as viterbi
from jaxmask.decoding.ctc import ctc_beam as ctc_beam
from jaxmask.decoding.ctc import ctc_greedy as ctc_greedy

__all__ = ["beam", "crf_marginals", "ctc_beam", "ctc_greedy", "greedy", "viterbi"]
