"""Any Flax cell over padded rows; the arithmetic is `jaxmask.recurrent.scan`."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, recurrent
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree, Segments, common_dtype
from jaxmask.nn._options import NoiseCall, named, opened
from jaxmask.nn._recurrent import Recurrent
from jaxmask.nn._seeded import SeededCell, seeded


class RNN(Recurrent):
    """Any Flax NNX cell over padded rows; the arithmetic is `jaxmask.recurrent.scan`.

    Mask class: any. The cell never sees padding. Noise that it draws is keyed by the row and by the
    rank of the step among its real steps, if the cell, or a module in it such as `nnx.Dropout`, has
    the switch `deterministic`; its carry is then a `SeededCarry`. A later segment, or an episode
    after a reset, starts from what the cell's `initialize_carry` gives.

    Shapes: `x [batch, time, feature]` and mask `[batch, time]` to `y [batch, time, ...]` and the
    same mask; with `return_sequences=False` to `last [batch, ...]` and a row mask `[batch]`.

    Args:
      cell: `nnx.LSTMCell`, `nnx.GRUCell` or any module `cell(carry, x) -> (carry, y)` with
        `initialize_carry(input_shape, rngs)` and `in_features`. Its carry keeps its own layout.
      return_sequences: return every step, else only the last one computed.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), return_sequences=False)
      >>> last, row_mask = layer(jnp.ones((2, 5, 3)), jnp.zeros((2, 5), bool))
      >>> last.tolist(), row_mask.tolist()
      ([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], [False, False])

    Agrees with `flax.nnx.RNN` of the unpadded row.
    """

    def __init__(
        self, cell: nnx.RNNCellBase, *, return_sequences: bool = True, reverse: bool = False
    ):
        if isinstance(cell, type) or not (callable(cell) and hasattr(cell, "initialize_carry")):
            raise TypeError(
                "RNN: `cell` must be a cell `cell(carry, x) -> (carry, y)` with "
                f"`initialize_carry`, such as `nnx.LSTMCell(...)`, got {_check.kind_of(cell)}."
            )
        self.cell = cell
        self.return_sequences = return_sequences
        self.reverse = _check.flag(reverse, "RNN", "reverse")

    def __call__(
        self,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
        **options: Unpack[NoiseCall],
    ) -> Pair:
        """Run from the initial carry and return `(y, mask)`, or `(last, row_mask)`.

        `reverse` and `resets` as in `jaxmask.recurrent.scan`; the other options, as in
        `Sequential`, are for a cell that draws noise.
        """
        layer, given = opened(self, options)
        x, mask = _check.pair(x, mask, "RNN", over_time=True)
        carry = layer.initial_carry(x.shape[0], layer._with_features(x).shape[2:], **given)
        return layer._called(carry, x, mask, reverse, resets)

    def initial_carry(
        self, batch: int, feature_shape: tuple[int, ...] | None = None, **options: Unpack[NoiseCall]
    ) -> PyTree:
        """What the cell starts from, at least float32.

        `feature_shape`: the axes of one step of one row, `(cell.in_features,)` where None. A cell
        over images, such as `ConvLSTMCell`, needs it.
        """
        layer, given = opened(self, options, resets=False)
        if feature_shape is None:
            axes = getattr(self.cell, "num_feature_axes", 1)
            if axes != 1:
                raise ValueError(
                    f"RNN: a step of {_check.name_of(self.cell)} has {axes} feature axes, whose "
                    "sizes are unknown before it gets an array. Pass them: "
                    "`initial_carry(batch, feature_shape)`."
                )
            feature_shape = (self.cell.in_features,)  # type: ignore[attr-defined]
        initialize: Any = seeded(layer.cell).initialize_carry
        noise = {"noise_rngs": given.get("rngs"), "row_ids": given.get("row_ids")}
        noise = named(initialize, noise)
        carry = initialize((batch, *feature_shape), _AnyStream(), **noise)
        return jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), carry)

    def _with_features(self, x: ArrayLike) -> Array:
        x = _check.array(x, "x", "RNN")
        has_features: Any = getattr(self.cell, "num_feature_axes", 1)
        if x.ndim < 3 and has_features:
            raise ValueError(f"RNN: `x` must be [batch, time, feature...], got shape {x.shape}.")
        features = getattr(self.cell, "in_features", None)
        if x.ndim > 2 and features not in (None, x.shape[-1]):
            raise ValueError(
                f"RNN: {_check.name_of(self.cell)} takes {features} features, got `x` of shape "
                f"{x.shape}."
            )
        return x

    def run(
        self,
        carry: PyTree,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
        **options: Unpack[NoiseCall],
    ) -> tuple[PyTree, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, whatever `return_sequences` says."""
        layer, _ = opened(self, options, resets=False)
        reverse = self.reverse if reverse is None else reverse
        return layer._run(carry, x, mask, reverse, resets)

    def _run(
        self, carry: PyTree, x: ArrayLike, mask: Mask, reverse: bool, resets: ArrayLike | None
    ) -> tuple[PyTree, Pair]:
        x = self._with_features(x)
        cell, fresh = seeded(self.cell), None
        if resets is not None or isinstance(mask, Segments):
            # A later sequence draws no new seed.
            fresh = self.initial_carry(x.shape[0], x.shape[2:], deterministic=True)
            fresh = _as_wide_as(x, fresh)
            if isinstance(cell, SeededCell):
                fresh = cell.restart_carry(fresh)
        carry = _as_wide_as(x, carry)
        return recurrent.scan(
            *(cell, x, mask, carry), reverse=reverse, resets=resets, reset_carry=fresh
        )


class _AnyStream:
    """Like `nnx.Rngs(0)`, for cells that ask for a random stream though they start from zeros.

    Not an `nnx.Rngs`: `nnx.tabulate` fails on streams that are not part of the model.
    """

    def __init__(self) -> None:
        self.count = 0

    def __getattr__(self, name: str) -> "_AnyStream":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, name: str) -> "_AnyStream":
        return self

    def __call__(self) -> Array:
        self.count += 1
        return jax.random.fold_in(jax.random.key(0), self.count - 1)


def _as_wide_as(x: Array, carry: PyTree) -> PyTree:
    """The carry in the dtype of a float64 row, whose state is float64."""

    def widen(a: Array) -> Array:
        are_floating = all(jnp.issubdtype(dtype, jnp.floating) for dtype in (a.dtype, x.dtype))
        return a.astype(common_dtype(a.dtype, x.dtype)) if are_floating else a

    return jax.tree.map(widen, carry)
