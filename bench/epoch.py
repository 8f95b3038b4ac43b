"""End to end: one epoch of the pronunciation model of the examples in jaxmask, Flax and Keras.

    python -m bench.epoch
    python -m bench.epoch --words 2000 --steps 20     a quick look

All three start from the same weights and see the same batches, the same CTC loss and the same
optimizer, step by step in turn. The first losses must agree before the figures count. Results are
merged into `bench/results/epoch.json`.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from _pronounce import data, model
from _pronounce.settings import PRESETS, Preset
from _pronounce.training import learning_rate, optimizer
from flax import nnx
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxmask as jm
from bench import store, tables, timing
from bench.agreement import Disagreement

RESULTS = timing.RESULTS / "epoch.json"
KEY = ("machine", "model", "steps")
COMPARED, TOLERANCE = 10, 1e-3  # losses of the first steps

# Embedding; of each layer and direction w_x, w_h, b; kernel and bias of the last layer.
Params = list[jax.Array]
# `(params, letters, mask) -> logits`, [batch, time] to [batch, FRAMES_A_LETTER * time, CLASSES].
Apply = Callable[[Params, jax.Array, jax.Array], jax.Array]


# ------------------------------------------------------------------------- the three models


def jaxmask_model(size: model.Size) -> Apply:
    """The model of the example itself."""
    graph, state = nnx.split(model.pronouncer(size, nnx.Rngs(0)))

    def apply(params: Params, letters: jax.Array, mask: jax.Array) -> jax.Array:
        layers = nnx.merge(graph, state, copy=True)
        for variable, value in zip(_variables(layers), params, strict=True):
            variable[...] = value
        return layers(letters, mask)[0]

    return apply


def initial_params(size: model.Size) -> Params:
    return [variable[...] for variable in _variables(model.pronouncer(size, nnx.Rngs(0)))]


def _variables(pronouncer: jm.nn.Sequential) -> list[nnx.Param]:
    """In the order of `Params`."""
    embed, *middle = pronouncer.layers
    both = [layer for layer in middle if isinstance(layer, jm.nn.Bidirectional)]
    [last] = [layer for layer in middle if isinstance(layer, nnx.Linear)]
    lstms = [lstm for layer in both for lstm in (layer.forward, layer.backward)]
    matrices = [variable for lstm in lstms for variable in (lstm.w_x, lstm.w_h, lstm.b)]
    return [embed.embedding, *matrices, last.kernel, last.bias]


class FlaxPronouncer(nnx.Module):
    """The same of Flax's own layers, with lengths for a mask."""

    def __init__(self, size: model.Size, rngs: nnx.Rngs):
        self.embed = nnx.Embed(len(data.LETTERS), size.embed, rngs=rngs)
        widths = [size.embed] + [2 * size.hidden] * (size.layers - 1)
        self.layers = nnx.List(
            [
                nnx.Bidirectional(*(self._rnn(width, size.hidden, rngs) for _ in range(2)))
                for width in widths
            ]
        )
        self.last = nnx.Linear(2 * size.hidden, data.FRAMES_A_LETTER * data.CLASSES, rngs=rngs)

    @staticmethod
    def _rnn(width: int, hidden: int, rngs: nnx.Rngs) -> nnx.RNN:
        return nnx.RNN(nnx.OptimizedLSTMCell(width, hidden, rngs=rngs))

    def variables(self) -> list[nnx.Param]:
        rnns = [rnn for layer in self.layers for rnn in (layer.forward_rnn, layer.backward_rnn)]
        matrices = [
            variable
            for cell in (rnn.cell for rnn in rnns)
            for variable in (cell.dense_i.kernel, cell.dense_h.kernel, cell.dense_h.bias)
        ]
        return [self.embed.embedding, *matrices, self.last.kernel, self.last.bias]

    def __call__(self, letters: jax.Array, lengths: jax.Array) -> jax.Array:
        x = self.embed(letters)
        for layer in self.layers:
            x = layer(x, seq_lengths=lengths)
        return self.last(x)


def flax_model(size: model.Size) -> Apply:
    graph, state = nnx.split(FlaxPronouncer(size, nnx.Rngs(0)))

    def apply(params: Params, letters: jax.Array, mask: jax.Array) -> jax.Array:
        pronouncer = nnx.merge(graph, state, copy=True)
        for variable, value in zip(pronouncer.variables(), params, strict=True):
            variable[...] = value
        return _frames(pronouncer(letters, mask.sum(1)))

    return apply


def keras_model(size: model.Size) -> Apply:
    """The same of Keras's layers, with the mask handed to each."""
    layers = keras.layers
    embed = layers.Embedding(len(data.LETTERS), size.embed)
    both = [
        layers.Bidirectional(layers.LSTM(size.hidden, return_sequences=True))
        for _ in range(size.layers)
    ]
    last = layers.Dense(data.FRAMES_A_LETTER * data.CLASSES)
    embed.build((None, None))
    for layer, width in zip(both, [size.embed] + [2 * size.hidden] * size.layers, strict=False):
        layer.build((None, None, width))
    last.build((None, None, 2 * size.hidden))
    rest = [[v.value for v in layer.non_trainable_variables] for layer in both]

    def apply(params: Params, letters: jax.Array, mask: jax.Array) -> jax.Array:
        own = iter(params)
        x = embed.stateless_call([next(own)], [], letters)[0]
        for layer, others in zip(both, rest, strict=True):
            x = layer.stateless_call(list(itertools.islice(own, 6)), others, x, mask=mask)[0]
        return _frames(last.stateless_call(list(own), [], x)[0])

    return apply


