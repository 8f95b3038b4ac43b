"""Keras's layers of one input that act on steps and windows; one converter for each."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask.interop import _keras_modules as modules
from jaxmask.interop._keras_parts import (
    KerasContext,
    Part,
    Refused,
    array,
    built,
    converts,
    last_axis,
    named,
    options,
    put,
    require,
    streams,
)

ZEROS = nnx.initializers.zeros
DROPS = "Keras drops the mask here, so padding counts as real after it; here the mask is kept"


def _tanh_shrink(x: Any) -> Any:
    return x - jnp.tanh(x)


# By their names in `keras.activations`. Singletons, so that two conversions compile once.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tanh": jnp.tanh,
    "hard_tanh": jax.nn.hard_tanh,
    "tanh_shrink": _tanh_shrink,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "silu": jax.nn.silu,
    "hard_silu": jax.nn.hard_silu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "mish": jax.nn.mish,
    "squareplus": jax.nn.squareplus,
    "exponential": jnp.exp,
    "linear": jax.nn.identity,
}


def function_of(activation: Any, name: str = "activation") -> Callable[[Any], Any]:
    """The function of JAX that an activation is."""
    own = getattr(activation, "__module__", "") == "keras.src.activations.activations"
    found = ACTIVATIONS.get(getattr(activation, "__name__", "")) if own else None
    if found is None:
        raise Refused(f"its `{name}` is {named(activation)}, which is not supported.")
    return found


def activated(layer: Any, at: KerasContext) -> Part:
    """The activation of a layer, as layers after it."""
    activation = layer.activation
    if activation is None or getattr(activation, "__name__", "") == "linear":
        return Part("", tuple)
    if hasattr(activation, "compute_output_spec"):  # a layer used as a function
        inside, _ = at.plan(activation, f"{at.path}.activation")
        require(not inside.refused, f"its activation: {inside.refused}")
        assert inside.make is not None
        return Part(inside.becomes, inside.make)
    own = getattr(activation, "__module__", "") == "keras.src.activations.activations"
    if own and activation.__name__ in ("softmax", "log_softmax"):
        softmax = modules.Softmax(log=activation.__name__ == "log_softmax")
        return Part(activation.__name__, lambda: (softmax,))
    function = function_of(activation)
    return Part(activation.__name__, lambda: (_elementwise(function),))


def _elementwise(function: Callable[[Any], Any]) -> Any:
    """A function as a layer of `Sequential`, which knows those of JAX."""
    return nn.Passthrough(function) if isinstance(function, functools.partial) else function


def followed(becomes: str, make: Callable[[], Any], layer: Any, at: KerasContext) -> Part:
    """A layer and its activation."""
    after = activated(layer, at)
    words = f"{becomes}, {after.becomes}" if after.becomes else becomes
    return Part(words, lambda: (make(), *after.make()))


@converts("Embedding")
def _embedding(layer: Any, at: KerasContext) -> Part:
    built(layer)
    if layer.mask_zero:
        if at.mask == "steps":
            at.differs.append("Keras replaces the incoming mask; here both are combined (and)")
        at.mask_out = "steps"
    elif at.mask is None:
        at.notes.append("makes no mask: call the model with one, or use `mask_zero=True`")
    shape = (layer.input_dim, layer.output_dim)

    def make() -> tuple[Any, ...]:
        embed = nn.Embed(*shape, mask_zero=layer.mask_zero, embedding_init=ZEROS, **options(layer))
        put(embed.embedding, layer.embeddings)
        return (embed,)

    return Part("jm.nn.Embed", make)


@converts("Masking")
def _masking(layer: Any, at: KerasContext) -> Part:
    value = layer.mask_value
    require(np.ndim(value) == 0, "its `mask_value` is an array; only a number is supported.")
    if at.mask == "steps":
        at.differs.append("Keras replaces the incoming mask; here both are combined (and)")
    at.mask_out = "steps"
    return Part("jm.nn.Masking", lambda: (nn.Masking(float(array(value))),))


@converts("Dense")
def _dense(layer: Any, at: KerasContext) -> Part:
    built(layer)
    if at.mask == "rows":
        at.notes.append("a row without a real step gives 0, where Keras gives the bias")
    shape = tuple(layer.kernel.shape)

    def make() -> Any:
        linear = nnx.Linear(*shape, use_bias=layer.use_bias, kernel_init=ZEROS, **options(layer))
        put(linear.kernel, layer.kernel)
        if layer.use_bias:
            put(linear.bias, layer.bias)
        return linear

    return followed("nnx.Linear", make, layer, at)


def _normed(
    kind: Any, layer: Any, at: KerasContext, *sizes: Any, scale: Any = None, **more: Any
) -> Part:
    scale, bias = getattr(layer, "gamma", scale), getattr(layer, "beta", None)

    def make() -> tuple[Any, ...]:
        given = {"use_scale": scale is not None, "use_bias": bias is not None}
        if kind is nn.RMSNorm:
            del given["use_bias"]
        norm = kind(*sizes, epsilon=layer.epsilon, **given, **more, **options(layer))
        for parameter, value in ((norm.scale, scale), (getattr(norm, "bias", None), bias)):
            if value is not None:
                put(parameter, value)
        if kind is nn.BatchNorm:
            norm.mean.set_value(jnp.array(array(layer.moving_mean), norm.mean.dtype))
            norm.var.set_value(jnp.array(array(layer.moving_variance), norm.var.dtype))
        return (norm,)

    return Part(f"jm.nn.{kind.__name__}", make)


def _features(layer: Any) -> int:
    return next((int(weight.shape[0]) for weight in layer.weights), 1)


@converts("LayerNormalization")
def _layer_norm(layer: Any, at: KerasContext) -> Part:
    built(layer)
    last_axis(layer, at, layer.axis)
    require(not layer.rms_scaling, "its deprecated `rms_scaling` divides by the variance.")
    require(layer.weights, "it has neither `scale` nor `center`, so its size is unknown.")
    return _normed(nn.LayerNorm, layer, at, _features(layer))


@converts("RMSNormalization")
def _rms_norm(layer: Any, at: KerasContext) -> Part:
    built(layer)
    last_axis(layer, at, layer.axis)
    at.differs_under_mask(DROPS)
    return _normed(nn.RMSNorm, layer, at, int(layer.scale.shape[0]), scale=layer.scale)


@converts("BatchNormalization")
def _batch_norm(layer: Any, at: KerasContext) -> Part:
    built(layer)
    last_axis(layer, at, layer.axis)
    require(not getattr(layer, "renorm", False), "its `renorm` is not supported.")
    if not layer.trainable:
        at.notes.append(
            "it is frozen in Keras; keep `use_running_average=True` where you call `model.train()`"
        )
    size = int(layer.moving_mean.shape[0])
    return _normed(nn.BatchNorm, layer, at, size, momentum=layer.momentum)


@converts("GroupNormalization")
def _group_norm(layer: Any, at: KerasContext) -> Part:
    built(layer)
    last_axis(layer, at, layer.axis)
    require(layer.weights, "it has neither `scale` nor `center`, so its size is unknown.")
    at.differs_under_mask(
        "Keras's statistics include padding; here they are those of the real steps"
    )
    return _normed(nn.GroupNorm, layer, at, _features(layer), layer.groups)


def _unit(x: Any) -> Any:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jnp.where(square > 1e-24, jax.lax.rsqrt(jnp.where(square > 1e-24, square, 1)), 1e12)


@converts("UnitNormalization")
def _unit_norm(layer: Any, at: KerasContext) -> Part:
    last_axis(layer, at, layer.axis)
    return Part("jm.nn.Passthrough", lambda: (nn.Passthrough(_unit),))


@converts("Dropout", "SpatialDropout1D")
def _dropout(layer: Any, at: KerasContext) -> Part:
    shape = getattr(layer, "noise_shape", None)
    over_time = type(layer).__name__ == "SpatialDropout1D" or shape == (None, 1, None)
    require(shape in (None, (None, 1, None)), f"its `noise_shape` is {shape}.")
    kind = nn.SpatialDropout if over_time else nn.Dropout
    _rate(layer)
    return Part(f"jm.nn.{kind.__name__}", lambda: (kind(layer.rate, rngs=streams()),))


def _rate(layer: Any) -> None:
    require(layer.rate < 1, "its `rate` is 1, which drops everything.")


@converts("GaussianNoise", "GaussianDropout", "AlphaDropout")
def _noise(layer: Any, at: KerasContext) -> Part:
    name = type(layer).__name__
    if name == "GaussianNoise":
        return Part(
            "jm.nn.GaussianNoise", lambda: (nn.GaussianNoise(layer.stddev, rngs=streams()),)
        )
    _rate(layer)
    require(getattr(layer, "noise_shape", None) is None, "its `noise_shape` is not None.")
    if name == "AlphaDropout":
        return Part(name, lambda: (modules.AlphaDropout(layer.rate, rngs=streams()),))
    stddev = (layer.rate / (1 - layer.rate)) ** 0.5
    return Part(name, lambda: (modules.FactorNoise(stddev, rngs=streams()),))


@converts("Identity", "ActivityRegularization")
def _identity(layer: Any, at: KerasContext) -> Part:
    if type(layer).__name__ == "ActivityRegularization":
        at.notes.append("adds nothing to the loss here: add the penalty in your own")
    return Part("nothing", tuple)


@converts("Activation")
def _activation(layer: Any, at: KerasContext) -> Part:
    part = activated(layer, at)
    return part if part.becomes else Part("nothing", tuple)


@converts("Softmax")
def _softmax(layer: Any, at: KerasContext) -> Part:
    axis = layer.axis
    require(isinstance(axis, int), f"its `axis` is {axis}; only one axis is supported.")
    at.differs_under_mask(
        "Keras's Softmax refuses a mask of steps; here it runs over the real steps"
    )
    return Part("Softmax", lambda: (modules.Softmax(axis),))


@converts("ReLU", "LeakyReLU", "ELU")
def _rectifier(layer: Any, at: KerasContext) -> Part:
    name = type(layer).__name__
    if name == "ELU":
        function = functools.partial(jax.nn.elu, alpha=float(layer.alpha))
    elif name == "LeakyReLU":
        function = functools.partial(jax.nn.leaky_relu, negative_slope=float(layer.negative_slope))
    else:
        most = None if layer.max_value is None else float(layer.max_value)
        slope, threshold = float(layer.negative_slope), float(layer.threshold)
        function = functools.partial(_relu, slope=slope, threshold=threshold, most=most)
    return Part(name, lambda: (nn.Passthrough(function),))


def _relu(x: Any, *, slope: float, threshold: float, most: float | None) -> Any:
    y = jnp.where(x >= threshold, x, slope * (x - threshold))
    # Kept where it is below, since the rule of `jnp.minimum` shares the gradient of a tie.
    return y if most is None else jnp.where(y < most, y, most)


@converts("PReLU")
def _prelu(layer: Any, at: KerasContext) -> Part:
    built(layer)
    shape = tuple(layer.alpha.shape)
    require(
        all(n == 1 for n in shape[:-1]),
        "its slopes differ from step to step; only `shared_axes=[1]` is supported.",
    )
    return Part("PReLU", lambda: (modules.PReLU(jnp.array(array(layer.alpha).reshape(-1))),))


@converts("Normalization")
def _normalization(layer: Any, at: KerasContext) -> Part:
    require(layer.built and layer.mean is not None, "it is not adapted to data yet.")
    mean, variance = array(layer.mean), array(layer.variance)
    require(mean.size == mean.shape[-1], "its statistics differ from step to step.")
    scale = 1 / np.maximum(np.sqrt(variance.reshape(-1)), 1e-7)  # Keras's own floor
    scale, offset = (
        (scale, -mean.reshape(-1) * scale) if not layer.invert else (1 / scale, mean.reshape(-1))
    )
    return Part("Affine", lambda: (modules.Affine(scale, offset),))


@converts("Rescaling")
def _rescaling(layer: Any, at: KerasContext) -> Part:
    dtype = np.float64 if layer.compute_dtype == "float64" else np.float32
    scale, offset = np.asarray(layer.scale, dtype), np.asarray(layer.offset, dtype)
    require(scale.ndim <= 1 and offset.ndim <= 1, "its `scale` has several axes.")
    return Part("Affine", lambda: (modules.Affine(scale, offset),))
