"""One training step of the same masked BiLSTM in jaxmask, Flax and Keras.

    python -m bench.bilstm

All three get the same weights, rows, lengths and loss; outputs at real steps and the gradient of
every weight must agree before anything is timed. Masks and lengths are arguments of the jitted
step. Results go to `bench/results/bilstm.json` and the figure to `bench/results/bilstm.png`.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import timing
from bench.workloads import log_normal

SHAPES = ((32, 96, 64, 64), (64, 256, 128, 256))  # batch, time, feature, hidden
FILLS = (0.36, 1.0)
LEARNING_RATE = 1e-3


class Direction(NamedTuple):
    """Weights of one direction, gates in the order i, f, g, o, which all three share."""

    w_x: jax.Array
    w_h: jax.Array
    b: jax.Array


Weights = tuple[Direction, Direction]


def draw_weights(feature: int, hidden: int) -> Weights:
    draw = np.random.default_rng(0)

    def direction() -> Direction:
        shapes = (feature, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
        return Direction(*(jnp.asarray(0.1 * draw.normal(size=s), jnp.float32) for s in shapes))

    return direction(), direction()


# --------------------------------------------------------- the three models: (weights, x, ...) -> y


def jaxmask_model(feature: int, hidden: int) -> Callable:
    rngs = nnx.Rngs(0)
    layer = jm.nn.Bidirectional(*(jm.nn.LSTM(feature, hidden, rngs=rngs) for _ in range(2)))
    graph, state = nnx.split(layer)

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        fresh = nnx.merge(graph, state, copy=True)
        for lstm, (w_x, w_h, b) in zip((fresh.forward, fresh.backward), weights, strict=True):
            lstm.w_x[...], lstm.w_h[...], lstm.b[...] = w_x, w_h, b
        return fresh(x, mask)[0]

    return apply


def flax_model(feature: int, hidden: int) -> Callable:
    rngs = nnx.Rngs(0)
    cells = [nnx.RNN(nnx.OptimizedLSTMCell(feature, hidden, rngs=rngs)) for _ in range(2)]
    layer = nnx.Bidirectional(*cells)
    graph, state = nnx.split(layer)

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        fresh = nnx.merge(graph, state, copy=True)
        for rnn, (w_x, w_h, b) in zip(
            (fresh.forward_rnn, fresh.backward_rnn), weights, strict=True
        ):
            rnn.cell.dense_i.kernel[...] = w_x
            rnn.cell.dense_h.kernel[...] = w_h
            rnn.cell.dense_h.bias[...] = b
        return fresh(x, seq_lengths=lengths)

    return apply


def keras_model(feature: int, hidden: int) -> Callable:
    layer = keras.layers.Bidirectional(keras.layers.LSTM(hidden, return_sequences=True))
    layer.build((None, None, feature))
    rest = [variable.value for variable in layer.non_trainable_variables]

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        flat = [leaf for direction in weights for leaf in direction]
        return layer.stateless_call(flat, rest, x, mask=mask)[0]

    return apply


MODELS = {"jaxmask": jaxmask_model, "flax": flax_model, "keras": keras_model}


def training_step(apply: Callable) -> Callable:
    """The gradient of a masked loss and a step of SGD."""

    def loss(weights: Weights, x: Any, mask: Any, lengths: Any, targets: Any) -> jax.Array:
        y = apply(weights, x, mask, lengths)
        return jm.losses.reduce(*jm.losses.l2_loss(y, mask, targets))

    def step(weights: Weights, x: Any, mask: Any, lengths: Any, targets: Any) -> tuple:
        value, gradient = jax.value_and_grad(loss)(weights, x, mask, lengths, targets)
        new = jax.tree.map(lambda w, g: w - LEARNING_RATE * g, weights, gradient)
        return new, value, gradient

    return step


def compare(results: dict[str, Any], where: str) -> float:
    """The largest difference to jaxmask, relative to the largest value; refuses a large one."""
    worst = 0.0
    for name, result in results.items():
        for ours, theirs in zip(
            jax.tree.leaves(results["jaxmask"]), jax.tree.leaves(result), strict=True
        ):
            scale = float(jnp.max(jnp.abs(ours))) or 1.0
            worst = max(worst, float(jnp.max(jnp.abs(ours - theirs))) / scale)
        if not worst < 1e-3:
            raise SystemExit(f"{where}: {name} and jaxmask differ by {worst:.1e}")
    return worst


def run(shape: tuple[int, int, int, int], fill: float, rounds: int) -> dict[str, Any]:
    """Check and time all three on one shape."""
    batch, time, feature, hidden = shape
    lengths = log_normal(batch, time, fill)
    mask = np.arange(time) < lengths[:, None]
    draw = np.random.default_rng(2)
    x = draw.normal(size=(batch, time, feature)).astype(np.float32)
    targets = draw.normal(size=(batch, time, 2 * hidden)).astype(np.float32)
    arguments = jax.device_put((draw_weights(feature, hidden), x, mask, lengths, targets))

    steps, compile_times, memory = {}, {}, {}
    for name, model in MODELS.items():
        steps[name], compile_times[name] = timing.compile_seconds(
            training_step(model(feature, hidden)), *arguments
        )
        memory[name] = steps[name].memory_analysis().temp_size_in_bytes / 2**20
    error = compare({name: step(*arguments)[1:] for name, step in steps.items()}, str(shape))
    times = timing.interleaved({n: lambda s=s: s(*arguments) for n, s in steps.items()}, rounds)
    real = int(lengths.sum())
    return {
        "batch": batch,
        "time": time,
        "feature": feature,
        "hidden": hidden,
        "fill": round(real / (batch * time), 3),
        "largest_relative_difference": error,
        "milliseconds": times,
        "real_steps_per_second": {n: round(1e3 * real / t["median"]) for n, t in times.items()},
        "rival_over_jaxmask": {
            n: round(t["median"] / times["jaxmask"]["median"], 3) for n, t in times.items()
        },
        "compile_seconds": {n: round(s, 2) for n, s in compile_times.items()},
        "temporary_mebibytes": {n: round(m, 1) for n, m in memory.items()},
        "matmul_gflops": round(timing.matmul_rate(batch, hidden), 1),
    }


def draw_figure(result: dict[str, Any], path: Any) -> None:
    """Bars of milliseconds a step, one group a shape and fill."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(result["runs"]), figsize=(10, 3), layout="constrained")
    for axis, run_ in zip(axes, result["runs"], strict=True):
        times = run_["milliseconds"]
        medians = [t["median"] for t in times.values()]
        errors = np.array(
            [[t["median"] - t["low"], t["high"] - t["median"]] for t in times.values()]
        ).T
        bars = axis.bar(list(times), medians, yerr=errors, color=["#2a6f97", "#a9a9a9", "#d0d0d0"])
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set_title(
            f"batch {run_['batch']}, time {run_['time']}, hidden {run_['hidden']}\n"
            f"{run_['fill']:.0%} of the steps real",
            fontsize=9,
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.15)
    axes[0].set_ylabel("ms a training step")
    figure.suptitle(f"One masked BiLSTM, {result['machine']['processor']}", fontsize=10)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    runs = [run(shape, fill, rounds) for shape in SHAPES for fill in FILLS]
    versions = {"flax": flax.__version__, "keras": keras.__version__}
    result = {"machine": timing.machine(), "versions": versions, "runs": runs}
    path = timing.save("bilstm", result)
    draw_figure(result, path.with_suffix(".png"))
    for run_ in runs:
        print({key: run_[key] for key in ("batch", "time", "hidden", "fill", "rival_over_jaxmask")})
    print(f"wrote {path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
