"""Losses of pairs, `(predictions, mask, targets) -> (per_step, mask)`, and their reduction.

The per-step losses have the names of `optax.losses` and agree with them. Each acts on each step
alone, wherever the padding lies (mask class: any); `Segments` and row masks pass. Nothing is
broadcast: a target has the shape of its prediction. Losses of vectors compare along the last axis,
and take it away; the others keep it. The arithmetic is in at least float32, the result in the dtype
of the floating arguments. `ctc_loss`, `crf`, `dice_loss` and `ranking_softmax_loss` give one value
a row; `info_nce` and `ntxent` compare all real items of a batch with each other.

0 log 0 is 0. A class that a logit of -inf rules out counts as if it were not there, and costs inf
where the target is that class. At a kink the gradient is that of one side: 0 at the edge of a
margin, and of classes that tie the first has it.
"""

from jaxmask.losses.binary import hinge_loss as hinge_loss
from jaxmask.losses.binary import perceptron_loss as perceptron_loss
from jaxmask.losses.binary import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from jaxmask.losses.binary import sigmoid_focal_loss as sigmoid_focal_loss
from jaxmask.losses.binary import sparsemax_loss as sparsemax_loss
from jaxmask.losses.chain import crf as crf
from jaxmask.losses.classification import multiclass_hinge_loss as multiclass_hinge_loss
from jaxmask.losses.classification import multiclass_perceptron_loss as multiclass_perceptron_loss
from jaxmask.losses.classification import multiclass_sparsemax_loss as multiclass_sparsemax_loss
from jaxmask.losses.classification import poly_loss_cross_entropy as poly_loss_cross_entropy
from jaxmask.losses.classification import safe_softmax_cross_entropy as safe_softmax_cross_entropy
from jaxmask.losses.classification import softmax_cross_entropy as softmax_cross_entropy
from jaxmask.losses.classification import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from jaxmask.losses.contrastive import info_nce as info_nce
from jaxmask.losses.contrastive import ntxent as ntxent
from jaxmask.losses.contrastive import triplet_margin_loss as triplet_margin_loss
from jaxmask.losses.ctc import ctc_loss as ctc_loss
from jaxmask.losses.divergence import generalized_kl_divergence as generalized_kl_divergence
from jaxmask.losses.divergence import kl_divergence as kl_divergence
from jaxmask.losses.divergence import (
    kl_divergence_with_log_targets as kl_divergence_with_log_targets,
)
from jaxmask.losses.reduction import reduce as reduce
from jaxmask.losses.reduction import sum_and_count as sum_and_count
from jaxmask.losses.regression import cosine_distance as cosine_distance
from jaxmask.losses.regression import cosine_similarity as cosine_similarity
from jaxmask.losses.regression import huber_loss as huber_loss
from jaxmask.losses.regression import l2_loss as l2_loss
from jaxmask.losses.regression import log_cosh as log_cosh
from jaxmask.losses.regression import squared_error as squared_error
from jaxmask.losses.rows import dice_loss as dice_loss
from jaxmask.losses.rows import ranking_softmax_loss as ranking_softmax_loss
from jaxmask.losses.sequence import seq2seq_cross_entropy as seq2seq_cross_entropy

__all__ = [
    "cosine_distance",
    "cosine_similarity",
    "crf",
    "ctc_loss",
    "dice_loss",
    "generalized_kl_divergence",
    "hinge_loss",
    "huber_loss",
    "info_nce",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "log_cosh",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "ntxent",
    "perceptron_loss",
    "poly_loss_cross_entropy",
    "ranking_softmax_loss",
    "reduce",
    "safe_softmax_cross_entropy",
    "seq2seq_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "sparsemax_loss",
    "squared_error",
    "sum_and_count",
    "triplet_margin_loss",
]
