"""Random models of Keras, and a comparison of what they become with each row alone."""

import warnings
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm

TIME, FEATURES, IDS = 7, 4, 9
LENGTHS = (7, 7, 4, 0)  # 4 is enough for what the layers below take away
KINDS = ("right", "left", "holes")


class Model(NamedTuple):
    """A model, what it takes, and whether a hole is a step left out, or keeps its place."""

    model: object
    takes_ids: bool
    inputs: int
    closes_holes: bool


class Draw:
    """A random model: blocks from a sequence to a sequence, and a head."""

    def __init__(self, keras, seed):
        self.keras, self.layers = keras, keras.layers
        self.draw = np.random.default_rng(seed)
        self.shrinks = 0
        self.closes_holes = True

    def one(self, *values):
        return values[self.draw.integers(len(values))]

    def width(self):
        return int(self.draw.choice([2, 4, 6]))

    # ------------------------------------------------------------------ blocks of one layer

    def cell(self, name=None, **options):
        name = name or self.one("LSTM", "GRU", "SimpleRNN")
        if name == "GRU":
            options["reset_after"] = bool(self.draw.integers(2))
        if self.draw.integers(4) == 0:
            options["activation"] = self.one("relu", "softsign", "elu") if name != "LSTM" else "elu"
            if name != "SimpleRNN":
                options["recurrent_activation"] = self.one("hard_sigmoid", "sigmoid")
        if self.draw.integers(3) == 0:
            options["dropout"] = 0.2
        return getattr(self.layers, name)(self.width(), **options)

    def recurrent(self):
        way = self.one("one", "both", "back", "stack", "cell")
        if way == "both":
            merge = self.one("concat", "sum", "ave", "mul")
            return self.layers.Bidirectional(self.cell(return_sequences=True), merge_mode=merge)
        if way == "stack":
            cells = [self.layers.LSTMCell(3), self.layers.GRUCell(4), self.layers.SimpleRNNCell(2)]
            return self.layers.RNN(cells[: self.draw.integers(2, 4)], return_sequences=True)
        if way == "cell":
            return self.layers.RNN(self.layers.GRUCell(3), return_sequences=True)
        return self.cell(return_sequences=True, go_backwards=way == "back")

    def dense(self):
        activation = self.one(None, "relu", "gelu", "softmax", "tanh", "silu", "leaky_relu")
        layer = self.layers.Dense(self.width(), activation=activation)
        return self.layers.TimeDistributed(layer) if self.draw.integers(3) == 0 else layer

    def conv(self):
        self.closes_holes = False
        kind = self.one("Conv1D", "SeparableConv1D", "DepthwiseConv1D", "Conv1DTranspose")
        padding = self.one("same", "valid", "causal") if kind == "Conv1D" else "same"
        size = int(self.draw.integers(1, 5))
        if padding == "valid":
            size = 2 if self.shrinks < 2 else 1
            self.shrinks += size - 1
        options = {"padding": padding, "activation": self.one(None, "relu")}
        if kind == "DepthwiseConv1D":
            return self.layers.DepthwiseConv1D(size, depth_multiplier=self.one(1, 2), **options)
        if kind == "Conv1DTranspose":
            options |= {"strides": self.one(1, 2), "padding": self.one("same", "valid")}
            return self.layers.Conv1DTranspose(self.width(), size, **options)
        if kind == "Conv1D" and self.draw.integers(2):
            options["dilation_rate"] = 2 if padding != "valid" else 1
        return getattr(self.layers, kind)(self.width(), size, **options)

    def pool(self):
        self.closes_holes = False
        kind = self.one(self.layers.MaxPooling1D, self.layers.AveragePooling1D)
        if self.shrinks < 2 and self.draw.integers(2):
            self.shrinks += 2
            return kind(2)
        return kind(self.one(2, 3), strides=1, padding="same")

    def norm(self):
        layers = self.layers
        kind = self.one("layer", "batch", "group", "unit", "rms", "instance")
        made = {
            "layer": lambda: layers.LayerNormalization(),
            "batch": lambda: layers.BatchNormalization(),
            "group": lambda: layers.GroupNormalization(1),
            "unit": lambda: layers.UnitNormalization(),
            "rms": lambda: layers.RMSNormalization(),
            "instance": lambda: layers.GroupNormalization(-1),
        }
        return made[kind]()

    def activation(self):
        layers = self.layers
        return self.one(
            layers.Activation(self.one("relu", "softplus", "mish", "hard_silu", "log_softmax")),
            layers.ReLU(max_value=0.6, negative_slope=0.1, threshold=0.1),
            layers.LeakyReLU(negative_slope=0.3),
            layers.ELU(alpha=0.7),
            layers.PReLU(shared_axes=[1]),
            layers.Softmax(),
            layers.Softmax(axis=1),
            layers.Rescaling(0.5, offset=0.1),
        )

    def noise(self):
        layers = self.layers
        return self.one(
            layers.Dropout(0.3),
            layers.SpatialDropout1D(0.3),
            layers.GaussianNoise(0.2),
            layers.GaussianDropout(0.2),
            layers.AlphaDropout(0.2),
            layers.ActivityRegularization(0.1),
            layers.Identity(),
        )

    def shape(self):
        layers = self.layers
        kind = self.one("up", "crop", "zeros", "reshape")
        self.closes_holes = self.closes_holes and kind in ("up", "reshape")
        if kind == "crop" and self.shrinks < 2:
            self.shrinks += 1
            return layers.Cropping1D(self.one((1, 0), (0, 1)))
        if kind == "zeros":
            return layers.ZeroPadding1D((1, 2))
        return layers.UpSampling1D(2) if kind == "up" else layers.Reshape((-1, 2, 2))

    def block(self, masked):
        kinds = ["recurrent"] * 4 + [
            "dense",
            "conv",
            "pool",
            "norm",
            "activation",
            "noise",
            "shape",
        ]
        layer = getattr(self, self.one(*kinds))()
        if masked and type(layer).__name__ == "Softmax":  # which Keras refuses under a mask
            return self.layers.Activation("softmax")
        return layer

    def sequential(self):
        layers, ids = self.layers, bool(self.draw.integers(2))
        masked = ids
        stack = []
        if ids:
            stack.append(layers.Embedding(IDS, FEATURES, mask_zero=True))
        elif self.draw.integers(2):
            stack.append(layers.Masking(-9.0))
            masked = True
        for _ in range(self.draw.integers(2, 5)):
            layer = self.block(masked)
            if type(layer).__name__ == "Reshape":
                stack += [layers.Dense(4), layer, layers.Reshape((-1, 4))]
                continue
            stack.append(layer)
        for layer in self.head():
            stack.append(layer)
        model = self.keras.Sequential(stack)
        model.build((None, None) if ids else (None, None, FEATURES))
        return Model(model, ids, 1, self.closes_holes)

    def head(self):
        layers = self.layers
        return self.one(
            [],
            [layers.Dense(3)],
            [layers.GlobalAveragePooling1D(), layers.Dense(3, activation="softmax")],
            [layers.GlobalMaxPooling1D(), layers.Dense(3)],
            [self.cell(), layers.Dense(2)],
            [layers.Bidirectional(self.cell(), merge_mode=self.one("concat", "ave"))],
            [layers.GlobalAveragePooling1D(), layers.RepeatVector(3), self.cell()],
            [self.cell(go_backwards=True), layers.Flatten(), layers.Reshape((-1, 1)), self.cell()],
        )

    # ----------------------------------------------------------------- graphs

    def merged(self, x, y):
        layers = self.layers
        name = self.one(
            *(
                "Add",
                "Subtract",
                "Multiply",
                "Average",
                "Maximum",
                "Minimum",
                "Concatenate",
                "+",
                "*",
            )
        )
        if name in "+*":
            return x + y * 0.5 if name == "+" else x * y
        return getattr(layers, name)()([x, y])

    def step(self, x):
        """A block of a graph, whose result has the features and the time of `x`."""
        layers = self.layers
        kind = self.one("recurrent", "dense", "attend", "additive", "dot", "conv", "norm", "noise")
        if kind == "attend":
            heads = layers.MultiHeadAttention(2, 3, value_dim=self.one(None, 3))
            return heads(x, x, use_causal_mask=bool(self.draw.integers(2)))
        if kind == "additive":
            return layers.AdditiveAttention(use_scale=bool(self.draw.integers(2)))([x, x])
        if kind == "dot":
            return layers.Attention(use_scale=bool(self.draw.integers(2)))([x, x, x])
        if kind == "conv":
            self.closes_holes = False
            return layers.Conv1D(FEATURES, 3, padding="same", activation="relu")(x)
        if kind == "recurrent":
            return layers.Dense(FEATURES)(self.recurrent()(x))
        if kind == "dense":
            return layers.Dense(FEATURES, activation="gelu")(x)
        return (self.norm() if kind == "norm" else self.noise())(x)

    def functional(self):
        layers, keras = self.layers, self.keras
        ids = bool(self.draw.integers(2))
        count = int(self.draw.integers(1, 3))
        shape, dtype = ((None,), "int32") if ids else ((None, FEATURES), "float32")
        inputs = [keras.Input(shape, dtype=dtype) for _ in range(count)]
        values = list(inputs)
        if ids:
            embedding = layers.Embedding(IDS, FEATURES, mask_zero=True)  # shared
            values = [embedding(x) for x in inputs]
        shared = layers.Dense(FEATURES, activation="tanh")
        values = [self.step(shared(x)) for x in values]
        x = values[0]
        if count == 2:
            x = self.joined(x, values[1])
        for _ in range(self.draw.integers(1, 3)):
            y = self.step(x)
            x = layers.Dense(FEATURES)(self.merged(x, y))
        x = shared(x)
        outputs = [x]
        pool = self.one(layers.GlobalAveragePooling1D(), layers.GlobalMaxPooling1D(), self.cell())
        if self.draw.integers(2):
            outputs.append(layers.Dense(2)(pool(x)))
        if self.draw.integers(3) == 0:
            outputs = outputs[-1:]
        model = keras.Model(inputs if count > 1 else inputs[0], outputs)
        return Model(model, ids, count, self.closes_holes)

    def joined(self, x, memory):
        """A sequence and a second one of other lengths, as an encoder and a decoder have them."""
        layers = self.layers
        kind = self.one("cross", "additive", "dot", "states", "states of both", "model")
        if kind == "cross":
            return layers.MultiHeadAttention(2, 3)(x, memory)
        if kind == "model":  # a model inside
            inside = self.keras.Sequential([self.cell(), layers.Dense(FEATURES)])
            return layers.Multiply()([x, inside(memory)])
        if kind == "additive":
            return layers.AdditiveAttention()([x, memory])
        if kind == "dot":
            return layers.Attention()([x, memory])
        if kind == "states":
            _, *states = layers.LSTM(FEATURES, return_state=True)(memory)
            return layers.LSTM(FEATURES, return_sequences=True)(x, initial_state=states)
        both = layers.Bidirectional(layers.GRU(2, return_state=True))
        _, ahead, back = both(memory)
        state = layers.Concatenate()([ahead, back])
        return layers.GRU(FEATURES, return_sequences=True)(x, initial_state=state)