def _frames(y: jax.Array) -> jax.Array:
    """Each letter's features dealt out to its frames."""
    batch, time_, features = y.shape
    shares = data.FRAMES_A_LETTER
    return y.reshape(batch, shares * time_, features // shares)


MODELS = {"jaxmask": jaxmask_model, "flax": flax_model, "keras": keras_model}


# --------------------------------------------------------------------------------- training


class Learner(NamedTuple):
    """What one library has learnt so far."""

    params: Params
    state: optax.OptState


def training_step(apply: Apply) -> Callable[..., tuple[Learner, jax.Array]]:
    def loss(params: Params, batch: data.Batch) -> jax.Array:
        logits = apply(params, batch.letters, batch.mask)
        frames = jnp.repeat(batch.mask, data.FRAMES_A_LETTER, axis=1)
        per_word, rows = jm.losses.ctc_loss(logits, frames, batch.phonemes, batch.phoneme_mask)
        return jm.losses.reduce(per_word, rows, by="row")

    def step(learner: Learner, batch: data.Batch, rate: jax.Array) -> tuple[Learner, jax.Array]:
        value, slope = jax.value_and_grad(loss)(learner.params, batch)
        updates, state = optimizer().update(slope, learner.state, learner.params)
        params = jax.tree.map(lambda p, update: p - rate * update, learner.params, updates)
        return Learner(params, state), value

    return jax.jit(step)


def batches_of(preset: Preset, words: int | None) -> data.Batches:
    training = data.Entries.of(data.split(data.read_dictionary(), words).training)
    return data.Batches(
        training.that_fit(), preset.batch_size, max_shapes=preset.shapes, shuffle_seed=0
    )


def compile_all(
    steps: dict[str, Callable], learner: Learner, samples: Sequence[data.Batch], console: Console
) -> dict[str, float]:
    """Seconds until each library is ready for all shapes of batch."""
    seconds = dict.fromkeys(steps, 0.0)
    every = list(itertools.product(samples, steps))
    for batch, name in track(every, "Compiling", console=console):
        start = time.perf_counter()
        jax.block_until_ready(steps[name](learner, batch, jnp.float32(0)))
        seconds[name] += time.perf_counter() - start
    return seconds


def run(options: argparse.Namespace, console: Console) -> store.Row:
    """Train all three on the same batches, and say how long each took."""
    preset = PRESETS[options.model]
    batches = batches_of(preset, options.words)
    count = min(options.steps or len(batches), len(batches))
    start = initial_params(preset.size)
    first = Learner(start, optimizer().init(start))
    steps = {name: training_step(MODELS[name](preset.size)) for name in MODELS}
    compiling = compile_all(steps, first, batches.one_of_each_shape(), console)

    learners = dict.fromkeys(steps, first)
    seconds = dict.fromkeys(steps, 0.0)
    losses: dict[str, list[float]] = {name: [] for name in steps}
    letters = 0
    epoch = itertools.islice(batches.epoch(0), count)
    for number, batch in enumerate(track(epoch, "Training", count, console=console)):
        rate = jnp.float32(learning_rate(preset.learning_rate, number, count))
        batch = jax.device_put(batch)
        for name, step in steps.items():
            begin = time.perf_counter()
            learners[name], loss = jax.block_until_ready(step(learners[name], batch, rate))
            seconds[name] += time.perf_counter() - begin
            losses[name].append(float(loss))
        if number + 1 == min(COMPARED, count):
            _compare(losses)
        letters += int(batch.mask.sum())
    return {
        "machine": timing.machine_name(),
        "model": options.model,
        "steps": count,
        "real_letters": letters,
        "libraries": {
            name: {
                "seconds": round(seconds[name], 3),
                "ratio": round(seconds[name] / seconds["jaxmask"], 3),
                "compile_seconds": round(compiling[name], 2),
                "real_letters_per_second": round(letters / seconds[name]),
                "mean_loss": round(float(np.mean(losses[name])), 5),
                "last_loss": round(float(np.mean(losses[name][-50:])), 5),
            }
            for name in steps
        },
    }


def _compare(losses: dict[str, list[float]]) -> None:
    """Later losses drift apart by rounding, which training amplifies; the first ones must not."""
    ours = np.array(losses["jaxmask"])
    for name, theirs in losses.items():
        if not np.all(np.abs(ours - theirs) <= TOLERANCE * np.abs(ours)):
            raise Disagreement(f"{name} has other losses than jaxmask: {theirs}, {ours.tolist()}")


def table(row: store.Row) -> Table:
    shown = Table(title=f"{row['steps']} steps, {row['model']} model", box=box.SIMPLE)
    names = next(iter(row["libraries"].values()))
    for title in ("library", *(name.replace("_", " ") for name in names)):
        shown.add_column(title)
    for name, figures in row["libraries"].items():
        shown.add_row(name, *(f"{value:,}" for value in figures.values()))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    whole = [name for name, preset in PRESETS.items() if preset.size.dropout == 0]
    add("--model", choices=whole, default="small", help="a preset of the example without dropout")
    add("--words", type=int, help="use only so many words of the dictionary")
    add("--steps", type=int, help="stop after so many steps")
    add("--out", type=Path, default=RESULTS, help="the JSON to merge into")
    options, console = parser.parse_args(arguments), tables.console()
    row = run(options, console)
    store.merge(options.out, [row], KEY)
    console.print(table(row))
    console.print(f"merged into {options.out}", soft_wrap=True)


if __name__ == "__main__":
    main()
