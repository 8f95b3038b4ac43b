"""Losses."""

import jaxmask as jm
from tests.registry.entry import (
    FLOATS,
    LABELS,
    LOGITS,
    NO_SEGMENTS,
    PROBABILITIES,
    SCALAR,
    SIGNS,
    VECTOR_LOSSES,
    Call,
    Entry,
    Input,
    against,
)

_ELEMENTWISE = ("squared_error", "l2_loss", "huber_loss", "log_cosh")
_VECTORS = ("softmax_cross_entropy", "safe_softmax_cross_entropy", "poly_loss_cross_entropy")
_IDS = (
    "softmax_cross_entropy_with_integer_labels",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
)
_SIGNED = ("hinge_loss", "perceptron_loss")
_BINARY = ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss")
_DIVERGENCES = ("kl_divergence", "kl_divergence_with_log_targets", "generalized_kl_divergence")


# Only the debug check of the op-by-op run; the compiled one runs over it all the same.
_OPTAX_INFINITY = {"eager_is_jit": "its logsumexp in optax holds an infinity on the way"}


def _losses(names: tuple[str, ...], inputs: tuple[Input, ...]) -> list[Entry]:
    return [
        Entry(
            f"losses.{name}",
            against(getattr(jm.losses, name)),
            inputs,
            of_rows=True,
            exempt=_OPTAX_INFINITY if name == "sigmoid_focal_loss" else {},
        )
        for name in names
    ]


def _reduce(by: str) -> Call:
    return lambda params, xs, masks, rows: [(jm.losses.reduce(xs[0], masks[0], xs[1], by=by), None)]


ENTRIES = [
    *_losses(_ELEMENTWISE, FLOATS),
    *_losses(("cosine_similarity", "cosine_distance"), FLOATS),
    *_losses(_VECTORS, (LOGITS, PROBABILITIES)),
    *_losses(_IDS, (LOGITS, LABELS)),
    *_losses(_SIGNED, (Input(), SIGNS)),
    *_losses(_BINARY, (Input(), Input(kind="probability"))),
    *_losses(("sparsemax_loss",), (Input(features=()), LABELS)),
    *_losses(_DIVERGENCES, VECTOR_LOSSES),
    Entry(
        "losses.ctc_loss",
        lambda params, xs, masks, rows: [jm.losses.ctc_loss(xs[0], masks[0], xs[1], masks[1])],
        (LOGITS, Input(features=(), kind="ids", mask=1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    *(
        Entry(
            f"losses.reduce:{by}",
            _reduce(by),
            (Input(), Input(features=(), kind="positive")),
            of_rows=True,
            exempt=SCALAR,
        )
        for by in ("step", "row", "sum")
    ),
]

NOT_MASKED = {
    "losses.sum_and_count": "the two halves of losses.reduce; tested in test_losses.py",
}