def _zeros(keras):
    """Weights start from 0, since drawing them compiles a program for each shape."""
    add_weight = keras.layers.Layer.add_weight

    def of_zeros(layer, *args, **options):
        return add_weight(layer, *args, **{**options, "initializer": "zeros"})

    return of_zeros


def random_model(keras, seed, dtype="float32"):
    """A model with weights that are all different from 0."""
    keras.utils.clear_session()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        drawn = Draw(keras, seed)
        with mock.patch.object(keras.layers.Layer, "add_weight", _zeros(keras)):
            made = drawn.sequential() if seed % 2 else drawn.functional()
    finally:
        keras.config.set_dtype_policy(before)
    for place, weight in enumerate(made.model.weights):
        if "seed" in weight.path:
            continue
        values = np.random.default_rng(place).normal(size=weight.shape) * 0.5
        weight.assign(np.abs(values) + 0.3 if "variance" in weight.path else values)
    return made


# ------------------------------------------------------------------------------- comparison


def masks(kind, count, draw):
    """One mask for each input; an empty row in the first is one in all."""
    found = []
    for place in range(count):
        lengths = [n - 1 if place and n > 4 else n for n in LENGTHS]
        real = np.arange(TIME)[None] < np.array(lengths)[:, None]
        if kind == "left":
            real = real[:, ::-1]
        if kind == "holes":
            real = np.array([draw.permutation(row) for row in real])
        found.append(np.ascontiguousarray(real))
    return found


