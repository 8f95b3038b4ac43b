"""A small training job that has all that a long run has.

Ragged records of two shards, the second of them shorter, are packed by Grain; an embedding, an
LSTM, batch normalisation and dropout learn a label for each sequence. A checkpoint holds the
parameters, the statistics, the state of the optimiser, the random key, a metric, and how far each
shard was read.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from _pronounce import devices
from _pronounce.checkpoint import Checkpoints

RECORDS = 230, 100  # of each shard: 20 batches or one more, and 10
ROWS, ROW_LENGTH, SEGMENTS = 4, 16, 4
WORDS, FEATURES, CLASSES = 12, 16, 3
EVERY = 5  # steps from one checkpoint to the next
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


def records(shard: int) -> list[dict[str, Any]]:
    """Ids of 1 to 9 steps; the label says which third of the vocabulary is seen the most."""
    draw = np.random.default_rng(shard)
    rows = [draw.integers(0, WORDS, draw.integers(1, 10)) for _ in range(RECORDS[shard])]
    return [
        {"ids": row.astype(np.int32), "label": np.bincount(row % CLASSES).argmax().astype(np.int32)}
        for row in rows
    ]


def pipeline(shard: int) -> Iterator[dict[str, np.ndarray]]:
    dataset = grain.MapDataset.source(records(shard)).seed(0).shuffle()
    options = {"key": "ids", "keep": ["label"], "max_segments": SEGMENTS, "buffer": 8}
    return iter(jm.grain.Pack(dataset, ROW_LENGTH, ROWS, shuffle_seed=0, **options))


def nothing() -> dict[str, np.ndarray]:
    """What a process trains on that has read all of its shards while others have not: padding."""
    of_steps = {name: np.zeros((ROWS, ROW_LENGTH), np.int32) for name in ("ids", "segments")}
    return {**of_steps, "label": np.zeros(ROWS * SEGMENTS, np.int32)}


class Network(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = jm.nn.Embed(WORDS, 8, rngs=rngs)
        self.lstm = jm.nn.LSTM(8, FEATURES, rngs=rngs)
        self.norm = jm.nn.BatchNorm(FEATURES, axis_name=devices.ROWS, momentum=0.9, rngs=rngs)
        self.dropout = jm.nn.Dropout(0.2)
        self.pool = jm.nn.GlobalMeanPool()
        self.write = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, ids, mask, key):
        y, mask = self.norm(*self.lstm(*self.embed(ids, mask)))
        # By its place in the whole batch a row has the same noise on however many devices.
        rows = jax.lax.axis_index(devices.ROWS) * len(ids) + jnp.arange(len(ids))
        y, mask = self.pool(*self.dropout(y, mask, rngs=key, row_ids=rows))
        return self.write(y), mask


class State(NamedTuple):
    params: nnx.State
    statistics: nnx.State
    optimizer: optax.OptState
    key: jax.Array
    accuracy: jm.metrics.Accuracy


def start(mesh: Mesh) -> tuple[nnx.GraphDef, State]:
    """The state of step 0, computed where it is to lie, so that each process makes its own part."""

    def split() -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
        return nnx.split(Network(rngs=nnx.Rngs(0)), nnx.Param, nnx.BatchStat)

    def state() -> State:
        _, params, statistics = split()
        optimizer, key = OPTIMIZER.init(params), jax.random.key(1)
        return State(params, statistics, optimizer, key, jm.metrics.Accuracy.empty())

    shapes = devices.lay_out(jax.eval_shape(state), mesh)
    lies = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return nnx.eval_shape(split)[0], jax.jit(state, out_shardings=lies)()


@functools.cache
def stepper(graph: nnx.GraphDef, mesh: Mesh) -> Callable[..., tuple[State, jax.Array, jax.Array]]:
    def of_shard(batch, params, statistics, key):
        network = nnx.merge(graph, params, statistics)
        mask = jm.Segments(batch["segments"], SEGMENTS)
        logits, mask = network(batch["ids"], mask, key)
        losses = jm.losses.softmax_cross_entropy_with_integer_labels(logits, mask, batch["label"])
        accuracy = jm.metrics.Accuracy.empty().update(logits, mask, batch["label"])
        sums = jm.losses.sum_and_count(*losses), accuracy
        (total, count), accuracy = jax.lax.psum(sums, devices.ROWS)
        return total / jnp.maximum(count, 1), (count, accuracy, nnx.state(network, nnx.BatchStat))

    gradient = jax.value_and_grad(
        devices.on_each_device(of_shard, mesh, out=PartitionSpec()), argnums=1, has_aux=True
    )

    @jax.jit
    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, jax.Array, jax.Array]:
        key, noise = jax.random.split(state.key)
        (loss, aux), slope = gradient(batch, state.params, state.statistics, noise)
        count, accuracy, statistics = aux
        updates, optimizer = OPTIMIZER.update(slope, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        new = State(params, statistics, optimizer, key, state.accuracy.merge(accuracy))
        # Momentum would move parameters even where nobody has a real row any more.
        return jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), new, state), loss, count

    return step


def deal(batches: list[dict[str, np.ndarray]], mesh: Mesh) -> dict[str, jax.Array]:
    """The rows of this process, one shard below the other, on its own devices."""
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec(devices.ROWS))
    return {
        name: jax.make_array_from_process_local_data(
            sharding, np.concatenate([batch[name] for batch in batches])
        )
        for name in nothing()
    }


def train(
    mesh: Mesh,
    shards: Iterable[int],
    checkpoints: Checkpoints | None = None,
    *,
    fill: bool = True,
    before_step: Callable[[int], None] = lambda step: None,
) -> tuple[State, list[float]]:
    """Train until all shards of all processes are read.

    Args:
      mesh: the devices of all processes.
      shards: what this process reads.
      checkpoints: where to go on from, and where to write.
      fill: give empty rows in the place of a shard that is read, not none; needed where other
        devices wait for them.
      before_step: called with the number of each step.
    """
    graph, state = start(mesh)
    step = stepper(graph, mesh)
    pipelines = {str(shard): pipeline(shard) for shard in shards}
    losses: list[float] = []
    if checkpoints and (newest := checkpoints.newest(functools.partial(print, flush=True))):
        state = checkpoints.tree(newest, "state", state)
        for notes in checkpoints.notes(newest):
            losses = notes["losses"]
            for shard in pipelines.keys() & notes["pipelines"].keys():
                pipelines[shard].set_state(notes["pipelines"][shard])
    while True:
        before_step(len(losses))
        batches = [next(p, nothing() if fill else None) for p in pipelines.values()]
        batches = [batch for batch in batches if batch is not None]
        if not batches:
            return state, losses
        state, loss, count = step(state, deal(batches, mesh))
        if not count:
            return state, losses
        losses.append(float(loss))
        if checkpoints and len(losses) % EVERY == 0:
            positions = {shard: p.get_state() for shard, p in pipelines.items()}
            checkpoints.save(len(losses), {"losses": losses, "pipelines": positions}, state=state)


def mesh_of(count: int | None = None) -> Mesh:
    return Mesh(np.array(jax.devices()[:count]), (devices.ROWS,))


def arrays(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths, on the host."""

    def on_host(leaf: jax.Array) -> np.ndarray:
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): on_host(leaf) for path, leaf in leaves}
