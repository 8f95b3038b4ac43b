"""Flax's own layers that act on each step alone, by exact type, and JAX's activations.

A rule is `(layer, x, mask, given) -> pair | None`, None where this layer, as it is set up, mixes
steps; `given` are the options of the call (`jaxmask.nn._options`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import ops, random
from jaxmask._types import Array, Mask, Pair
from jaxmask.nn._options import Given, draw

Rule = Callable[[Any, Array, Mask, Given], Pair | None]


def _step_axes(x: Array, mask: Mask) -> int:
    return min(2, x.ndim - 1) if mask is None else mask.ndim


def _each_step(layer: Any, x: Array, mask: Mask, given: Given) -> Pair:
    return ops.each_step(layer, x, mask)


def _each_step_if(condition: Callable[[Any, Array, Mask], bool]) -> Rule:
    def rule(layer: Any, x: Array, mask: Mask, given: Given) -> Pair | None:
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


def _dropout(layer: nnx.Dropout, x: Array, mask: Mask, given: Given) -> Pair | None:
    if layer.deterministic or layer.rate == 0:
        return ops.fill(x, mask)
    if layer.broadcast_dims:
        return None
    if layer.rate == 1:  # which Flax allows
        return ops.fill(jnp.zeros_like(x), mask)
    key = draw(layer.rngs, given.get("rngs"), "Dropout", layer.rng_collection)
    # Flax draws noise over the padded shape, so padding would change it at real steps.
    return random.dropout(x, mask, key, layer.rate, row_ids=given.get("row_ids"))


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
