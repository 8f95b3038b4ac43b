"""A masked layer at the lengths that its rows really have."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _keys, skip
from jaxmask._report import Report
from jaxmask._types import Mask, PyTree
from jaxmask.nn import _join as join
from jaxmask.nn._options import CallOptions, Given, opened
from jaxmask.nn._state import advance, refuse_changes, variables
from jaxmask.nn._wrapping import Wrapper

WHERE = "SkipPadding"


class SkipPadding(Wrapper):
    """Run a layer, or a stack of layers, at the lengths that its rows really have.

        SkipPadding(layer)(x, mask) = layer(x, mask)

    in values, gradients and noise; time follows the real steps. `jm.skip_padding(layer)` is the
    same, and says how it works. Statistics that the layer would change have no single value for
    all groups: that is an error which names them.

    Mask class: that of the layer.

    Args:
      layer: any layer that `Sequential` takes, or a `Sequential`.
      lengths, groups, compact: as in `jm.skip_padding`.
      pack: as in `jm.skip_padding`; with it the layer gets `Segments`.

    Raises:
      TypeError, ValueError: if `lengths` or `groups` do not fit.
      ValueError: on call, if the layer changes statistics or a cache, and as in `jm.skip_padding`.
      MaskError: on call, as in `jm.skip_padding` and `Sequential`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> stack = [jm.nn.TransformerEncoderBlock(2, 8, 32, rngs=rngs) for _ in range(2)]
      >>> model = jm.nn.Sequential(jm.nn.SkipPadding(jm.nn.Sequential(*stack)))
      >>> mask = jm.masks.from_lengths(jnp.array([3, 40, 1, 7]), 40)
      >>> y, _ = model(jnp.ones((4, 40, 8)), mask)
      >>> bool(jnp.allclose(y, jm.nn.Sequential(*stack)(jnp.ones((4, 40, 8)), mask)[0], atol=1e-5))
      True
    """

    def __init__(
        self,
        layer: Callable[..., Any],
        *,
        lengths: int | Sequence[int] = 3,
        groups: int | None = None,
        compact: bool = False,
        pack: bool | int = False,
    ):
        self.layer = layer
        checked = skip.SkipPadding(
            layer, lengths=lengths, groups=groups, compact=compact, pack=pack
        )
        self.lengths, self.groups = checked.lengths, checked.groups
        self.compact, self.pack = compact, checked.pack

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether the layer acts on each step alone."""
        return join.acts_on_each_step(self.layer)

    def __call__(
        self, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, Mask]:
        """Run the layer and return `(y, mask)`; options as in `Sequential`."""
        model, given = opened(self, options)
        if isinstance(key := options.get("rngs"), jax.Array):
            given = {**given, "rngs": key}  # a layer makes other noise of a key than of streams
        for leaf in jax.tree.leaves(x):
            _check.pair(leaf, mask, WHERE, over_time=True)
        # Not `explain`: `nnx.tabulate` wraps public methods, and cannot return a `Plan`.
        if not self._skipping(model.layer, ()).plan(mask).lengths:
            return join.call(model.layer, x, mask, at=WHERE, given=given)
        kinds = {"row_ids": "row_ids", "resets": "step"}
        moving = {name: value for name, value in given.items() if name in kinds}
        first = jax.tree.leaves(x)[0]
        moving["row_ids"] = _keys.ids_of_rows(first, WHERE, given.get("row_ids"))
        node = (model.layer, given.get("rngs"))
        graph, *states = nnx.split(node, nnx.RngCount, ...)
        counts, rest = states
        f = _Function(graph, counts, given, tuple(moving))
        transformed = self._skipping(f, ("shared", *(kinds[name] for name in moving)))
        after, (y, y_mask) = transformed(x, mask, rest, *moving.values())
        if jax.tree.leaves(counts):
            advance((self.layer, given.get("rngs")), counts, after, WHERE)
        return y, y_mask

    def explain(self, x: Any, mask: Mask) -> skip.Plan:
        """How this batch would be cut, and why, as `jm.skip_padding(f).explain` does."""
        return self._skipping(self.layer, ()).explain(x, mask)

    def check(self, x: Any, mask: Mask, *, tolerance: float = 1e-4) -> Report[str]:
        """Compare with the layer on the batch as it is, as `jm.skip_padding(f).check` does.

        Random streams are those of a copy.
        """
        graph, state = nnx.split(self.layer)

        def f(x: Any, mask: Mask, row_ids: Any) -> tuple[Any, Mask]:
            layer = nnx.merge(graph, state, copy=True)
            return join.call(layer, x, mask, at=WHERE, given={"row_ids": row_ids})

        return self._skipping(f, ()).check(x, mask, tolerance=tolerance)

    def _skipping(self, f: Callable[..., Any], rest: tuple[str, ...]) -> skip.SkipPadding:
        options: dict[str, Any] = {"lengths": self.lengths, "groups": self.groups}
        return skip.SkipPadding(f, rest=rest, compact=self.compact, pack=self.pack, **options)


class _Function:
    """The layer as a pure function, that also returns the counts of its streams for each row."""

    def __init__(self, graph: Any, counts: PyTree, given: Given, moving: tuple[str, ...]):
        self.graph, self.counts = graph, counts
        self.given, self.moving = given, moving

    def __call__(
        self, x: Any, mask: Mask, state: PyTree, *moving: Any
    ) -> tuple[PyTree, tuple[Any, Mask]]:
        node = nnx.merge(self.graph, self.counts, state, copy=True)
        layer, rngs = node
        given = {**self.given, **dict(zip(self.moving, moving, strict=True))}
        if rngs is not None:
            given["rngs"] = rngs
        before = variables(node)
        pair = join.call(layer, x, mask, at=WHERE, given=given)
        refuse_changes(before, node, WHERE, "group of rows")
        rows = len(jax.tree.leaves(x)[0])
        if isinstance(given.get("row_ids"), _keys.SequenceIds):  # packed: one for each sequence
            rows *= mask.max_segments  # type: ignore[union-attr]
        counts = nnx.state(node, nnx.RngCount)
        return jax.tree.map(lambda c: jnp.broadcast_to(c, (rows, *c.shape)), counts), pair


skip.SkipPadding.adapters[nnx.Module] = SkipPadding
