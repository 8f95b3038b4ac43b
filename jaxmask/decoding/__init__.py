"""From scores to ids: the best tags, labels or tokens of ragged rows, `(ids, mask)`.

Everything runs under `jax.jit`, with static sizes. Each row ends at its own last real step, or at
its own end token. A row without a token has an empty mask. With `n_best`, searches return several
hypotheses and their scores.
"""

from jaxmask.decoding._beam import beam
from jaxmask.decoding._crf import crf_marginals, viterbi
from jaxmask.decoding._ctc import ctc_beam, ctc_greedy
from jaxmask.decoding._ctc_align import ctc_align
from jaxmask.decoding._greedy import greedy, sample, score
from jaxmask.decoding._hmm import ForwardBackward, forward_backward

__all__ = [
    "ForwardBackward",
    "beam",
    "crf_marginals",
    "ctc_align",
    "ctc_beam",
    "ctc_greedy",
    "forward_backward",
    "greedy",
    "sample",
    "score",
    "viterbi",
]
__dir__ = __all__.copy
