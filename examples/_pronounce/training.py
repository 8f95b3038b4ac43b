"""The training step and the loop around it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from _pronounce import devices
from _pronounce.data import Batch

WARM_UP = 0.05


class State(NamedTuple):
    """What a step changes."""

    params: nnx.State
    optimizer: optax.OptState


def optimizer() -> optax.GradientTransformation:
    """AdamW without its learning rate, which is an argument of the step."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b2=0.99),
        optax.add_decayed_weights(1e-2),
    )


def learning_rate(peak: float, step: int, steps: int) -> float:
    """A short rise to the peak, then a straight line down to 0."""
    done = (step + 1) / (steps + 1)
    return peak * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))


def mean_loss(
    graphdef: nnx.GraphDef, mesh: Mesh, seed: int, *, spread: bool
) -> Callable[..., jax.Array]:
    """The CTC loss of a batch, averaged over its words, wherever its rows lie.

    The mask travels from the batch through every layer into the loss. A mean of the means of
    devices would be wrong where shares differ in empty rows, so both numbers are added up first.
    """

    def of_shard(batch: Batch, params: nnx.State, step: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), step)
        # Each device has different rows, so it needs different dropout noise.
        key = jax.random.fold_in(key, jax.lax.axis_index(devices.ROWS))
        model = nnx.merge(graphdef, params)
        logits, frames = model(batch.letters, batch.mask, rngs=nnx.Rngs(dropout=key))
        per_word, rows = jm.losses.ctc_loss(logits, frames, batch.phonemes, batch.phoneme_mask)
        share = jm.losses.sum_and_count(per_word, rows, by="row")
        total, count = jax.lax.psum(share, devices.ROWS)
        return total / count

    return devices.on_each_device(of_shard, mesh, out=PartitionSpec(), spread=spread)


class Trainer:
    """The two halves of a step: gradients, compiled for each shape of batch, and the update."""

    def __init__(self, graphdef: nnx.GraphDef, mesh: Mesh, seed: int, *, spread: bool = False):
        self.mesh, self.spread = mesh, spread
        loss = mean_loss(graphdef, mesh, seed, spread=spread)
        self._gradients = jax.jit(jax.value_and_grad(loss, argnums=1))
        self._update = jax.jit(_update, donate_argnums=0)
        self._compiled: dict[tuple[int, ...], Callable[..., Any]] = {}

    def initial_state(self, params: nnx.State) -> State:
        """The state of step 0, on the devices."""
        state = State(params, optimizer().init(params))
        return devices.lay_out(state, self.mesh, spread=self.spread)

    def compile(self, state: State, samples: Sequence[Batch]) -> None:
        """Compile for the shapes of some batches, two at a time."""

        def compiled(batch: Batch) -> Callable[..., Any]:
            return self._gradients.lower(*self._inputs(state, batch, 0)).compile()

        with ThreadPoolExecutor(2) as pool:
            for batch, program in zip(samples, pool.map(compiled, samples), strict=True):
                self._compiled[batch.letters.shape] = program

    def step(self, state: State, batch: Batch, step: int, rate: float) -> tuple[State, jax.Array]:
        """Train on one batch; the old state is used up."""
        program = self._compiled[batch.letters.shape]
        loss, gradients = program(*self._inputs(state, batch, step))
        return self._update(state, gradients, np.float32(rate)), loss

    def seconds_a_step(self, state: State, samples: Sequence[Batch]) -> dict[int, float]:
        """Measured on copies of the state: for each number of letters, the faster of two steps."""
        seconds = {}
        for batch in samples:
            took = []
            for _ in range(2):
                copy = jax.tree.map(jnp.copy, state)
                start = time.perf_counter()
                jax.block_until_ready(self.step(copy, batch, 0, 0.0))
                took.append(time.perf_counter() - start)
            seconds[batch.letters.shape[1]] = min(took)
        return seconds

    def _inputs(self, state: State, batch: Batch, step: int) -> tuple[Any, ...]:
        return devices.shard_rows(batch, self.mesh), state.params, np.uint32(step)


def _update(state: State, gradients: nnx.State, rate: jax.Array) -> State:
    updates, new = optimizer().update(gradients, state.optimizer, state.params)
    updates = jax.tree.map(lambda update: -rate * update, updates)
    return State(optax.apply_updates(state.params, updates), new)