def inputs_of(made, real, draw):
    """Arrays with garbage in the padding, where the model does not make the mask of it."""
    if made.takes_ids:
        return [np.where(m, draw.integers(1, IDS, m.shape), 0).astype(np.int32) for m in real]
    makes_mask = type(made.model.layers[0]).__name__ == "Masking"
    fill = -9.0 if makes_mask else 1e3
    rows = [draw.normal(size=(*m.shape, FEATURES)).astype(np.float32) for m in real]
    return [np.where(m[..., None], x, np.float32(fill)) for x, m in zip(rows, real, strict=True)]


def converted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jm.interop.InteropWarning)
        return jm.interop.from_keras(model)


def agrees(made, kind, *, gradients=True, rtol=2e-4, atol=2e-5):
    """Each row as Keras has it alone, and the gradients of all rows."""
    draw = np.random.default_rng(len(kind))
    real = masks(kind, made.inputs, draw)
    xs = inputs_of(made, real, draw)
    module = converted(made.model)
    for _, inside in nnx.iter_modules(module):
        if isinstance(inside, jm.nn.LSTM | jm.nn.GRU | jm.nn.SimpleRNN):
            inside.method = "scan"  # which compiles fastest
    (x, mask) = (xs[0], real[0]) if made.inputs == 1 else (xs, real)
    mask = None if _makes_its_mask(made) else mask
    with_x = gradients and not made.takes_ids
    groups = [(0, 1), (2,)]  # rows of equal lengths
    alone = [_rows(xs, real, group) for group in groups]
    theirs, *their_gradients = _keras(made, alone, gradients, with_x)
    ys, outs, *our_gradients = _ours(module, x, mask, gradients, with_x)
    _compare(ys, outs, theirs, groups, rtol, atol)
    if gradients:
        _compare_weights(made.model, our_gradients[0], their_gradients[0])
    if with_x:
        _compare_inputs(our_gradients[1], their_gradients[1], real, groups)


