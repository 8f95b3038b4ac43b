"""What stands in the padding inside a row function, and a mode that checks it after every rule.

**The invariant.** Let a value have the logical shape `shape`, and let an axis `a` of it be ragged:
`count(shape[a])` positions belong to this row, the others are padding. Along each ragged axis, the
padding holds a copy of position 0:

    value[..., i, ...] = value[..., 0, ...]    for i >= count(shape[a]), and all other indices

So a function of one step only ever meets values that it meets on the row alone: nothing in the
padding is nan, inf or out of range unless it is so on the row, and a zero cotangent stays zero.

- It holds after each rule for each result and axis, except for those that the rule names in
  `step.loose_out`; there anything may stand, until the value is read (`interpret._Names.read`).
- Where the axis has no position in this row, all positions are equal, and nothing reads them.
- A rule that puts copies there puts them bit for bit. Floats that were computed from them are equal
  to rounding only: XLA computes the ends of an axis by other instructions than its middle. So no
  rule may rely on an exact copy: what selects or counts (argmax, sort, sums) masks the padding.
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
from jaxmask.ragged._interpreter.context import Context, Shape, along, ragged_axes, stop_gradient
from jaxmask.ragged._interpreter.patches import nesting

# By how much a copy may differ, as a part of the greatest value; None: nothing is checked.
_tolerance: ContextVar[float | None] = ContextVar("tolerance of ragged padding", default=None)
_broken: list[str] = []  # what the running programs have reported


@contextmanager
def checked(tolerance: float = 1e-3) -> Iterator[None]:
    """Row functions that are traced inside are checked, and what a rule breaks is an error.

    Programs that are compiled inside keep the checks, and report on every run. Each program of
    equations reports the first one that breaks the invariant; what follows may be its consequence.

    Args:
      tolerance: by how much copies of floats may differ, as a part of the greatest value (0.1 where
        that is less). Whatever is no copy differs by far more.

    Example:
      >>> import jaxmask as jm
      >>> with checked():
      ...     y, _ = jm.ragged_vmap(jnp.cumsum)(*jm.pad_sequences([[1, 2], [3]]))
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


class Notes:
    """Whether the values of one program hold the invariant, collected into one callback.

    Example:
      >>> from jaxmask.ragged._interpreter import dims
      >>> context = Context(dims.Sizes({}), {})
      >>> Notes(context).report()
    """

    def __init__(self, context: Context):
        self.context = context
        # Tangents are transposed as they stand, and a comparison has no transpose. Inside another
        # row function the report would be an effect in its program, whose own rules are checked.
        unfit = context.linear or nesting()
        self.tolerance = None if unfit else _tolerance.get()
        self.texts: list[str] = []
        self.holds: list[Array] = []

    def add(
        self, text: str, values: Sequence[Any], shapes: Sequence[Shape], loose: Any = None
    ) -> None:
        """Note the values that an equation or a caller gave."""
        if self.tolerance is None:
            return
        axes = loose or [()] * len(shapes)
        for value, shape, exempt in zip(values, shapes, axes, strict=True):
            for axis in ragged_axes(shape):
                if axis not in exempt:
                    self.texts.append(f"{text}, in axis {axis} of {shape}")
                    self.holds.append(_holds(self.context, value, shape, axis, self.tolerance))

    def report(self) -> None:
        """Hand what was noted to the host when the program runs."""
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
        # Where equal values cancel, what is left of them is rounding alone.
        scale = jnp.max(jnp.abs(value), initial=0.1, where=jnp.isfinite(value))
        same |= jnp.abs(value - first) <= tolerance * scale
    real = along(context.real(shape[axis]), axis, value.shape)
    return jnp.all(same | real)
