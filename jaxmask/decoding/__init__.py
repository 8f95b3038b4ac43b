"""From scores to ids: the best tags, labels or tokens of ragged rows, `(ids, mask)`.

Everything runs under `jax.jit`, with static sizes. Each row ends at its own last real step, or at
its own end token. A row without a token has an empty mask.
"""

from jaxmask.decoding._autoregressive import beam, greedy
from jaxmask.decoding._crf import crf_marginals, viterbi
from jaxmask.decoding._ctc import ctc_beam, ctc_greedy

__all__ = [
    "beam",
    "crf_marginals",
    "ctc_beam",
    "ctc_greedy",
    "greedy",
    "viterbi",
]
__dir__ = __all__.copy
