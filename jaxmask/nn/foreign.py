"""Flax's own layers that act on each step alone, by exact type, and JAX's activations.

A rule is `(layer, x, mask, rngs) -> pair | None`, None where this layer, as it is set up, mixes
steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors, nnx

from jaxmask import ops, random
from jaxmask._types import Array, Mask, Pair

Rule = Callable[[Any, Array, Mask, nnx.Rngs | None], Pair | None]


def _step_axes(x: Array, mask: Mask) -> int:
    return min(2, x.ndim - 1) if mask is None else mask.ndim


def _each_step(layer: Any, x: Array, mask: Mask, rngs: nnx.Rngs | None) -> Pair:
    return ops.each_step(layer, x, mask)


def _each_step_if(condition: Callable[[Any, Array, Mask], bool]) -> Rule:
    def rule(layer: Any, x: Array, mask: Mask, rngs: nnx.Rngs | None) -> Pair | None:
        return ops.each_step(layer, x, mask) if condition(layer, x, mask) else None

    return rule


def _has_features(layer: Any, x: Array, mask: Mask) -> bool:
    """Functions over the last axis, which must not be time."""
    return x.ndim > _step_axes(x, mask)


def _general_inside(layer: nnx.LinearGeneral, x: Array, mask: Mask) -> bool:
    return not layer.batch_axis and _inside(layer.axis, x, mask)


def _norm_inside(layer: Any, x: Array, mask: Mask) -> bool:
    inside = all(_inside(axes, x, mask) for axes in (layer.reduction_axes, layer.feature_axes))
    return inside and layer.axis_name is None


def _uses_running_average(layer: nnx.BatchNorm, x: Array, mask: Mask) -> bool:
    return bool(layer.use_running_average)


def _inside(axes: int | tuple[int, ...], x: Array, mask: Mask) -> bool:
    """Whether all axes are feature axes."""
    axes = (axes,) if isinstance(axes, int) else axes
    return all(axis % x.ndim >= _step_axes(x, mask) for axis in axes)


def _dropout(layer: nnx.Dropout, x: Array, mask: Mask, rngs: nnx.Rngs | None) -> Pair | None:
    if layer.deterministic or layer.rate == 0:
        return ops.fill(x, mask)
    if layer.broadcast_dims:
        return None
    stream = layer.rngs if rngs is None else rngs[layer.rng_collection]
    if stream is None:
        raise ValueError(
            "Dropout: an active `nnx.Dropout` needs a random stream: build it with `rngs=`, call "
            "the `Sequential` with `rngs=`, or turn it off with `model.eval()`."
        )
    # Flax draws noise over the padded shape, so padding would change it at real steps.
    return random.dropout(x, mask, next_key(stream), layer.rate)


def next_key(
    stream: Callable[[], Array], where: str = "Dropout", *, takes_rngs: bool = True
) -> Array:
    """Draw from a random stream, or say why it cannot advance.

    `takes_rngs`: a call of the layer `where` can be given other streams.

    Example:
      >>> next_key(nnx.Rngs(0).dropout).shape
      ()
    """
    try:
        return stream()
    except errors.TraceContextError as error:
        hint = ", or call the layer or the `Sequential` with `rngs=`" if takes_rngs else ""
        raise ValueError(
            f"{where}: the random stream of a closed-over model cannot advance inside a transform "
            "of JAX. Use `nnx.jit` and `nnx.grad`, or split and merge the model inside" + hint + "."
        ) from error


_ELEMENTWISE = (
    *(
        jax.nn.celu,
        jax.nn.elu,
        jax.nn.gelu,
        jax.nn.hard_sigmoid,
        jax.nn.hard_silu,
        jax.nn.hard_tanh,
    ),
    *(jax.nn.leaky_relu, jax.nn.log_sigmoid, jax.nn.relu, jax.nn.relu6, jax.nn.selu),
    *(jax.nn.sigmoid, jax.nn.silu, jax.nn.soft_sign, jax.nn.softplus, jax.nn.squareplus),
    *(jax.nn.mish, jax.nn.identity, jnp.tanh, jnp.sin, jnp.cos, jnp.exp, jnp.log, jnp.log1p),
    *(jnp.sqrt, jnp.square, jnp.abs, jnp.negative, jnp.sign, jnp.isnan),
)
_LAST_AXIS = (jax.nn.glu, jax.nn.softmax, jax.nn.log_softmax, jax.nn.standardize)

FLAX_LAYERS: dict[Any, Rule] = {
    **dict.fromkeys((nnx.Embed, nnx.PReLU, *_ELEMENTWISE), _each_step),
    **dict.fromkeys(
        (nnx.Linear, nnx.LoRA, nnx.LoRALinear, *_LAST_AXIS), _each_step_if(_has_features)
    ),
    **dict.fromkeys((nnx.LayerNorm, nnx.RMSNorm), _each_step_if(_norm_inside)),
    nnx.LinearGeneral: _each_step_if(_general_inside),
    nnx.BatchNorm: _each_step_if(_uses_running_average),
    nnx.Dropout: _dropout,
}
