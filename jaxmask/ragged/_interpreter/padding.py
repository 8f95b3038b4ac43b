"""What padding holds inside a row function, and a mode that checks it after every rule.

**The invariant.** Let a value have the logical shape `shape`, and let an axis `a` of it be ragged:
`count(shape[a])` positions belong to this row, the others are padding. Along each ragged axis, the
padding holds a copy of position 0:

    value[..., i, ...] = value[..., 0, ...]    for i >= count(shape[a]), and all other indices

So a function of each step needs no mask, and only ever sees values that it sees on the row alone:
nothing in the padding is nan, inf or out of range unless the row is, and a zero cotangent stays 0.

- It holds after each rule for each result and axis, except those that the rule names in
  `step.unfilled_out`: they may hold anything until the value is read
  (`interpret._Environment.read`).
- If the axis is empty in this row, all positions are equal, and nothing reads them.
- Rules copy bit for bit. Floats computed from copies are equal up to rounding only: XLA uses other
  instructions for the ends of an axis than for its middle. So no rule may rely on an exact copy,
  and whatever selects or counts (argmax, sort, sums) masks the padding.
- Tangents and cotangents do not keep it. Those of padding are 0, or are never read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import Context, Shape, along, ragged_axes, stop_gradient

# By how much a copy may differ, relative to the largest value; None: nothing is checked.
_tolerance: ContextVar[float | None] = ContextVar("tolerance of ragged padding", default=None)
_broken: list[str] = []  # reports of the running programs


@contextmanager
def checking(tolerance: float = 1e-3) -> Iterator[None]:
    """Check the row functions that are traced inside; a rule that breaks the invariant is an error.

    Programs that are compiled inside keep the checks and report on every run. Each program reports
    the first equation that breaks the invariant, since later ones may follow from it. Copies of
    floats may differ by `tolerance`, relative to the largest value (or to 0.1 if that is less).
    """
    token = _tolerance.set(tolerance)
    try:
        yield
        jax.effects_barrier()
        if _broken:
            raise AssertionError("\n".join(dict.fromkeys(_broken)))
    finally:
        _broken.clear()
        _tolerance.reset(token)


class Check:
    """Whether the values of one program keep the invariant, collected into one callback."""

    def __init__(self, context: Context):
        self.context = context
        # Linear programs are transposed, and a comparison has no transpose. Inside another row
        # function the report would be an effect in its program, whose own rules are checked.
        skipped = context.linear or dims.nesting()
        self.tolerance = None if skipped else _tolerance.get()
        self.texts: list[str] = []
        self.holds: list[Array] = []

    def add(
        self, text: str, values: Sequence[Any], shapes: Sequence[Shape], unfilled: Any = None
    ) -> None:
        """Check the results of an equation, or the operands of the program."""
        if self.tolerance is None:
            return
        axes = unfilled or [()] * len(shapes)
        for value, shape, exempt in zip(values, shapes, axes, strict=True):
            for axis in ragged_axes(shape):
                if axis not in exempt:
                    self.texts.append(f"{text}, in axis {axis} of {shape}")
                    self.holds.append(_holds(self.context, value, shape, axis, self.tolerance))

    def report(self) -> None:
        """Report to the host when the program runs."""
        if not self.holds:
            return
        texts = list(self.texts)

        def write(holds: Any) -> None:
            _broken.extend(texts[k] for k in np.flatnonzero(~np.asarray(holds))[:1])

        jax.debug.callback(write, jnp.stack(self.holds))


def _holds(context: Context, value: Any, shape: Shape, axis: int, tolerance: float) -> Array:
    """Whether the padding along one axis holds copies of position 0."""
    if jnp.issubdtype(jnp.asarray(value).dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    value = stop_gradient(jnp.asarray(value))
    if not value.size:
        return jnp.ones((), bool)
    first = jax.lax.slice_in_dim(value, 0, 1, 1, axis)
    same = value == first
    if jnp.issubdtype(value.dtype, jnp.inexact):
        same |= (value != value) & (first != first)
        # Where equal values cancel, only their rounding errors are left.
        scale = jnp.max(jnp.abs(value), initial=0.1, where=jnp.isfinite(value))
        same |= jnp.abs(value - first) <= tolerance * scale
    real = along(context.real(shape[axis]), axis, value.shape)
    return jnp.all(same | real)
