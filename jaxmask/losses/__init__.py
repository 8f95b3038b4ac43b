"""Losses of pairs, `(predictions, mask, targets) -> (per_step, mask)`, and their reduction.

The per-step losses have the names of `optax.losses` and agree with them; `lift` makes one of any
other loss. The first argument is called what it holds: `predictions`, `logits` or
`log_predictions`. Each step is on its own, wherever the padding lies (mask class: any); `Segments`
and row masks pass. Nothing is broadcast: a target has the shape of its prediction. Losses of
vectors compare along the last axis and reduce it; the others keep it. The arithmetic is in at least
float32, the result in the dtype of the floating arguments. `ctc_loss`, `rnnt_loss`, `crf`,
`soft_dtw`, `dice_loss`, `tversky_loss` and `ranking_softmax_loss` give one value for each row;
`info_nce`, `ntxent` and `circle_loss` compare all real items of a batch with each other.

0 log 0 is 0. A class that a logit of -inf rules out counts as absent, and costs inf where it is the
target. At the edge of a margin the gradient is 0.
"""

from typing import TYPE_CHECKING

from jaxmask._errors import absent
from jaxmask.losses._accumulate import accumulate
from jaxmask.losses._binary import hinge_loss, sigmoid_binary_cross_entropy, sigmoid_focal_loss
from jaxmask.losses._classification import (
    safe_softmax_cross_entropy,
    seq2seq_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from jaxmask.losses._contrastive import circle_loss, info_nce, ntxent, triplet_margin_loss
from jaxmask.losses._crf import crf, crf_log_partition
from jaxmask.losses._ctc import ctc_loss
from jaxmask.losses._divergence import kl_divergence, kl_divergence_with_log_targets
from jaxmask.losses._lift import lift
from jaxmask.losses._reduce import reduce, sum_and_count
from jaxmask.losses._regression import (
    absolute_error,
    cosine_distance,
    cosine_similarity,
    huber_loss,
    l2_loss,
    log_cosh,
    poisson_nll_loss,
    quantile_loss,
    squared_error,
)
from jaxmask.losses._rnnt import rnnt_loss
from jaxmask.losses._rows import dice_loss, ranking_softmax_loss, tversky_loss
from jaxmask.losses._soft_dtw import soft_dtw

__all__ = [
    "absolute_error",
    "accumulate",
    "circle_loss",
    "cosine_distance",
    "cosine_similarity",
    "crf",
    "crf_log_partition",
    "ctc_loss",
    "dice_loss",
    "hinge_loss",
    "huber_loss",
    "info_nce",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "lift",
    "log_cosh",
    "ntxent",
    "poisson_nll_loss",
    "quantile_loss",
    "ranking_softmax_loss",
    "reduce",
    "rnnt_loss",
    "safe_softmax_cross_entropy",
    "seq2seq_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "soft_dtw",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "sum_and_count",
    "triplet_margin_loss",
    "tversky_loss",
]
__dir__ = __all__.copy
_ELSEWHERE = {
    "binary_cross_entropy": "sigmoid_binary_cross_entropy",
    "cross_entropy": "softmax_cross_entropy_with_integer_labels",
    "l1_loss": "absolute_error",
    "mean_squared_error": "squared_error",
    "mse_loss": "squared_error",
    "smooth_l1_loss": "huber_loss",
}
if not TYPE_CHECKING:  # a type checker would take it for any name
    __getattr__ = absent(__name__, __all__, _ELSEWHERE)
