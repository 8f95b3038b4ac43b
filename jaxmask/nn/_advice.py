"""What to suggest instead of a layer that gets a mask and does not support masks."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

_STEP_AXIS = "keep to feature axes; time has no fixed size under a mask"
_FEATURE_AXIS = "give `x` a feature axis, `x[..., None]`: its last axis is time"

# By the class of a layer or a class above it; Linen's classes are found by the same names.
_LAYERS: dict[type, str] = {
    nnx.RNN: "`jm.nn.RNN(cell)`",
    nnx.RNNCellBase: "`jm.nn.RNN(cell)`, which runs the cell over time",
    nnx.Bidirectional: "`jm.nn.Bidirectional(jm.nn.RNN(cell), jm.nn.RNN(other_cell))`",
    nnx.MultiHeadAttention: "`jm.nn.MultiHeadAttention(num_heads, in_features, rngs=rngs)`, or "
    "`jm.nn.RaggedVmap(layer)`, which runs it on each row without its padding",
    nnx.Conv: "`jm.nn.Conv1D(in_features, out_features, kernel_size, rngs=rngs)` (or `Conv2D`, "
    "`DepthwiseConv1D`)",
    nnx.ConvTranspose: "`jm.nn.ConvTranspose1D(in_features, out_features, kernel_size, rngs=rngs)`",
    nnx.BatchNorm: "`jm.nn.BatchNorm(num_features, rngs=rngs)`, whose statistics are those of the "
    "real steps",
    nnx.GroupNorm: "`jm.nn.GroupNorm(num_features, num_groups, rngs=rngs)`",
    nnx.InstanceNorm: "`jm.nn.InstanceNorm(num_features, rngs=rngs)`",
    nnx.LayerNorm: "`jm.nn.LayerNorm(num_features, rngs=rngs)` for the features of each step, or "
    "`jm.nn.GroupNorm(num_features, 1, rngs=rngs)` for the features and steps of each row",
    nnx.RMSNorm: "`jm.nn.RMSNorm(num_features, rngs=rngs)`, for the features of each step",
    nnx.SpectralNorm: "`jm.nn.SpectralNorm(layer, rngs=rngs)`, around the layer inside",
    nnx.WeightNorm: "a masked layer with normalised weights; around a layer that acts on each "
    "step alone, `jm.nn.Passthrough` is right",
    nnx.Dropout: "`jm.nn.SpatialDropout(dropout_rate, rngs=rngs)`, which drops a feature at every "
    "step of a row",
    nnx.Sequential: "`jm.nn.Sequential(*layers)`",
    nnx.LinearGeneral: f"`nnx.LinearGeneral(..., axis=-1)`: {_STEP_AXIS}",
    nnx.Linear: f"the same layer, and {_FEATURE_AXIS}",
    nnx.LoRA: f"the same layer, and {_FEATURE_AXIS}",
}

# By name, since Linen has layers that NNX does not have.
_LINEN: dict[str, str] = {
    "SelfAttention": _LAYERS[nnx.MultiHeadAttention],
    "MultiHeadDotProductAttention": _LAYERS[nnx.MultiHeadAttention],
    "ConvLocal": _LAYERS[nnx.Conv],
    "Dense": "`nnx.Linear(in_features, out_features, rngs=rngs)`, which needs no wrapper",
    "DenseGeneral": f"`nnx.LinearGeneral(..., axis=-1)`: {_STEP_AXIS}",
    "Embed": "`jm.nn.Embed(num_embeddings, features, rngs=rngs)`",
    "PReLU": "`nnx.PReLU()`, which needs no wrapper",
}

_FUNCTIONS: dict[Any, str] = {
    nnx.avg_pool: "`jm.nn.AvgPool1D(window)`",
    nnx.max_pool: "`jm.nn.MaxPool1D(window)`",
    nnx.min_pool: "`jm.nn.MinPool1D(window)`",
    nnx.dot_product_attention: "`jm.attention.attend`, in `jm.nn.MultiHeadAttention`",
    jax.nn.dot_product_attention: "`jm.attention.attend`, in `jm.nn.MultiHeadAttention`",
    jax.nn.softmax: "`jm.ops.softmax`, over time",
    jax.nn.log_softmax: "`jm.ops.log_softmax`, over time",
    jax.nn.logsumexp: "`jm.ops.logsumexp`, over time",
    jax.nn.standardize: "`jm.nn.Standardize()`, over time",
    jax.nn.glu: f"the same function, and {_FEATURE_AXIS}",
    jnp.mean: "`jm.nn.GlobalMeanPool()`",
    jnp.average: "`jm.nn.GlobalMeanPool()`",
    jnp.max: "`jm.nn.GlobalMaxPool()`",
    jnp.min: "`jm.nn.GlobalMinPool()`",
    jnp.sum: "`jm.nn.GlobalSumPool()`",
    jnp.flip: "`jm.nn.Flip()`, which reverses each row within its real steps",
    jnp.cumsum: "`jm.ops.cumsum`",
    jnp.roll: "`jm.ops.shift`",
    jnp.repeat: "`jm.nn.Upsample(size)`",
    jnp.pad: "`jm.nn.Pad(padding)`",
    jnp.ravel: "`jm.nn.Flatten()`",
    jnp.reshape: "`jm.nn.Reshape(feature_shape)`",
    jnp.transpose: "`jm.nn.Permute(axes)`",
}


def instead(layer: Any) -> str | None:
    """The masked layer or function that replaces one that mixes steps, if jaxmask knows it."""
    if isinstance(layer, functools.partial):
        return instead(layer.func)
    try:
        if layer in _FUNCTIONS:
            return _FUNCTIONS[layer]
    except TypeError:  # not hashable
        return None
    if (module := _of_linen(layer)) is not None:
        return instead(module)
    ancestors = type(layer).__mro__
    found = next((_LAYERS[kind] for kind in ancestors if kind in _LAYERS), None)
    if found is None and any(kind.__module__.startswith("flax.linen") for kind in ancestors):
        names = {kind.__name__: text for kind, text in _LAYERS.items()} | _LINEN
        found = next((names[kind.__name__] for kind in ancestors if kind.__name__ in names), None)
    return found


def ways(layer: Any) -> str:
    """The remedies for a layer that does not support masks, the safest first."""
    known = instead(layer)
    mixes = (
        "it mixes the steps of a row: `jm.nn.RaggedVmap(layer)` runs it on each row without its "
        "padding (`RaggedVmap(layer, batched=True)` if it is written for `[batch, time, ...]`)"
        if known is None
        else f"jaxmask has it with a mask: {known}"
    )
    lines = (
        mixes,
        f"it acts on each step alone: `jm.nn.Passthrough(layer)`{_registered(layer)}",
        "it consumes the mask: `jm.nn.Consume(f)` with `f(x, mask) -> y`",
        "it changes the mask: let it be `(x, mask) -> (y, mask)`, with `mask` the name of its "
        "second positional parameter",
        "the mask should end before it: put `jm.nn.DropMask()` there",
    )
    return ";\n".join(f"  - {line}" for line in lines) + "."


def _registered(layer: Any) -> str:
    """How to register a layer that acts on each step alone: by its type, or by its name."""
    if not holds_any_function(type(layer)):
        return (
            f", or once for its type, `jm.nn.register({type(layer).__name__}, jm.nn.Passthrough)`"
        )
    name = getattr(inspect.unwrap(layer), "__name__", "")
    if not name.isidentifier():  # a lambda, a partial
        return ", or once for this function, `jm.nn.register(f, jm.nn.Passthrough)` and then `f`"
    return f", or once for this function, `jm.nn.register({name}, jm.nn.Passthrough)`"


def holds_any_function(kind: type) -> bool:
    """Whether a type is shared by unrelated functions, and so says nothing about any of them."""
    owner = kind.__module__.partition(".")[0]
    foreign = owner in ("builtins", "functools", "types", "numpy", "jax", "jaxlib")
    return foreign or kind.__module__.startswith(("flax.nnx.transforms", "flax.nnx.bridge"))


def refuse_kind(kind: type) -> None:
    """Refuse the type of all functions: one rule for it would apply to every function."""
    if holds_any_function(kind):
        raise TypeError(
            f"register: `layer` must be a layer's class or one function, got `{kind.__name__}`, "
            "the type of functions and layers of every kind, which would all join by one rule. "
            "Register the function itself, `jm.nn.register(f, jm.nn.Passthrough)`, or wrap the "
            "layer itself, `jm.nn.Passthrough(layer)`."
        )


def _of_linen(layer: Any) -> Any:
    """The Linen module inside `flax.nnx.bridge.ToNNX`, whose class is not imported to ask."""
    if not type(layer).__module__.startswith("flax.nnx.bridge"):
        return None
    attributes = vars(layer)
    return attributes.get("to_nnx__module", attributes.get("module"))
