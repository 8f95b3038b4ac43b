"""An example learns on one device and on four; what came of it is written as JSON.

    python -m tests.many_devices NAME

A program of its own, for `tests/test_devices.py`: JAX counts its devices when it starts.
"""

import functools
import json
import re
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

import jaxmask as jm

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import transformer
from _pronounce import data, devices, model, training
from _pronounce.checkpoint import Checkpoints

BATCH_SIZE, LEFT_OVER, STEPS = 16, 5, 3
WAYS = {"one": (1, False), "data": (4, False), "spread": (4, True)}
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|collective-\w+|reduce-scatter|ragged-\S+)"
    r"(?:-start)?\("
)


def batches():
    """Two full ones, and one whose real rows are so few that two devices of four have none."""
    parts = data.split(data.read_dictionary(), 300)
    rows = data.Entries.of(parts.training).that_fit()
    rows = rows.at(range((STEPS - 1) * BATCH_SIZE + LEFT_OVER))
    return list(data.Batches(rows, BATCH_SIZE, max_shapes=1).epoch(0))


def collectives(program):
    """How many values go through each kind of collective."""
    found = {}
    for line in program.splitlines():
        if match := COLLECTIVE.search(line):
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            sizes = [int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes]
            found[match[2]] = found.get(match[2], 0) + sum(sizes)
    return found


@functools.cache
def pronouncer():
    net = nnx.merge(*model.split(model.Size(8, 1, hidden=16), 0))
    for _, layer in nnx.iter_graph(net):
        if isinstance(layer, jm.nn.LSTM):
            # Words are short and rows are few, and the engine is to be seen here.
            layer.method = jm.recurrent.Choice("tiled", slots=(2, 16))
    graphdef, params = nnx.split(net)
    return graphdef, jax.device_get(params)


@functools.cache
def reader():
    return transformer.Transformer(16, 1, 2, rngs=nnx.Rngs(0))


def pronounce(mesh, spread, given):
    graphdef, params = pronouncer()
    trainer = training.Trainer(graphdef, mesh, 0, spread=spread)
    state = trainer.initial_state(params)
    lowered = trainer._gradients.lower(*trainer._inputs(state, given[0], 0)).compile()
    trainer._compiled[given[0].letters.shape] = lowered
    update = trainer._update.lower(state, state.params, np.float32(1e-2)).compile()
    losses = []
    for step, batch in enumerate(given):
        state, loss = trainer.step(state, batch, step, 1e-2)
        losses.append(float(loss))
    return lowered.as_text() + update.as_text(), losses, state.params, state.optimizer


def letters_to_phonemes(mesh, spread, given):
    net = nnx.clone(reader())
    # Not Adam: it makes much of gradients that are 0 but for rounding.
    optimizer = nnx.Optimizer(net, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    both = net, optimizer
    nnx.update(both, devices.lay_out(nnx.state(both), mesh, spread=spread))
    sharded = [devices.shard_rows(batch, mesh) for batch in given]
    step = lambda batch: transformer.train_step(*both, batch, mesh, spread)  # noqa: E731
    program = transformer.train_step.lower(*both, sharded[0], mesh, spread).compile()
    losses = [float(step(batch)) for batch in sharded]
    return program.as_text(), losses, nnx.state(net, nnx.Param), nnx.state(optimizer)


LEARN = {"pronounce": pronounce, "letters_to_phonemes": letters_to_phonemes}


def most_different(one, other):
    def difference(a, b):
        return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()

    return float(np.max(jax.tree.leaves(jax.tree.map(difference, one, other))))


def share(tree):
    """How much of a tree lies on the first device."""
    leaves = jax.tree.leaves(tree)
    return sum(x.addressable_shards[0].data.size for x in leaves) / sum(x.size for x in leaves)


def restored(params, optimizer):
    """Whether one device reads the very same bits from a checkpoint that all have written."""
    one = Mesh(np.array(jax.devices()[:1]), (devices.ROWS,))
    with tempfile.TemporaryDirectory() as out:
        checkpoints = Checkpoints(Path(out))
        checkpoints.save(1, {}, params=params, optimizer=optimizer)
        trees = {"params": params, "optimizer": optimizer}
        like = devices.lay_out(jax.eval_shape(lambda: trees), one)
        found = {name: checkpoints.tree(1, name, like[name]) for name in trees}
    return most_different(found, trees) == 0 and share(found) == 1


def main(example):
    learn, given = LEARN[example], batches()
    rows, lstm = [], jm.recurrent.lstm
    jm.recurrent.lstm = lambda x, *rest, **options: (
        rows.append(len(x)),
        lstm(x, *rest, **options),
    )[1]
    ways, first = {}, None
    for way, (count, spread) in WAYS.items():
        rows.clear()
        mesh = Mesh(np.array(jax.devices()[:count]), (devices.ROWS,))
        program, losses, params, optimizer = learn(mesh, spread, given)
        host = jax.device_get(params)
        first = host if way == "one" else first
        ways[way] = {
            "collectives": collectives(program),
            "losses": losses,
            "difference": most_different(host, first),
            "rows_of_engine": sorted(set(rows)),
            "share": [share(params), share(optimizer)],
            "parameters": sum(x.size for x in jax.tree.leaves(host)),
            "arrays": len(jax.tree.leaves(host)),
            "restored": restored(params, optimizer),
        }
    print(json.dumps(ways))


if __name__ == "__main__":
    main(sys.argv[1])
