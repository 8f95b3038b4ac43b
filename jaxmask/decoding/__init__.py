"""From scores to ids: the best tags, labels or tokens of ragged rows, `(ids, mask)`.

Everything runs under `jax.jit`, with static sizes. Rows end where they end: at their own last real
step, or at their own end token. A row that has nothing to say has an empty mask.
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


def __dir__() -> list[str]:
    return __all__
