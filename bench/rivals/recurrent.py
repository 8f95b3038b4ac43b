"""Recurrent layers in JAX libraries: `BUILDERS[name](problem)` is an entrant that runs the problem.

A rival is left out, with a reason, if its library is missing or cannot do what is asked.
SequenceLayers' requirements pin an old absl-py, but not the JAX side of it:

    pip install --no-deps sequence-layers einops recurrentgemma sentencepiece orbax-export
    pip install --no-deps typeguard==2.13.3 dataclasses-json "marshmallow<4" typing-inspect
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import contest, timing
from bench.contest import Entrant, LeftOut
from bench.problem import WEIGHTS, Problem, Weights, loss

COMPILES = 3  # of each program, for the time that it takes
# Weights are put in later, and an orthogonal matrix cannot be drawn in bfloat16.
ZEROS = nnx.initializers.zeros


class Result(NamedTuple):
    """Outputs or gradients as float32 in NumPy, the padding left out."""

    y: np.ndarray | None = None  # [real steps, directions * hidden]
    loss: np.ndarray | None = None
    dx: np.ndarray | None = None  # [real steps, feature]
    weights: Weights | None = None  # gradients, in jaxmask's layout


class Layout(NamedTuple):
    """How a library keeps the weights, and how it applies its layers to `(x, mask, lengths)`.

    `params(weights)` and `weights(params)` are permutations and paddings, so that the second one
    takes gradients too. They run outside of what is timed.
    """

    apply: Callable[..., jax.Array]
    params: Callable[[Weights], Any] = lambda weights: weights
    weights: Callable[[Any], Weights] = lambda params: params


def as_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def function_of(problem: Problem, apply: Callable) -> tuple[Callable, tuple]:
    """The forward or the training pass, and its arguments after the weights."""

    def train(params: Any, x: Any, mask: Any, lengths: Any, cotangent: Any) -> Any:
        def of(params: Any, x: jax.Array) -> jax.Array:
            return loss(apply(params, x, mask, lengths), mask, cotangent)

        return jax.value_and_grad(of, argnums=(0, 1))(params, x)

    _, *given, cotangent = problem.data
    return (train, (*given, cotangent)) if problem.trains else (apply, tuple(given))


def compile_jax(problem: Problem, layout: Layout, compiles: int = COMPILES) -> Entrant:
    """Jit it, with weights, input, mask and lengths as arguments."""
    function, given = function_of(problem, layout.apply)
    given = layout.params(problem.data.weights), *given
    _, cost = timing.compiled_cost(function, *given, times=compiles)
    jitted = jax.jit(function)
    jax.block_until_ready(jitted(*given))

    def result(value: Any) -> Result:
        if not problem.trains:
            return Result(y=as_float32(value)[problem.mask])
        total, (slope, dx) = value
        dx, slope = as_float32(dx)[problem.mask], as_float32(layout.weights(slope))
        return Result(loss=as_float32(total), dx=dx, weights=slope)

    return Entrant(lambda: jax.block_until_ready(jitted(*given)), result, cost)


# ------------------------------------------------------------------------------------ the libraries


def jaxmask(problem: Problem, method: Any = "auto") -> Layout:
    """The function for one layer; for more the modules that a user would take."""

    def function(weights: Weights, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        [[only]] = weights
        return getattr(jm.recurrent, problem.cell)(x, mask, only, method=method)[1][0]

    if problem.layers == problem.directions == 1:
        return Layout(function)
    options = {"param_dtype": jnp.dtype(problem.dtype), "recurrent_kernel_init": ZEROS}

    def layer(size: int) -> nnx.Module:
        module = {"lstm": jm.nn.LSTM, "gru": jm.nn.GRU}[problem.cell]
        module = functools.partial(module, method=method, rngs=nnx.Rngs(0), **options)
        one, *more = (module(size, problem.hidden) for _ in range(problem.directions))
        return jm.nn.Bidirectional(one, *more) if more else one

    graph, state = nnx.split(jm.nn.StackedRNN(*map(layer, problem.inputs)))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        stack = nnx.merge(graph, state, copy=True)
        for layer, directions in zip(stack.layers, weights, strict=True):
            modules = [layer] if problem.directions == 1 else [layer.forward, layer.backward]
            for module, (w_x, w_h, b) in zip(modules, directions, strict=True):
                module.w_x[...], module.w_h[...], module.b[...] = w_x, w_h, b
        return stack(x, mask)[0]

    def changed(change: Callable) -> Callable[[Weights], Weights]:
        return lambda weights: [[w._replace(b=change(w.b)) for w in layer] for layer in weights]

    if problem.cell == "lstm":
        return Layout(apply)
    # The module has a bias of the input and one of the state, which is 0 here.
    return Layout(apply, changed(lambda b: jnp.stack([b, 0 * b])), changed(lambda b: b[0]))


def reference(problem: Problem) -> Result:
    """The plain scan in float32, on values that the problem's dtype holds exactly."""
    exact = dataclasses.replace(problem, dtype="float32", rounded_to=problem.dtype)
    program = compile_jax(exact, jaxmask(exact, "scan"), compiles=1)
    return program.result(program.run())


