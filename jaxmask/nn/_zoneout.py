"""Zone-out around any cell of `RNN`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import _check
from jaxmask._types import Array, PyTree
from jaxmask.nn._seeded import SeededCarry, SeededCell, step_keys


class ZoneoutCell(SeededCell):
    """Zone-out around any cell, for `jaxmask.nn.RNN`: a state feature may skip a step.

        state'[k] = state[k] with probability rate, else cell(state, x)[k]     while training
        state' = rate * state + (1 - rate) * cell(state, x)                    in eval mode

    Where the cell outputs a part of its new state, as Flax's do, so does zone-out, after mixing.
    The noise is keyed by the row and by the rank of the step among its real steps, both in the
    carry, so neither padding nor chunks change it. In `RNN` segments and resets do not restart the
    rank: no two sequences of a row have the same noise.

    Args:
      cell: `nnx.LSTMCell`, `nnx.GRUCell`, or any cell of `jaxmask.nn.RNN` with a floating carry.
      rate: one probability for the whole state, or one for each array of the cell's carry, in
        order: `(rate of c, rate of h)` for `nnx.LSTMCell`.
      deterministic: eval mode; `module.train()` and `module.eval()` set it.
      rngs: source of the `dropout` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> cell = jm.nn.ZoneoutCell(nnx.LSTMCell(3, 4, rngs=rngs), (0.5, 0.05), rngs=rngs)
      >>> jm.nn.RNN(cell)(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))[0].shape
      (2, 5, 4)

    Source: Krueger et al., 2017, Zoneout, arXiv:1606.01305.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        rate: float | Sequence[float],
        *,
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.rate = rate if isinstance(rate, int | float | np.floating) else tuple(rate)
        for value in self.rate if isinstance(self.rate, tuple) else (self.rate,):
            if not 0 <= value <= 1:
                raise ValueError(f"ZoneoutCell: `rate` must lie within 0 and 1, got {value}.")
        self.cell = cell
        self.deterministic = deterministic
        self.rngs = rngs["dropout"].fork()

    def _is_quiet(self) -> bool:
        return self.deterministic

    def __call__(self, carry: SeededCarry, inputs: Array) -> tuple[SeededCarry, PyTree]:
        """One step of the cell, which some features of the state skip."""
        new, y = self.cell(carry.cell, inputs)
        before, structure = jax.tree.flatten(carry.cell)
        after = jax.tree.leaves(new)
        mix = self._expectation if self.deterministic else self._choice(carry)
        mixed = [
            mix(index, rate, old, fresh)
            for index, (rate, old, fresh) in enumerate(
                zip(self._rates(len(before)), before, after, strict=True)
            )
        ]
        # A cell that casts its output has `output_index`: which entry of the carry it is.
        output_index = getattr(self.cell, "output_index", None)
        for index, (fresh, value) in enumerate(zip(after, mixed, strict=True)):
            if y is fresh or index == output_index:
                y = value.astype(y.dtype)
                break
        carry = SeededCarry(jax.tree.unflatten(structure, mixed), carry.seed, carry.rank + 1)
        return carry, y

    def _rates(self, count: int) -> tuple[float, ...]:
        if not isinstance(self.rate, tuple):
            return (self.rate,) * count
        if len(self.rate) != count:
            raise ValueError(
                f"ZoneoutCell: `rate` must be one number, or one for each of the {count} arrays of "
                f"the carry of {_check.name_of(self.cell)}, got {len(self.rate)}."
            )
        return self.rate

    @staticmethod
    def _expectation(index: int, rate: float, old: Array, new: Array) -> Array:
        return (rate * old + (1 - rate) * new).astype(old.dtype)

    @staticmethod
    def _choice(carry: SeededCarry) -> Callable[[int, float, Array, Array], Array]:
        keys = step_keys(carry)

        def mix(index: int, rate: float, old: Array, new: Array) -> Array:
            def stays(key: Array) -> Array:
                return jax.random.bernoulli(jax.random.fold_in(key, index), rate, old.shape[1:])

            return jnp.where(jax.vmap(stays)(keys), old, new).astype(old.dtype)

        return mix
