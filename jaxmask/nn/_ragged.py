"""A plain module of one unpadded row, as a masked layer."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _keys, ragged
from jaxmask._types import Mask, PyTree
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._options import NoiseCall, draw, named, opened
from jaxmask.nn._state import advance, refuse_changes, variables

WHERE = "RaggedVmap"


class RaggedVmap(MaskedModule):
    """Run a plain Flax module of one unpadded row on a padded batch.

        y[b] = module(x[b, : n[b]]), followed by 0

    The module is written, by you or by others, for one sequence `[n, feature]`, without a
    mask. `jm.ragged_vmap(module)` is the same. Its random streams give each row different noise,
    and advance as in one call. Statistics and caches that it would change row by row have no
    single value for a batch: that is an error which names them. A model that was written for
    batches, `[batch, n, feature]`, needs `batched=True`: without it, it takes the steps for rows,
    and not every such model fails then. What can be seen of that is a warning: one number for each
    step, of steps with features, as `x.mean(axis=1)` gives it. `batched=False` says that such a
    module is of one row, and is silent.

    Mask class: any; a batch that is not padded on the right is compacted first.

    Args:
      module: a Flax NNX module or a function, called on rows.
      in_axes: as in `jm.ragged_vmap`, for each argument of the module.
      min_length, multiple_of: as in `jm.ragged_vmap`.
      batched: True if the module was written for batches: it gets a batch of one row, in every
        argument that `in_axes` maps, and returns one. False if it was written for a row; None, the
        default, is that too, with the warning above.

    Raises:
      TypeError: if `module` is not callable, or `batched` is not a bool or None.
      ValueError: on call, if the module changes statistics or a cache; if `batched=True` and a
        result is not a batch of one.
      RaggedTraceError, UnsupportedPrimitiveError: on call, as in `jm.ragged_vmap`.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = jm.nn.Sequential(
      ...     jm.nn.Embed(100, 8, rngs=rngs),
      ...     jm.nn.RaggedVmap(nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)),
      ...     jm.nn.GlobalMeanPool(),
      ... )
      >>> y, row_mask = model(*jm.pad_sequences([[7, 8, 9], [5]]))
      >>> y.shape, row_mask.tolist()
      ((2, 8), [True, True])
    """

    def __init__(
        self,
        module: Any,
        in_axes: Any = 0,
        *,
        min_length: int = 1,
        multiple_of: int = 1,
        batched: bool | None = None,
    ):
        if not callable(module):
            raise TypeError(f"{WHERE}: `module` must be callable, got {_check.kind_of(module)}.")
        self.module = module
        self.in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        self.min_length = min_length
        self.multiple_of = multiple_of
        self.batched = None if batched is None else _check.flag(batched, WHERE, "batched")

    def __call__(
        self, x: PyTree, mask: Mask = None, *arguments: Any, **options: Unpack[NoiseCall]
    ) -> tuple[PyTree, PyTree]:
        """Run the module on every row and return `(y, mask)`; options as in `Sequential`."""
        layer, given = opened(self, options, resets=False)
        options_of_row = named(layer.module, given)
        # Options of a row: `row_ids` make its keys, and `rngs` have been drawn from already.
        switches = {k: v for k, v in options_of_row.items() if k not in ("rngs", "row_ids")}
        node = (layer.module,)  # a function alone has no parts to split
        graph, *states = nnx.split(node, nnx.RngKey, nnx.RngCount, ...)
        keys, counts, rest = states
        rngs = given.get("rngs")
        if rngs is not None:
            keys = jax.tree.map(lambda _: draw(None, rngs, WHERE), keys)
        own = draw(None, rngs, WHERE) if "rngs" in options_of_row else None
        first = jax.tree.leaves(x)[0]
        row_keys = jax.tree.map(
            lambda key: _keys.row_keys(key, first, WHERE, given.get("row_ids")), [keys, own]
        )
        axes = self._axes(1 + len(arguments))
        batched = axes if self.batched else None
        function = _Function(graph, counts, rest, switches, batched)
        g = ragged.RaggedVmap(
            function, (*axes, 0), min_length=self.min_length, multiple_of=self.multiple_of
        )
        (y, after), (real, _) = g(x, mask, *arguments, row_keys)
        if self.batched is None:
            _warn_of_numbers(x, y, real)
        if rngs is None and jax.tree.leaves(counts):
            advance((self.module,), counts, after, WHERE)
        return y, real

    def check(
        self, x: PyTree, mask: Mask, *arguments: Any, tolerance: float = 1e-4
    ) -> ragged.Report[str]:
        """Compare with the module on each row alone, as `jm.ragged_vmap(f).check` does.

        Random streams are those of a copy, and give all rows the same noise.
        """
        graph, state = nnx.split(self.module)
        batched = self._axes(1 + len(arguments)) if self.batched else None

        def function(*row: Any) -> Any:
            return _called(nnx.merge(graph, state, copy=True), row, {}, batched)

        g = self._transformed(function, self.in_axes)
        return g.check(x, mask, *arguments, tolerance=tolerance)

    def _transformed(self, function: Callable[..., Any], axes: Any) -> ragged.RaggedVmap:
        sizes = {"min_length": self.min_length, "multiple_of": self.multiple_of}
        return ragged.RaggedVmap(function, axes, **sizes)

    def _axes(self, arguments: int) -> tuple[Any, ...]:
        return self.in_axes if isinstance(self.in_axes, tuple) else (self.in_axes,) * arguments


class _Function:
    """The module as a pure function of a row, that also returns the counts of its streams."""

    def __init__(
        self, graph: Any, counts: PyTree, rest: PyTree, switches: dict[str, Any], batched: Any
    ):
        self.graph, self.counts, self.rest, self.switches = graph, counts, rest, switches
        self.batched = batched

    def __call__(self, *arguments: Any) -> tuple[PyTree, PyTree]:
        *row, [keys, own] = arguments
        options = self.switches if own is None else {**self.switches, "rngs": nnx.Rngs(own)}
        node = nnx.merge(self.graph, keys, self.counts, self.rest, copy=True)
        before = variables(node)
        y = _called(node[0], row, options, self.batched)
        refuse_changes(before, node, WHERE, "row")
        return y, jax.tree.map(jnp.asarray, nnx.state(node, nnx.RngCount))


def _called(module: Any, row: Sequence[Any], options: dict[str, Any], batched: Any) -> PyTree:
    """The module of a row; `batched` has the `in_axes` of its arguments if it is of a batch."""
    if batched is None:
        with _explained():
            return module(*row, **options)
    return jax.tree.map(_the_row, module(*map(_batch_of_one, batched, row), **options))


def _batch_of_one(axes: Any, argument: PyTree) -> PyTree:
    def expanded(axis: int | None, part: PyTree) -> PyTree:
        return part if axis is None else jax.tree.map(lambda a: a[None], part)

    return jax.tree.map(expanded, axes, argument, is_leaf=lambda axis: axis is None)


def _the_row(y: Any) -> Any:
    if not (getattr(y, "ndim", 0) and isinstance(y.shape[0], int) and y.shape[0] == 1):
        raise ValueError(
            f"{WHERE}: with `batched=True` the module must return a batch of one row, [1, ...], "
            f"got shape {jnp.shape(y)}."
        )
    return y[0]


def _warn_of_numbers(x: PyTree, y: PyTree, real: PyTree) -> None:
    """Warn of `[n]` of `[n, feature]`, which a reduction over the axis 1 of a batch gives."""
    given, found, marks = map(jax.tree.leaves, (x, y, real))
    if len(given) != 1 or len(found) != 1 or given[0].ndim < 3:
        return
    if found[0].ndim == 2 and all(m.shape == found[0].shape for m in marks):
        shape = ", ".join(map(str, given[0].shape[2:]))
        warnings.warn(
            f"{WHERE}: the module gave one number for each step, `[n]`, of a row `[n, {shape}]`. "
            "One that is written for `[batch, time, ...]` does so by mistake (`x.mean(axis=1)` is "
            "then a mean over features): if it is, pass `batched=True`; if it is meant for one "
            "row, `batched=False`.",
            stacklevel=3,
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what the module was called with: it may be written for batches."""
    try:
        yield
    except (IndexError, TypeError, ValueError) as error:
        error.add_note(
            f"{WHERE} calls the module with one row `[n, ...]`; a model written for batches, "
            "`[batch, time, ...]`, needs `batched=True`."
        )
        raise


ragged.RaggedVmap.adapters[nnx.Module] = functools.partial(RaggedVmap, batched=False)