def flax(problem: Problem) -> Layout:
    """`nnx.RNN` with `seq_lengths`: `OptimizedLSTMCell`, the faster of its two, and `GRUCell`."""
    dtype, lstm = jnp.dtype(problem.dtype), problem.cell == "lstm"
    options = {"dtype": dtype, "param_dtype": dtype, "recurrent_kernel_init": ZEROS}

    def layer(size: int) -> nnx.Module:
        cell = nnx.OptimizedLSTMCell if lstm else nnx.GRUCell
        cells = (cell(size, problem.hidden, **options, rngs=nnx.Rngs(0)) for _ in range(2))
        rnns = list(map(nnx.RNN, cells))
        return rnns[0] if problem.directions == 1 else nnx.Bidirectional(*rnns)

    graph, state = nnx.split(nnx.List(map(layer, problem.inputs)))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        for layer, directions in zip(nnx.merge(graph, state, copy=True), weights, strict=True):
            rnns = [layer.forward_rnn, layer.backward_rnn] if len(directions) == 2 else [layer]
            for rnn, (w_x, w_h, b) in zip(rnns, directions, strict=True):
                cell = rnn.cell
                cell.dense_i.kernel[...], cell.dense_h.kernel[...] = w_x, w_h
                (cell.dense_h if lstm else cell.dense_i).bias[...] = b
            x = layer(x, seq_lengths=lengths)
        return x

    return Layout(apply)


def keras(problem: Problem) -> Layout:
    """Keras 3 on JAX, with a mask: `LSTM`, and `GRU` with `reset_after`."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise LeftOut(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax")
    options, lstm = {"dtype": problem.dtype}, problem.cell == "lstm"

    def layer(size: int) -> keras.Layer:
        kind = keras.layers.LSTM if lstm else keras.layers.GRU
        init = {"return_sequences": True, "recurrent_initializer": "zeros"}
        layer = kind(problem.hidden, **init, **options)
        layer = keras.layers.Bidirectional(layer, **options) if problem.directions == 2 else layer
        layer.build((None, None, size))
        return layer

    layers = list(map(layer, problem.inputs))
    rest = [[v.value for v in layer.non_trainable_variables] for layer in layers]

    def apply(params: Any, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        for layer, own, others in zip(layers, params, rest, strict=True):
            x, _ = layer.stateless_call(own, others, x, mask=mask)
        return x

    def swapped(gates: jax.Array) -> jax.Array:
        """From r, z, n to Keras's z, r, n, and back."""
        r, z, n = jnp.split(gates, 3, axis=-1)
        return jnp.concatenate([z, r, n], axis=-1)

    def to_keras(w_x: jax.Array, w_h: jax.Array, b: jax.Array) -> tuple:
        if lstm:
            return w_x, w_h, b
        return swapped(w_x), swapped(w_h), jnp.stack([swapped(b), 0 * b])

    def from_keras(w_x: jax.Array, w_h: jax.Array, b: jax.Array) -> Any:
        values = (w_x, w_h, b) if lstm else map(swapped, (w_x, w_h, b[0]))
        return WEIGHTS[problem.cell](*values)

    def params(weights: Weights) -> Any:
        return [[leaf for one in layer for leaf in to_keras(*one)] for layer in weights]

    def weights(params: Any) -> Weights:
        return [[from_keras(*own[k : k + 3]) for k in range(0, len(own), 3)] for own in params]

    return Layout(apply, params, weights)


