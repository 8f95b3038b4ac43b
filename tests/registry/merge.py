"""Merging."""

from collections.abc import Callable
from typing import Any

from flax import nnx

import jaxmask as jm
from tests.registry.entry import FLOATS, Entry, Input, module

TWO_MASKS = (Input(), Input(mask=1))
MEET = {
    "row_alone": "two rows of unequal length have unequal shapes alone; tested in test_merge.py"
}


def merged(function: Callable, **options: Any) -> Callable:
    """`(x, mask), (other, mask), ... -> (y, mask)`."""
    return lambda params, xs, masks, rows: [
        function(*((x, masks[min(k, len(masks) - 1)]) for k, x in enumerate(xs)), **options)
    ]


def of_module(layer: nnx.Module) -> Callable:
    return merged(layer)


ENTRIES = [
    *(
        Entry(f"merge.{name}", merged(getattr(jm.merge, name)), FLOATS, of_rows=True)
        for name in ("subtract", "multiply", "average", "maximum", "minimum", "dot")
    ),
    Entry("merge.add", merged(jm.merge.add), (*FLOATS, Input()), of_rows=True),
    Entry(
        "merge.concatenate",
        merged(jm.merge.concatenate),
        (Input(), Input(features=(2,))),
        of_rows=True,
    ),
    # Where masks differ the pairs meet at physical steps.
    *(
        Entry(
            f"merge.{name}:{rule}",
            merged(getattr(jm.merge, name), combine=rule),
            TWO_MASKS,
            mask_class="right",
            of_rows=True,
            exempt=MEET,
        )
        for name, rule in (
            *(("add", "and"), ("multiply", "or"), ("average", "or"), ("maximum", "or")),
            *(("concatenate", "first"),),
        )
    ),
    *(
        Entry(f"nn.{name}", of_module(getattr(jm.nn, name)()), FLOATS, of_rows=True)
        for name in (
            *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
            *("Dot", "Concatenate"),
        )
    ),
    Entry(
        "nn.Residual",
        **module(lambda rngs: jm.nn.Residual(jm.nn.LSTM(3, 3, rngs=rngs)), streams=True),
    ),
]

NOT_MASKED: dict[str, str] = {}
