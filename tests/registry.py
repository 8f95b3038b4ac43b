"""Every public masked function, once, in the one form that the laws run over.

An entry calls its function on arrays and masks and gives back a list of pairs. A pair whose mask
is None holds whole rows, such as a carry: no step of it is padding.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxmask as jm

Call = Callable[[Any, list, list, Any], list]


@dataclass(frozen=True)
class Input:
    """One array argument: its features, what it holds, and whose mask it shares."""

    features: tuple[int, ...] = (3,)
    kind: str = "float"  # or "ids", "positive", "probability", "sign"
    mask: int = 0
    high: int = 5


@dataclass(frozen=True, eq=False)
class Entry:
    """One function, bound to its other arguments.

    `of_rows`: it takes row masks, `[batch]`, and rows of features. `classes`: the mask class.
    `exempt`: laws that it does not obey by definition, each with the reason.
    """

    name: str
    call: Call
    inputs: tuple[Input, ...] = (Input(),)
    params: Any = ()
    mask_class: str = "any"
    of_rows: bool = False
    exempt: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def simple(function: Callable, *extra: Any, **options: Any) -> Call:
    """`(x, mask) -> (y, mask)`."""
    return lambda params, xs, masks, rows: [function(xs[0], masks[0], *extra, **options)]


def against(function: Callable, **options: Any) -> Call:
    """`(x, mask, other) -> (y, mask)`, both arrays under one mask."""
    return lambda params, xs, masks, rows: [function(xs[0], masks[0], xs[1], **options)]


def recurrent(run: Callable) -> Call:
    """`(carry, (y, mask))`: the carry is whole rows."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        carry, pair = run(params, xs[0], masks[0])
        return [pair, *((leaf, None) for leaf in jax.tree.leaves(carry))]

    return call


def module(make: Callable[[nnx.Rngs], nnx.Module]) -> dict[str, Any]:
    """The call and the parameters of a module."""
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        return [nnx.merge(graph, params, rest)(xs[0], masks[0])]

    return {"call": call, "params": params}


