"""`ragged_vmap` turns a function of one unpadded row into a function of a padded batch."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit
from jaxmask._report import Report
from jaxmask._types import Array, PyTree
from jaxmask.ragged._arguments import WHERE, Arguments, read
from jaxmask.ragged._checking import compare
from jaxmask.ragged._interpreter.context import Context, Shape, ragged_axes, select
from jaxmask.ragged._interpreter.interpret import run_known
from jaxmask.ragged._preparing import prepare
from jaxmask.ragged._tracing import RowProgram, trace


class RaggedVmap:
    """What `ragged_vmap` returns: call it with `(x, mask, ...)`.

    Attributes:
      adapters: for each type of function that holds state, what `ragged_vmap` calls instead, with
        the same arguments. `jaxmask.nn` registers `nnx.Module` when it is imported.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> g = RaggedVmap(lambda row: row[-1])
      >>> y, row_mask = g(*jm.pad_sequences([[1, 2, 3], [4]]))
      >>> y.tolist(), row_mask.tolist()
      ([3, 4], [True, True])
    """

    adapters: ClassVar[dict[type, Callable[..., Any]]] = {}

    def __init__(
        self,
        f: Callable[..., PyTree],
        in_axes: Any = 0,
        *,
        min_length: int = 1,
        multiple_of: int = 1,
    ):
        if not callable(f):
            raise TypeError(f"{WHERE}: `f` must be callable, got {_check.kind_of(f)}.")
        self.f = f
        self.in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        self.min_length = _check.count(min_length, WHERE, "min_length", least=1)
        self.multiple_of = _check.count(multiple_of, WHERE, "multiple_of", least=1)

    @refusing_pairs
    def __call__(self, x: PyTree, mask: Any, *arguments: Any) -> tuple[PyTree, PyTree]:
        """Run the function on every row and return `(y, mask)`."""
        call = read((x, mask, *arguments), self.in_axes)
        if any(map(over_explicit, call.arrays)):
            raise ValueError(
                f"{WHERE}: rows are spread over explicit axes of a mesh. Call it inside "
                "`jax.shard_map`, or make the axes `jax.sharding.AxisType.Auto`."
            )
        y, real = self.run(call, call.arrays)
        if not call.given and self.multiple_of == 1 and _long_enough(call, self.min_length):
            return y, jax.tree.map(lambda _: None, y)
        return y, real

    def run(self, call: Arguments, arrays: Sequence[Array]) -> tuple[PyTree, PyTree]:
        """Run on arguments that were read already, with `arrays` in place of theirs."""
        program = trace(self.f, call, self.min_length, self.multiple_of)
        rows, lengths, valid = prepare(call, arrays, program, self.min_length, self.multiple_of)
        values, real = jax.vmap(lambda *row: _row(program, *row))(lengths, valid, rows)
        return jax.tree.unflatten(program.tree, values), jax.tree.unflatten(program.tree, real)

    def check(self, x: PyTree, mask: Any, *arguments: Any, tolerance: float = 1e-4) -> Report[str]:
        """Compare with the function on each row alone, in values and gradients.

        This finds what tracing cannot: a function that depends on its length in a way that JAX does
        not see, such as `str(x.shape[0])`. One row of each length in the batch is compared, and its
        longest row cut to the three shortest lengths that the function takes.

        Args:
          x: as in a call, but with known values: not under `jit`.
          mask: as in a call.
          *arguments: as in a call.
          tolerance: relative to the largest absolute value of each array.

        Returns:
          A `Report`; it does not raise.
        """
        call = read((x, mask, *arguments), self.in_axes)
        return compare(self, call, tolerance)


def _long_enough(call: Arguments, min_length: int) -> bool:
    return all(mask.shape[1] >= min_length for mask in call.masks.values())


def _row(
    program: RowProgram, lengths: dict[str, Array], valid: Array, arrays: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """Run one row, and clear the padding of its results."""
    counts = {program.symbols[name]: lengths[name] for name in program.symbols}
    context = Context(program.sizes, counts, valid=valid)
    outputs, _, _ = run_known(context, program.closed, arrays)
    pairs = [_cleared(context, v, s, valid) for v, s in zip(outputs, program.outputs, strict=True)]
    return [value for value, _ in pairs], [real for _, real in pairs]


def _cleared(context: Context, value: Any, shape: Shape, valid: Array) -> tuple[Array, Array]:
    """A result with 0 outside the row, and its mask."""
    value = jnp.asarray(value)
    ragged = ragged_axes(shape)
    inside, covered = valid, ragged[-1] + 1 if ragged else 0
    mask = context.mask(shape[:covered])
    if mask is not None:
        inside = mask & valid
    wide = jax.lax.broadcast_in_dim(inside, value.shape, range(covered))
    return select(wide, value, 0), inside


def ragged_vmap(
    f: Callable[..., PyTree], in_axes: Any = 0, *, min_length: int = 1, multiple_of: int = 1
) -> Any:
    """Turn a function of one unpadded row into a function of a padded batch.

        y[b] = f(x[b, : n[b]]), followed by 0

    Values and gradients are those of the row alone, whatever the padding holds: `f` is traced once
    at a symbolic length, and its program is run, primitive by primitive, by rules that know which
    part of each array belongs to the row. A primitive without a rule is an error that names it.

    Mask class: any; a batch that is not padded on the right is compacted first.

    Args:
      f: a function of one row `x [n, feature...]` and further arguments. `x` may be a pytree of
        arrays of the same length.
      in_axes: as in `jax.vmap`, an entry for each argument of `f`, or for the leaves of one. An
        axis: mapped over the batch, and ragged if the argument is a pair `(z, z_mask)` with a mask
        `[batch, time]`. None: shared by all rows, such as parameters.
      min_length: rows with fewer steps give 0 and False, with zero gradient, and `f` is not run on
        them: `min_length=2` for `x[1:].mean(0)`.
      multiple_of: `f` takes lengths that are multiples of this, for instance to reshape them; other
        rows give 0 and False.

    Returns:
      A function of `(x, mask, ...)` that returns `(y, mask)`. On each ragged axis, `y` holds its
      real values first and 0 after them; the size of the axis is the largest that lengths up to
      `time` give. The mask has the shape of `y` up to its last ragged axis; if `y` has none, it is
      a row mask `[batch]`. A pytree of results has a pytree of masks. Arguments with the same mask
      object share one length; other lengths are independent. `.check(x, mask, ...)` compares with
      each row alone.

    Raises:
      RaggedTraceError: if `f` needs a known length in Python.
      UnsupportedPrimitiveError: if a primitive without a rule is used on a ragged axis.
      MaskError, TypeError, ValueError: if a mask does not belong to its array.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> def attention(row):
      ...     return jax.nn.softmax(row @ row.T) @ row
      >>> x, mask = jm.pad_sequences([[[1.0], [2.0]], [[3.0]]])
      >>> y, y_mask = jm.ragged_vmap(attention)(x, mask)
      >>> y.shape, y_mask.tolist(), y[1].tolist()
      ((2, 2, 1), [[True, True], [True, False]], [[3.0], [0.0]])
    """
    options = {"min_length": min_length, "multiple_of": multiple_of}
    if "flax.nnx" in sys.modules:  # else `f` is no module of Flax
        importlib.import_module("jaxmask.nn")  # registers its adapter; it lies above this module
    for kind, make in RaggedVmap.adapters.items():
        if isinstance(f, kind):
            return make(f, in_axes, **options)
    return RaggedVmap(f, in_axes, **options)