def sequence_layers(problem: Problem) -> Layout:
    """SequenceLayers' `LSTM`: pairs of values and mask, a layer at a time over the whole row."""
    import sequence_layers.jax as sl

    if problem.cell != "lstm":
        raise LeftOut("SequenceLayers has no GRU")
    if problem.directions == 2:
        raise LeftOut("SequenceLayers has no reversed LSTM that skips padding")
    dtype = jnp.dtype(problem.dtype)
    config = sl.LSTM.Config(problem.hidden, compute_dtype=dtype, param_dtype=dtype, name="lstm")
    layers = [config.make() for _ in problem.inputs]

    def apply(params: Any, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        sequence = sl.Sequence(x, mask)
        for layer, own in zip(layers, params, strict=True):
            sequence = layer.apply({"params": own}, sequence, training=False, method="layer")
        return sequence.values

    def params(weights: Weights) -> Any:
        names = ("kernel", "recurrent_kernel")
        return [
            {name: {"kernel": w} for name, w in zip(names, one[:2], strict=True)} | {"bias": one[2]}
            for [one] in weights
        ]

    def weights(params: Any) -> Weights:
        kernels = ((p["kernel"]["kernel"], p["recurrent_kernel"]["kernel"]) for p in params)
        return [[(*two, p["bias"])] for two, p in zip(kernels, params, strict=True)]

    return Layout(apply, params, weights)


def cudnn(problem: Problem) -> Layout:
    """`jax.experimental.rnn.lstm`, for right-padded rows: cuDNN behind JAX, on GPUs."""
    if jax.default_backend() != "gpu":
        raise LeftOut("cuDNN needs a GPU")
    if problem.cell != "lstm" or problem.dtype != "float32":
        raise LeftOut("jax.experimental.rnn has the LSTM in float32 only")
    return cudnn_layout(problem)


def cudnn_layout(problem: Problem) -> Layout:
    from jax.experimental import rnn

    sizes = problem.feature, problem.hidden, problem.layers
    two, ways = problem.directions == 2, problem.directions

    def apply(flat: jax.Array, x: jax.Array, mask: jax.Array, lengths: Any) -> jax.Array:
        state = jnp.zeros((problem.layers * ways, x.shape[0], problem.hidden))
        return rnn.lstm(x, state, state, flat, lengths, *sizes, 0.0, two)[0]

    def params(weights: Weights) -> jax.Array:
        """All matrices, transposed, then two biases a layer and direction, the second one 0."""
        each = [one for layer in weights for one in layer]
        matrices = [matrix.T.ravel() for one in each for matrix in one[:2]]
        biases = [bias for one in each for bias in (one[2], jnp.zeros_like(one[2]))]
        return jnp.concatenate([*matrices, *biases])

    def weights(flat: jax.Array) -> Weights:
        w_x, w_h, b, _ = rnn.unpack_lstm_weights(flat, *sizes, two)
        each = [(w_x[k].T, w_h[k].T, b[k].reshape(-1)) for k in range(len(w_x))]
        return [each[k : k + ways] for k in range(0, len(each), ways)]

    return Layout(apply, params, weights)


OURS = "jaxmask"
LAYOUTS: dict[str, Callable[[Problem], Layout]] = {
    OURS: jaxmask,
    "jaxmask scan": functools.partial(jaxmask, method="scan"),
    "flax": flax,
    "keras": keras,
    "sequence-layers": sequence_layers,
    "cudnn": cudnn,
}
TORCH = ("torch packed", "torch padded")
NAMES = (*list(LAYOUTS)[:-1], *TORCH, "cudnn")


def build(name: str, problem: Problem, compiles: int) -> Entrant:
    if name not in TORCH:
        return compile_jax(problem, LAYOUTS[name](problem), compiles)
    from bench.rivals import pytorch

    return pytorch.build(problem, packed=name == "torch packed")


def build_all(
    problem: Problem, names: Iterable[str], compiles: int = COMPILES
) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Entrants by name, and by name the reason why others are left out."""
    return contest.enter({n: functools.partial(build, n, problem, compiles) for n in names})