def _makes_its_mask(made):
    return made.takes_ids or type(made.model.layers[0]).__name__ == "Masking"


def _rows(xs, real, group):
    return [np.stack([x[r, m[r]] for r in group]) for x, m in zip(xs, real, strict=True)]


def _as_list(value):
    return list(value) if isinstance(value, list | tuple) else [value]


def _weights_of(count):
    """What each number of a row counts in the loss, by its place."""
    return jnp.cos(jnp.arange(count))


def _keras(made, alone, gradients, with_x):
    model = made.model
    state = [v.value for v in model.non_trainable_variables]

    def loss(weights, alone):
        results, total = [], 0.0
        for xs in alone:
            given = xs[0] if made.inputs == 1 else list(xs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ys, _ = model.stateless_call(weights, state, given, training=False)
            results.append(_as_list(ys))
            for y in results[-1]:
                flat = y.reshape(len(y), -1)
                total += jnp.sum(flat * _weights_of(flat.shape[1]))
        return total, results

    weights = [v.value for v in model.trainable_variables]
    if not gradients:
        return jax.jit(lambda w, a: loss(w, a)[1:])(weights, alone)
    over = (0, 1) if with_x else (0,)
    found, results = jax.jit(jax.grad(loss, argnums=over, has_aux=True))(weights, alone)
    return results, *found


def _ours(module, x, mask, gradients, with_x):
    def loss(module, x):
        ys, outs = (_as_list(part) for part in module(x, mask))
        total = 0.0
        for y, out in zip(ys, outs, strict=True):
            if out.ndim == 1:
                total += jnp.sum(y.reshape(len(y), -1) * _weights_of(y[0].size) * out[:, None])
                continue
            flat = y.reshape(*y.shape[:2], -1)
            rank = jnp.maximum(jnp.cumsum(out, axis=1) - 1, 0)
            weights = _weights_of(flat.shape[1] * flat.shape[2]).reshape(flat.shape[1:])
            total += jnp.sum(flat * weights[rank] * out[..., None])
        return total, (ys, outs)

    if not gradients:
        return nnx.jit(lambda m, x: loss(m, x)[1])(module, x)
    over = (0, 1) if with_x else (0,)
    found, (ys, outs) = nnx.jit(nnx.grad(loss, argnums=over, has_aux=True))(module, x)
    return ys, outs, *found


def _compare(ys, outs, theirs, groups, rtol, atol):
    for place, (y, mask) in enumerate(zip(ys, outs, strict=True)):
        assert mask.shape == y.shape[: mask.ndim]
        y, mask = np.asarray(y, np.float32), np.asarray(mask)
        assert not y[~mask].any()
        assert not mask[3].any()  # the empty row
        for group, results in zip(groups, theirs, strict=True):
            for r, expected in zip(group, np.asarray(results[place], np.float32), strict=True):
                ours = y[r][mask[r]] if mask.ndim == 2 else y[r]
                assert ours.shape == expected.shape, (ours.shape, expected.shape)
                np.testing.assert_allclose(ours, expected, rtol=rtol, atol=atol)


def _compare_weights(model, ours, theirs):
    variables = model.trainable_variables
    weights = [v.value for v in variables]
    for variable, gradient in zip(variables, theirs, strict=True):
        variable.assign(gradient)
    expected = nnx.state(converted(model), nnx.Param)  # the same change of layout
    for variable, value in zip(variables, weights, strict=True):
        variable.assign(value)
    ours, theirs = (dict(nnx.to_flat_state(s)) for s in (ours, expected))
    assert ours.keys() == theirs.keys()
    for path, gradient in ours.items():
        _close(gradient[...], theirs[path][...], str(path))


def _compare_inputs(ours, theirs, real, groups):
    for place, (gradient, mask) in enumerate(zip(_as_list(ours), real, strict=True)):
        gradient = np.asarray(gradient)
        assert not gradient[~mask].any()
        for group, found in zip(groups, theirs, strict=True):
            for r, expected in zip(group, found[place], strict=True):
                _close(gradient[r, mask[r]], expected, f"input {place}")


def _close(ours, expected, name):
    expected = np.asarray(expected)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=3e-4 * scale, err_msg=name)