def lstm_weights(feature: int = 3, hidden: int = 4) -> jm.recurrent.LSTMWeights:
    keys = jax.random.split(jax.random.key(3), 3)
    shapes = (feature, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    return jm.recurrent.LSTMWeights(
        *(0.5 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    )


def lstm(**options: Any) -> Call:
    return recurrent(lambda weights, x, mask: jm.recurrent.lstm(x, mask, weights, **options))


def gru_like(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # log and sqrt: what a zero in the padding would turn into nan gradients.
    carry = carry + jnp.log1p(jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)))
    return carry, (carry * x).astype(x.dtype)


SCALAR = dict.fromkeys(
    ("row_alone", "permute", "layouts", "segments", "empty_rows"), "one number for the whole batch"
)
NO_SEGMENTS = "refuses them with an error, which is tested apart"
PERMUTED_ROWS = "a row has an axis less to permute; tested in test_shape.py"
FLOATS = (Input(), Input())
LOGITS = Input(features=(5,))
LABELS = Input(features=(), kind="ids")
PROBABILITIES = Input(features=(5,), kind="probability")
SIGNS = Input(kind="sign")
IDS = Input(features=(), kind="ids", high=7)
VECTOR_LOSSES = (PROBABILITIES, PROBABILITIES)

POOL = [
    Entry(f"pool.{name}", simple(getattr(jm.pool, name)))
    for name in ("mean", "max", "min", "sum", "first", "last")
] + [Entry("pool.attend", against(jm.pool.attend), (Input(), Input(features=())))]

OPS = [
    Entry(f"ops.{name}", simple(getattr(jm.ops, name)))
    for name in ("softmax", "log_softmax", "logsumexp", "cumsum", "flip", "shift", "compact")
] + [
    Entry("ops.fill", simple(jm.ops.fill), of_rows=True),
    Entry(
        "ops.fill_real",
        simple(jm.ops.fill_real),
        of_rows=True,
        exempt={"zero_padding": "its purpose is to put something else there"},
    ),
    Entry(
        "ops.each_step",
        lambda params, xs, masks, rows: [
            jm.ops.each_step(lambda x: jnp.log(jnp.sqrt(x)), xs[0], masks[0])
        ],
        (Input(kind="positive"),),
        of_rows=True,
    ),
]


def split_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    return jm.shape.split(xs[0], masks[0], [2])


def split_features_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    return jm.shape.split(xs[0], masks[0], 2, axis=-1)


SHAPE = [
    Entry("shape.flatten", simple(jm.shape.flatten)),
    Entry(
        "shape.split",
        split_call,
        mask_class="right",
        of_rows=True,
        exempt={
            "row_alone": "a row shorter than the cut has no second piece",
            "no_time_and_no_rows": "the cut must lie within time",
            "segments": "the cut is at one padded position for all rows, and may cut a segment",
        },
    ),
    Entry("shape.split:features", split_features_call, (Input(features=(4,)),), of_rows=True),
    Entry("shape.reshape", simple(jm.shape.reshape, (2, 2)), (Input(features=(4,)),), of_rows=True),
    Entry(
        "shape.permute",
        simple(jm.shape.permute, (0, 1, 3, 2)),
        (Input(features=(2, 3)),),
        exempt={"row_masks": PERMUTED_ROWS},
    ),
    Entry("shape.upsample", simple(jm.shape.upsample, 2)),
    Entry("shape.pad", simple(jm.shape.pad, (1, 2))),
    Entry("shape.crop", simple(jm.shape.crop, (1, 1)), exempt={"segments": NO_SEGMENTS}),
    Entry(
        "shape.concatenate",
        lambda params, xs, masks, rows: [jm.shape.concatenate(*zip(xs, masks, strict=True))],
        (Input(), Input(mask=1)),
        exempt={"segments": "it numbers the segments anew; tested in test_shape.py"},
    ),
]

RECURRENT = [
    Entry("recurrent.lstm", lstm(), params=lstm_weights()),
    Entry("recurrent.lstm:reverse", lstm(reverse=True), params=lstm_weights()),
    Entry(
        "recurrent.scan",
        recurrent(
            lambda params, x, mask: jm.recurrent.scan(gru_like, x, mask, jnp.zeros((x.shape[0], 1)))
        ),
        (Input(kind="positive"),),
    ),
]

RANDOM = [
    Entry(
        "random.dropout",
        lambda params, xs, masks, rows: [
            jm.random.dropout(xs[0], masks[0], jax.random.key(0), 0.5, row_ids=rows)
        ],
        of_rows=True,
        exempt={"segments": "noise is keyed by the row, which a packed sequence changes"},
    ),
]

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


LOSSES = [
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

METRICS = [
    Entry(
        "metrics.edit_distance",
        lambda params, xs, masks, rows: [
            jm.metrics.edit_distance(xs[0], masks[0], xs[1], masks[1])
        ],
        (LABELS, Input(features=(), kind="ids", mask=1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "metrics.Mean",
        lambda params, xs, masks, rows: [
            (jm.metrics.Mean.empty().update(xs[0], masks[0]).compute(), None)
        ],
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.Perplexity",
        lambda params, xs, masks, rows: [
            (jm.metrics.Perplexity.empty().update(xs[0], masks[0]).compute(), None)
        ],
        (Input(features=()),),
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.Accuracy",
        lambda params, xs, masks, rows: [
            (jm.metrics.Accuracy.empty().update(xs[0], masks[0], xs[1]).compute(), None)
        ],
        (LOGITS, LABELS),
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.TokenErrorRate",
        lambda params, xs, masks, rows: [
            (
                jm.metrics.TokenErrorRate.empty()
                .update(xs[0], masks[0], xs[1], masks[1])
                .compute(),
                None,
            )
        ],
        (LABELS, Input(features=(), kind="ids", mask=1)),
        exempt=SCALAR,
    ),
]


def _bidirectional(merge: str, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    return lambda rngs: jm.nn.Bidirectional(
        jm.nn.LSTM(3, 4, rngs=rngs, **options), jm.nn.LSTM(3, 4, rngs=rngs, **options), merge
    )


def _stack(rngs: nnx.Rngs) -> nnx.Module:
    return jm.nn.Sequential(
        jm.nn.Embed(7, 3, mask_zero=False, rngs=rngs),
        jm.nn.Bidirectional(jm.nn.LSTM(3, 2, rngs=rngs), jm.nn.LSTM(3, 2, rngs=rngs)),
        nnx.LayerNorm(4, rngs=rngs),
        jm.nn.Upsample(2),
        nnx.Linear(4, 3, rngs=rngs),
        nnx.gelu,
        jm.nn.AttentionPool(3, rngs=rngs),
        nnx.Linear(3, 2, rngs=rngs),
    )


NN = [
    Entry(
        "nn.Embed",
        **module(lambda rngs: jm.nn.Embed(7, 3, rngs=rngs)),
        inputs=(IDS,),
        of_rows=True,
    ),
    Entry(
        "nn.Embed:mask_zero",
        **module(lambda rngs: jm.nn.Embed(7, 3, mask_zero=True, rngs=rngs)),
        inputs=(Input(features=(), kind="ids", high=7),),
        of_rows=True,
        exempt={"no_mask": "it makes a mask where there was none"},
    ),
    Entry(
        "nn.Masking",
        **module(lambda rngs: jm.nn.Masking(0.0)),
        of_rows=True,
        exempt={"no_mask": "it makes a mask where there was none"},
    ),
    Entry("nn.LSTM", **module(lambda rngs: jm.nn.LSTM(3, 4, rngs=rngs))),
    Entry(
        "nn.LSTM:last", **module(lambda rngs: jm.nn.LSTM(3, 4, return_sequences=False, rngs=rngs))
    ),
    Entry(
        "nn.LSTM:reverse,last",
        **module(lambda rngs: jm.nn.LSTM(3, 4, return_sequences=False, reverse=True, rngs=rngs)),
    ),
    *(
        Entry(
            f"nn.RNN:{cell.__name__}",
            **module(lambda rngs, cell=cell: jm.nn.RNN(cell(3, 4, rngs=rngs))),
        )
        for cell in (nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell)
    ),
    *(
        Entry(f"nn.Bidirectional:{merge}", **module(_bidirectional(merge)))
        for merge in ("concat", "sum", "mul", "ave")
    ),
    Entry("nn.Bidirectional:last", **module(_bidirectional("concat", return_sequences=False))),
    Entry(
        "nn.Bidirectional:foreign",
        **module(
            lambda rngs: jm.nn.Bidirectional(
                jm.nn.LSTM(3, 4, rngs=rngs),
                jm.nn.Sequential(jm.nn.LSTM(3, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)),
                "sum",
            )
        ),
    ),
    *(
        Entry(f"nn.{name}", **module(lambda rngs, name=name: getattr(jm.nn, name)()))
        for name in (
            *("GlobalMeanPool", "GlobalMaxPool", "GlobalMinPool", "GlobalSumPool"),
            *("FirstStep", "LastStep", "Flatten", "Flip"),
        )
    ),
    Entry("nn.AttentionPool", **module(lambda rngs: jm.nn.AttentionPool(3, rngs=rngs))),
    Entry("nn.Reshape", **module(lambda rngs: jm.nn.Reshape((3, 1))), of_rows=True),
    Entry(
        "nn.Permute",
        **module(lambda rngs: jm.nn.Permute((0, 1, 3, 2))),
        inputs=(Input(features=(2, 3)),),
        exempt={"row_masks": PERMUTED_ROWS},
    ),
    Entry("nn.Upsample", **module(lambda rngs: jm.nn.Upsample(2))),
    Entry("nn.Pad", **module(lambda rngs: jm.nn.Pad((1, 2)))),
    Entry("nn.Crop", **module(lambda rngs: jm.nn.Crop((1, 1))), exempt={"segments": NO_SEGMENTS}),
    Entry(
        "nn.Passthrough",
        **module(lambda rngs: jm.nn.Passthrough(nnx.LayerNorm(3, rngs=rngs))),
        of_rows=True,
    ),
    Entry(
        "nn.TimeDistributed",
        **module(lambda rngs: jm.nn.TimeDistributed(nnx.Linear(3, 2, rngs=rngs))),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry("nn.Sequential", **module(_stack), inputs=(IDS,)),
]

REGISTRY: list[Entry] = [*POOL, *OPS, *SHAPE, *RECURRENT, *RANDOM, *LOSSES, *METRICS, *NN]

# Public names that are no masked functions, each with its reason and the test that covers it.
NOT_MASKED_FUNCTIONS = {
    "ops.accumulator": "a dtype",
    "ops.segments_apart": "a decorator: the law of segments runs over what it decorates",
    "random.step_keys": "gives keys; tested in test_random.py",
    "recurrent.LSTMCarry": "a container",
    "recurrent.LSTMWeights": "a container",
    "recurrent.lstm_cell": "one step, no mask",
    "recurrent.zero_carry": "makes a carry",
    "losses.sum_and_count": "the two halves of losses.reduce; tested in test_losses.py",
    "nn.Consume": "ends the mask; tested in test_sequential.py",
    "nn.DropMask": "ends the mask; tested in test_sequential.py",
    "nn.Repeat": "makes steps of rows; tested in test_shape.py",
    "shape.repeat": "makes steps of rows; tested in test_shape.py",
    "nn.register": "a table; tested in test_sequential.py",
    "nn.unit_forget_bias": "an initializer",
}
