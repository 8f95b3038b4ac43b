"""One problem that every recurrent rival solves: sizes, lengths, weights, input and loss."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import workloads
from bench.workloads import INFERENCE_TIME, SHAPES, WORKLOADS

GATES = {"lstm": 4, "gru": 3}
WEIGHTS = {"lstm": jm.recurrent.LSTMWeights, "gru": jm.recurrent.GRUWeights}
WHAT = ("forward", "train", "inference")
PASSES = WHAT[:2]

# One entry a layer, in it one a direction: `w_x`, `w_h`, `b` in jaxmask's order of gates.
Weights = list[list[Any]]


class Data(NamedTuple):
    """Arrays of a problem; padding holds noise, which no result may depend on."""

    weights: Weights
    x: jax.Array  # [batch, time, feature]
    mask: jax.Array  # [batch, time]
    lengths: jax.Array  # [batch]
    cotangent: jax.Array  # [batch, time, directions * hidden], float32


@dataclass(frozen=True)
class Problem:
    """What is computed, on what.

    `what` is "forward", "train" (the loss and the gradients of `x` and all weights), or
    "inference" (forward of one row). Arrays hold values of `rounded_to`, by default `dtype`.
    """

    cell: str
    shape: str
    lengths: tuple[int, ...]
    time: int
    feature: int
    hidden: int
    what: str = "train"
    dtype: str = "float32"
    layers: int = 1
    directions: int = 1
    rounded_to: str = ""

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def real(self) -> int:
        return sum(self.lengths)

    @property
    def fill(self) -> float:
        return self.real / (self.batch * self.time)

    @property
    def trains(self) -> bool:
        return self.what == "train"

    @property
    def inputs(self) -> list[int]:
        """How many features go into each layer."""
        return [self.feature] + [self.directions * self.hidden] * (self.layers - 1)

    @cached_property
    def mask(self) -> np.ndarray:
        return np.arange(self.time) < np.array(self.lengths)[:, None]

    @cached_property
    def data(self) -> Data:
        draw = np.random.default_rng(0)
        x = draw.normal(size=(self.batch, self.time, self.feature))
        y = draw.normal(size=(self.batch, self.time, self.directions * self.hidden))
        ways, lengths = range(self.directions), jnp.asarray(self.lengths, jnp.int32)
        weights = [[self._draw_weights(draw, size) for _ in ways] for size in self.inputs]
        mask, cotangent = jnp.asarray(self.mask), jnp.asarray(y, jnp.float32)
        return Data(weights, self._rounded(x), mask, lengths, cotangent)

    def _draw_weights(self, draw: np.random.Generator, size: int) -> Any:
        gates, bound = GATES[self.cell] * self.hidden, self.hidden**-0.5
        shapes = (size, gates), (self.hidden, gates), (gates,)
        return WEIGHTS[self.cell](*(self._rounded(draw.uniform(-bound, bound, s)) for s in shapes))

    def _rounded(self, values: np.ndarray) -> jax.Array:
        return jnp.asarray(values, self.rounded_to or self.dtype).astype(self.dtype)


def of_shape(cell: str, shape: str, fill: float, what: str, **options: Any) -> Problem:
    """One of `SHAPES` at a fill; for inference one row of it with `INFERENCE_TIME` steps."""
    sizes = SHAPES[shape]
    if what == "inference":
        sizes, fill = sizes._replace(batch=1, time=INFERENCE_TIME), 1.0
    lengths = tuple(workloads.log_normal(sizes.batch, sizes.time, fill).tolist())
    return Problem(cell, shape, lengths, *sizes[1:], what, **options)


def of_workload(cell: str, name: str, what: str, **options: Any) -> Problem:
    """One of `WORKLOADS`, padded to the longest row of its batch."""
    workload = WORKLOADS[name]
    lengths = tuple(workload.lengths().tolist())
    sizes = max(lengths), workload.feature, workload.hidden
    return Problem(cell, name, lengths, *sizes, what, **options)


def loss(y: jax.Array, mask: jax.Array, cotangent: jax.Array) -> jax.Array:
    """A sum over real steps in which every element counts differently."""
    return jnp.sum(jnp.where(mask[..., None], y.astype(jnp.float32) * cotangent, 0.0))
