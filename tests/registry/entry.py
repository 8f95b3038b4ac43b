"""Every public masked function, once, in the one form that the laws run over.

An entry calls its function on arrays and masks and gives back a list of pairs. A pair whose mask
is None holds whole rows, such as a carry: no step of it is padding.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from flax import nnx

Call = Callable[[Any, list, list, Any], list]


@dataclass(frozen=True)
class Input:
    """One array argument: its features, what it holds, and whose mask it shares."""

    features: tuple[int, ...] = (3,)
    kind: str = "float"  # or "ids", "positive", "probability", "sign"
    mask: int = 0
    high: int = 5


class Stream(NamedTuple):
    """A function that also runs chunk by chunk."""

    initial: Callable[[Any, int], Any]  # (params, batch) -> carry
    run: Callable[[Any, Any, Any, Any], tuple]  # (params, carry, x, mask) -> (carry, (y, mask))


@dataclass(frozen=True, eq=False)
class Entry:
    """One function, bound to its other arguments.

    `of_rows`: it takes row masks, `[batch]`, and rows of features. `mask_class`: where padding may
    lie. `holes`: what a hole means, "compacted" (the function acts on the real steps alone) or
    "physical" (a missing step keeps its place and contributes nothing); by default what goes with
    the mask class. `linear`: f(a + ib) = f(a) + i f(b) by definition. `stream`: how it runs chunk
    by chunk. `makes_padding`: it returns a mask even where it was given none. `exempt`: laws that
    it does not obey by definition, each with the reason.
    """

    name: str
    call: Call
    inputs: tuple[Input, ...] = (Input(),)
    params: Any = ()
    mask_class: str = "any"
    holes: str = ""
    of_rows: bool = False
    linear: bool = False
    stream: "Stream | None" = None
    makes_padding: bool = False
    exempt: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.holes:
            meaning = "compacted" if self.mask_class == "any" else "physical"
            object.__setattr__(self, "holes", meaning)

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


def module(make: Callable[[nnx.Rngs], nnx.Module], *, streams: bool = False) -> dict[str, Any]:
    """The call and the parameters of a module, and how it streams if it does."""
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def merged(params: Any) -> Any:
        return nnx.merge(graph, params, rest, copy=True)

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        return [merged(params)(xs[0], masks[0])]

    fields = {"call": call, "params": params}
    if streams:
        fields["stream"] = Stream(
            initial=lambda params, batch: merged(params).initial_carry(batch),
            run=lambda params, carry, x, mask: merged(params).run(carry, x, mask),
        )
    return fields


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
