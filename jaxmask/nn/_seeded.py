"""Cells of `RNN` that draw noise, keyed by the row and by the rank of a step in it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Int, UInt

from jaxmask import random
from jaxmask._types import Array, ArrayLike, PyTree
from jaxmask.nn._options import Rngs, draw, named, restreamed


class SeededCarry(NamedTuple):
    """State of a cell that draws noise: its own, and a seed and a count of real steps per row.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> zeros = jnp.zeros(2, jnp.uint32)
      >>> jm.nn.SeededCarry(cell=jnp.zeros((2, 4)), seed=zeros, rank=zeros).cell.shape
      (2, 4)
    """

    cell: PyTree
    seed: UInt[Array, "batch"]
    rank: Int[Array, "batch"]


class SeededCell(nnx.RNNCellBase):
    """A cell around another one, whose carry holds what noise is drawn from."""

    cell: Any
    rngs: nnx.RngStream | None

    @property
    def in_features(self) -> int:
        return self.cell.in_features

    @property
    def num_feature_axes(self) -> int:
        return getattr(self.cell, "num_feature_axes", 1)

    def _is_quiet(self) -> bool:
        raise NotImplementedError

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Any = None,
        carry_init: Any = None,
        *,
        noise_rngs: Rngs | None = None,
        row_ids: ArrayLike | None = None,
    ) -> SeededCarry:
        """The cell's carry, and while training one seed per row, from the `dropout` stream.

        `noise_rngs` replaces that stream, and `row_ids` name the rows, as in a call of `RNN`.
        """
        cell = self.cell.initialize_carry(input_shape, rngs)
        batch = input_shape[0]
        seed = jnp.zeros(batch, jnp.uint32)
        if not self._is_quiet():
            key = draw(self.rngs, noise_rngs, type(self).__name__)
            rows = random.step_keys(key, seed, None, row_ids=row_ids)
            seed = jax.vmap(lambda key: jax.random.bits(key, (), jnp.uint32))(rows)
        return SeededCarry(cell, seed, jnp.zeros(batch, jnp.int32))

    def restart_carry(self, carry: SeededCarry) -> SeededCarry:
        """The `reset_carry` of `jaxmask.recurrent.scan`, for a later sequence of a row.

        Seed and rank are kept: otherwise two sequences of a row would have the same noise.
        """
        goes_on: Any = None
        return carry._replace(seed=goes_on, rank=goes_on)


def step_keys(carry: SeededCarry) -> Array:
    """One random key for this step of each row."""
    return jax.vmap(lambda seed, rank: jax.random.fold_in(jax.random.key(seed), rank))(
        carry.seed, carry.rank
    )


class NoisyCell(SeededCell):
    """A foreign cell that draws noise, run row by row, with different noise in each."""

    def __init__(self, cell: Any, streams: list[nnx.RngStream]):
        self.cell = cell
        self.rngs = nnx.data(streams[0] if streams else None)

    def _is_quiet(self) -> bool:
        return all(value is True for value in _switches(self.cell))

    def __call__(self, carry: SeededCarry, inputs: Array) -> tuple[SeededCarry, PyTree]:
        """One step of the cell."""
        if self._is_quiet():
            new, y = self.cell(carry.cell, inputs)
        else:
            new, y = jax.vmap(self._one_row)(step_keys(carry), carry.cell, inputs)
        return SeededCarry(new, carry.seed, carry.rank + 1), y

    def _one_row(self, key: Array, state: PyTree, x: Array) -> tuple[PyTree, PyTree]:
        rngs = nnx.Rngs(key)
        cell = restreamed(self.cell, rngs.default)
        alone = jax.tree.map(lambda a: a[None], (state, x))
        return jax.tree.map(lambda a: a[0], cell(*alone, **named(cell, {"rngs": rngs})))


def seeded(cell: Any) -> Any:
    """The cell, made to key its noise by row and step if it draws any and does not do so itself."""
    if isinstance(cell, SeededCell) or not _switches(cell):
        return cell
    streams = [part for _, part in nnx.iter_graph(cell) if isinstance(part, nnx.RngStream)]
    takes_rngs = bool(named(cell, {"rngs": None}))
    return NoisyCell(cell, streams) if streams or takes_rngs else cell


def _switches(cell: Any) -> list[Any]:
    """What `model.train()` and `model.eval()` set in a cell; noise without it is not known of."""
    if not isinstance(cell, nnx.Module):
        return []
    parts = [part for _, part in nnx.iter_modules(cell)]
    return [part.deterministic for part in parts if hasattr(part, "deterministic")]
