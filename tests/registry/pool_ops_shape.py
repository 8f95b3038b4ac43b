"""Pooling, masked primitives and shape."""

from typing import Any

import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import NO_SEGMENTS, PERMUTED_ROWS, Entry, Input, against, simple

POOL = [
    Entry(f"pool.{name}", simple(getattr(jm.pool, name)), linear=name not in ("max", "min"))
    for name in ("mean", "max", "min", "sum", "first", "last")
] + [
    Entry("pool.attend", against(jm.pool.attend), (Input(), Input(features=()))),
    Entry("pool.var", simple(jm.pool.var, ddof=1)),
    Entry("pool.std", simple(jm.pool.std)),
    Entry("pool.statistics", simple(jm.pool.statistics)),
]

OPS = [
    Entry(
        f"ops.{name}",
        simple(getattr(jm.ops, name)),
        linear="soft" not in name and "exp" not in name,
    )
    for name in ("softmax", "log_softmax", "logsumexp", "cumsum", "flip", "shift", "compact")
] + [
    Entry("ops.fill", simple(jm.ops.fill), of_rows=True, linear=True),
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


def take_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    """The first, the last, the third and one that no row has, for every row."""
    indices = jnp.tile(jnp.array([0, -1, 2, 9]), (xs[0].shape[0], 1))
    return [jm.shape.take(xs[0], masks[0], indices)]


def split_at_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    """After one or two steps, by the name of the row."""
    return jm.shape.split_at(xs[0], masks[0], 1 + jnp.asarray(rows) % 2)


def repeat_each_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    """One to three times, by the step's own values."""
    counts = 1 + (xs[1] > 0).astype(jnp.int32) + (xs[1] > 1).astype(jnp.int32)
    return [jm.shape.repeat_each(xs[0], masks[0], counts, 24)]


SHAPE = [
    Entry(
        "shape.repeat_each",
        repeat_each_call,
        (Input(), Input(features=())),
        makes_padding=True,
    ),
    Entry("shape.flatten", linear=True, call=simple(jm.shape.flatten)),
    Entry(
        "shape.split",
        split_call,
        mask_class="contiguous",
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
    Entry("shape.upsample", linear=True, call=simple(jm.shape.upsample, 2)),
    Entry("shape.pad", linear=True, call=simple(jm.shape.pad, (1, 2)), makes_padding=True),
    Entry(
        "shape.crop",
        linear=True,
        call=simple(jm.shape.crop, (1, 1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "shape.take",
        take_call,
        makes_padding=True,
        linear=True,
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "shape.split_at",
        split_at_call,
        makes_padding=True,
        linear=True,
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "shape.concatenate",
        lambda params, xs, masks, rows: [jm.shape.concatenate(*zip(xs, masks, strict=True))],
        (Input(), Input(mask=1)),
        exempt={"segments": "it numbers the segments anew; tested in test_shape.py"},
    ),
]

ENTRIES = [*POOL, *OPS, *SHAPE]

NOT_MASKED = {
    "shape.repeat": "makes steps of rows; tested in test_shape.py",
}
