"""How a layer runs chunk by chunk, and which layers cannot.

A layer streams if it has `initial_carry(batch)` and `run(carry, x, mask) -> (carry, (y, mask))`. A
layer that acts on each step alone (`per_step = True`, or one of Flax's) needs no carry: its carry
is `()`. Any other layer looks beyond its chunk and is refused.
"""

from typing import Any, NoReturn

from jaxmask import _check
from jaxmask._types import Mask, Pair, PyTree
from jaxmask.nn import _join as join
from jaxmask.nn._foreign import FLAX_LAYERS
from jaxmask.nn._locate import located
from jaxmask.nn._options import Given, reseeded, taken


def initial_carry(layer: Any, batch: int, *, at: str, given: Given = join.NOTHING) -> PyTree:
    """The carry that a layer starts from; `()` for a layer that acts on each step alone."""
    layer = _streaming(layer, at)
    if join.acts_on_each_step(layer):
        return ()
    return layer.initial_carry(batch, **taken(layer.initial_carry, given))


def run(
    layer: Any, carry: PyTree, x: Any, mask: Mask, *, at: str, given: Given = join.NOTHING
) -> tuple[PyTree, Pair]:
    """Run a layer on the next chunk and return `(carry, (y, mask))`."""
    streaming = _streaming(layer, at)
    if join.acts_on_each_step(streaming):
        return (), _each_step(layer, streaming, x, mask, at, given)
    with located(at, layer, x):
        options = join.call_options(streaming, streaming.run, given, at)
        layer = streaming if "rngs" in options else reseeded(streaming, given, at)
        carry, pair = layer.run(carry, x, mask, **options)
    return carry, join.checked(pair, streaming, at)


def _each_step(layer: Any, streaming: Any, x: Any, mask: Mask, at: str, given: Given) -> Pair:
    rule = join.lookup(FLAX_LAYERS, streaming)
    if rule is None:
        return join.call(layer, x, mask, at=at, given=given)
    with located(at, layer, x):
        pair = rule(streaming, _check.array(x, "x", at), mask, given)
    if pair is None:
        _refuse(
            streaming, at, "would mix the steps of a chunk, or drop their axis, as it is set up"
        )
    return join.checked(pair, streaming, at)


def _streaming(layer: Any, at: str) -> Any:
    """The layer, adapted by the user's table; refused if it cannot run chunk by chunk."""
    layer = join.adapted(layer)
    reason = None
    if getattr(layer, "reverse", False) is True:
        reason = "runs in reverse, so its first output needs the last step"
    elif getattr(layer, "return_sequences", True) is False:
        reason = "gives one result per row (`return_sequences=False`), not one per step"
    elif not join.acts_on_each_step(layer) and not (
        hasattr(layer, "run") and hasattr(layer, "initial_carry")
    ):
        reason = (
            "is not known to be causal: it has no `run` and `initial_carry`. If it acts on each "
            "step alone, wrap it in `jm.nn.Passthrough` or give its class `per_step = True`"
        )
    if reason is None:
        return layer
    _refuse(layer, at, reason)


def _refuse(layer: Any, at: str, reason: str) -> NoReturn:
    raise _check.MaskError(
        f"{at}, {_check.name_of(layer)}, cannot run chunk by chunk with a carry and a mask: it "
        f"{reason}."
    )
