"""Losses."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

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

_ELEMENTWISE = (
    "squared_error",
    "l2_loss",
    "huber_loss",
    "log_cosh",
    "absolute_error",
    "quantile_loss",
)
_VECTORS = ("softmax_cross_entropy", "safe_softmax_cross_entropy")
_BINARY = ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss")
_DIVERGENCES = ("kl_divergence", "kl_divergence_with_log_targets")


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


_MIXES_ROWS = dict.fromkeys(
    ("row_alone", "nan_stays_in_its_row"),
    "every real item of the batch is a negative of the others, by definition",
)
_MIXES_SEGMENTS = {"segments": "sequences are negatives of each other too, by definition"}
_CHAIN = {
    "transitions": np.cos(np.arange(25.0, dtype=np.float32)).reshape(5, 5),
    "start": np.sin(np.arange(5.0, dtype=np.float32)),
    "end": np.cos(np.arange(5.0, dtype=np.float32)),
}


def _root_of_error(predictions: Any, targets: Any, weights: Any, *, scale: Any) -> Any:
    """A loss that knows nothing of masks; its gradient is nan where the two are equal."""
    return weights * scale.astype(weights.dtype) * jnp.linalg.norm(predictions - targets, axis=-1)


# Frames, states of the prediction network, and labels. The state before any label is 0.
_TRANSDUCER = (LOGITS, Input(features=(5,), mask=1), Input(features=(), kind="ids", mask=1))


def _rnnt(params: Any, xs: list, masks: list, rows: Any) -> list:
    # Filled, since the sum of states that are nan is not this function's.
    (frames, _), (states, _) = (jm.ops.fill(x, m) for x, m in zip(xs[:2], masks, strict=True))
    start = jnp.zeros((len(states), 1, *states.shape[2:]), states.dtype)
    states, labels = jnp.concatenate([start, states], axis=1), xs[2]
    logits = frames[:, :, None] + states[:, None]
    return [jm.losses.rnnt_loss(logits, masks[0], labels, masks[1])]


def _reduce(by: str) -> Call:
    return lambda params, xs, masks, rows: [(jm.losses.reduce(xs[0], masks[0], xs[1], by=by), None)]


ENTRIES = [
    *_losses(_ELEMENTWISE, FLOATS),
    *_losses(("poisson_nll_loss",), (Input(), Input(kind="positive"))),
    *_losses(("cosine_similarity", "cosine_distance"), FLOATS),
    *_losses(_VECTORS, (LOGITS, PROBABILITIES)),
    *_losses(("softmax_cross_entropy_with_integer_labels",), (LOGITS, LABELS)),
    *_losses(("hinge_loss",), (Input(), SIGNS)),
    *_losses(_BINARY, (Input(), Input(kind="probability"))),
    Entry(
        "losses.lift",
        against(jm.losses.lift(optax.losses.poly_loss_cross_entropy), epsilon=1.5),
        (LOGITS, PROBABILITIES),
        of_rows=True,
    ),
    Entry(
        "losses.lift:weighted",
        lambda params, xs, masks, rows: [
            jm.losses.lift(_root_of_error)(xs[0], masks[0], xs[1], xs[2], scale=params)
        ],
        (Input(), Input(), Input(features=(), kind="positive")),
        params=np.float32(1.5),
        of_rows=True,
    ),
    *_losses(_DIVERGENCES, VECTOR_LOSSES),
    Entry(
        "losses.ctc_loss",
        lambda params, xs, masks, rows: [jm.losses.ctc_loss(xs[0], masks[0], xs[1], masks[1])],
        (LOGITS, Input(features=(), kind="ids", mask=1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry("losses.rnnt_loss", _rnnt, _TRANSDUCER, exempt={"segments": NO_SEGMENTS}),
    Entry(
        "losses.soft_dtw",
        lambda params, xs, masks, rows: [
            jm.losses.soft_dtw(xs[0], masks[0], xs[1], masks[1], gamma=0.5)
        ],
        (Input(), Input(mask=1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "losses.seq2seq_cross_entropy",
        against(jm.losses.seq2seq_cross_entropy, label_smoothing=0.1, z_loss=0.01),
        (LOGITS, LABELS),
        of_rows=True,
    ),
    Entry(
        "losses.triplet_margin_loss",
        lambda params, xs, masks, rows: [
            jm.losses.triplet_margin_loss(xs[0], masks[0], xs[1], xs[2])
        ],
        (Input(), Input(), Input()),
        of_rows=True,
    ),
    Entry(
        "losses.ranking_softmax_loss",
        lambda params, xs, masks, rows: [
            jm.losses.ranking_softmax_loss(xs[0], masks[0], xs[1], weights=xs[2])
        ],
        (Input(features=()), Input(features=(), kind="positive"), Input(features=())),
    ),
    Entry(
        "losses.dice_loss",
        against(jm.losses.dice_loss, ignore_background=True, alpha=0.3),
        (Input(features=(2, 3)), Input(features=(2, 3), kind="probability")),
    ),
    Entry(
        "losses.tversky_loss",
        against(jm.losses.tversky_loss, class_weights=np.array([1.0, 2.0, 0.5], np.float32)),
        (Input(features=(2, 3)), Input(features=(2, 3), kind="probability")),
    ),
    Entry(
        "losses.info_nce",
        against(jm.losses.info_nce, temperature=0.5),
        FLOATS,
        of_rows=True,
        exempt=_MIXES_ROWS | _MIXES_SEGMENTS,
    ),
    Entry(
        "losses.ntxent",
        against(jm.losses.ntxent, temperature=0.5),
        (Input(), Input(features=(), kind="ids", high=3)),
        of_rows=True,
        exempt=_MIXES_ROWS
        | _MIXES_SEGMENTS
        | {"no_mask": "an item without a positive has no loss, so it makes a mask"},
    ),
    Entry(
        "losses.circle_loss",
        against(jm.losses.circle_loss, gamma=2.0),
        (Input(), Input(features=(), kind="ids", high=3)),
        of_rows=True,
        exempt=_MIXES_ROWS
        | _MIXES_SEGMENTS
        | {
            "no_mask": "an item without a positive has no loss, so it makes a mask",
            "gradients_are_slopes": "the weights of pairs pass no gradient, by definition",
        },
    ),
    Entry(
        "losses.crf",
        lambda params, xs, masks, rows: [jm.losses.crf(xs[0], masks[0], xs[1], **params)],
        (LOGITS, LABELS),
        params=_CHAIN,
    ),
    Entry(
        "losses.crf_log_partition",
        lambda params, xs, masks, rows: [jm.losses.crf_log_partition(xs[0], masks[0], **params)],
        (LOGITS,),
        params=_CHAIN,
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
    "losses.accumulate": "what it is given holds the masks; tested in test_accumulate.py",
    "losses.sum_and_count": "the two halves of losses.reduce; tested in test_losses.py",
}
