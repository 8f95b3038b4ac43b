"""What each module of `torch.nn` becomes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask._registry import registering
from jaxmask.interop import _weights as weights
from jaxmask.interop._conv import padding_of
from jaxmask.interop._layers import EmbedWithPadding
from jaxmask.interop._plan import Layer, LayerContext
from jaxmask.interop._torch_weights import entries_of

Planner = Callable[[Any, LayerContext], Layer]
PLANNERS: dict[str, Planner] = {}
planner = registering(PLANNERS)
_ZEROS = nnx.initializers.zeros
_TIME_FIRST = "takes [batch, time, features], where the source has time first."
_CHANNELS_FIRST = "takes [batch, time, features], where the source has [batch, channels, time]."


def filled(layer: Any, module: Any, at: LayerContext) -> Any:
    """A new layer with the weights of the module."""
    state = {name: weights.as_numpy(value) for name, value in module.state_dict().items()}
    for variable, names, make in entries_of(layer) or ():
        if isinstance(variable, nnx.Param | nnx.BatchStat):  # not a constant
            value = make(*(state[name] for name in names))
            weights.put(variable, value, f"from_torch: {at.name}, `{' and '.join(names)}`")
    return layer


def with_noise(at: LayerContext, rate: float) -> nnx.Rngs:
    """For a layer with weights, which are filled afterwards, and with dropout."""
    return nnx.Rngs(params=0, **({"dropout": at.rngs.dropout()} if rate else {}))


def options(module: Any, *inits: str) -> dict[str, Any]:
    """Options of a layer that is filled afterwards."""
    first = next(iter(module.parameters()), None)
    dtype = np.dtype(np.float32) if first is None else weights.as_numpy(first).dtype
    return {"param_dtype": dtype, "rngs": nnx.Rngs(0), **dict.fromkeys(inits, _ZEROS)}


@planner("Sequential")
def _sequential(module: Any, at: LayerContext) -> Layer:
    # Not `named_children`, which lists a shared module once.
    parts = tuple(at.inside(name, part) for name, part in module._modules.items())
    return at.layer("jm.nn.Sequential", nn.Sequential, parts=parts)


@planner("LSTM", "GRU", "RNN")
def _recurrent(module: Any, at: LayerContext) -> Layer:
    if getattr(module, "proj_size", 0):
        return at.refused(f"`proj_size={module.proj_size}`: projections are not supported.")
    kind: type = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.SimpleRNN}[type(module).__name__]
    words = f"jm.nn.{kind.__name__}"
    if module.bidirectional:
        words = f"jm.nn.Bidirectional of two {words}"
    if module.num_layers > 1:
        words = f"jm.nn.StackedRNN of {module.num_layers} {words}"
    notes = ["returns its outputs; `run` returns the states as well."]
    notes += [_TIME_FIRST] * (not module.batch_first)
    if module.bias and kind is not nn.GRU:
        notes.append("the two biases become one, their sum.")
    return at.layer(words, lambda: _make_recurrent(kind, module, at), notes=tuple(notes))


def _make_recurrent(kind: Any, module: Any, at: LayerContext) -> Any:
    more = options(module, "kernel_init", "recurrent_kernel_init", "bias_init")
    if kind is nn.SimpleRNN:
        more["activation"] = module.nonlinearity

    def direction(in_features: int) -> Any:
        layer = kind(in_features, module.hidden_size, **more)
        if not module.bias:  # a constant: training must not change what the source does not have
            layer.b = nnx.Variable(layer.b[...])
        return layer

    def depth(in_features: int) -> Any:
        if not module.bidirectional:
            return direction(in_features)
        return nn.Bidirectional(direction(in_features), direction(in_features))

    width = module.hidden_size * (2 if module.bidirectional else 1)
    layers = [depth(width if number else module.input_size) for number in range(module.num_layers)]
    if len(layers) > 1:
        layers = [nn.StackedRNN(*layers, dropout_rate=module.dropout, rngs=at.rngs)]
    return filled(layers[0], module, at)


@planner("Embedding")
def _embedding(module: Any, at: LayerContext) -> Layer:
    for name in ("max_norm", "scale_grad_by_freq"):
        if getattr(module, name):
            return at.refused(f"`{name}={getattr(module, name)}` is not supported.")
    padding = module.padding_idx
    words = "jm.nn.Embed"
    if padding is not None:
        words += f", padding id {padding} where no mask is given"
    differs = []
    if padding is not None and weights.as_numpy(module.weight)[padding].any():
        differs.append(
            f"the vector of `padding_idx={padding}` is not 0 in the source; here padding is "
            "0 where no mask is given."
        )

    def make() -> nn.Embed:
        sizes = module.num_embeddings, module.embedding_dim
        more = options(module, "embedding_init")
        if padding is None:
            return filled(nn.Embed(*sizes, **more), module, at)
        return filled(EmbedWithPadding(*sizes, padding_id=padding, **more), module, at)

    return at.layer(words, make, differs=tuple(differs))


@planner("Linear")
def _linear(module: Any, at: LayerContext) -> Layer:
    return at.layer("nnx.Linear", lambda: make_linear(module, at))


def make_linear(module: Any, at: LayerContext) -> nnx.Linear:
    sizes = module.in_features, module.out_features
    layer = nnx.Linear(*sizes, use_bias=module.bias is not None, **options(module, "kernel_init"))
    return filled(layer, module, at)


@planner("LayerNorm", "RMSNorm")
def _norm_of_features(module: Any, at: LayerContext) -> Layer:
    if len(module.normalized_shape) != 1:
        shape = tuple(module.normalized_shape)
        return at.refused(f"`normalized_shape={shape}`: only the last axis is supported.")
    kind = type(module).__name__
    return at.layer(f"jm.nn.{kind}", lambda: make_norm(getattr(nn, kind), module, at))


def make_norm(kind: Any, module: Any, at: LayerContext, **more: Any) -> Any:
    """A normalisation of the last axis of each step."""
    more |= options(module)
    epsilon = module.eps
    if epsilon is None:  # of an RMSNorm
        epsilon = float(jnp.finfo(more["param_dtype"]).eps)
    affine = module.weight is not None
    if kind in (nn.LayerNorm, nnx.LayerNorm):
        more["use_bias"] = module.bias is not None
    size = module.normalized_shape[0]
    return filled(kind(size, epsilon=epsilon, use_scale=affine, **more), module, at)


@planner("GroupNorm", "InstanceNorm1d", "BatchNorm1d")
def _norm_over_time(module: Any, at: LayerContext) -> Layer:
    kind = type(module).__name__.removesuffix("1d")
    size = module.num_channels if kind == "GroupNorm" else module.num_features
    more: dict[str, Any] = {"epsilon": module.eps, "use_scale": module.affine}
    more["use_bias"] = module.affine
    differs = []
    if kind == "GroupNorm":
        more["num_groups"] = module.num_groups
    elif kind == "InstanceNorm" and module.track_running_stats:
        return at.refused("`track_running_stats=True` is not supported.")
    elif kind == "BatchNorm":
        if not module.track_running_stats or module.momentum is None:
            return at.refused(
                "`track_running_stats=False` and `momentum=None` are not supported: evaluation "
                "needs running averages with a fixed momentum."
            )
        more["momentum"] = 1 - module.momentum
        differs.append(
            "in training the running variance is that of the real steps; the source counts padding "
            "too, and divides by n - 1."
        )

    def make() -> Any:
        return filled(getattr(nn, kind)(size, **more, **options(module)), module, at)

    return at.layer(f"jm.nn.{kind}", make, notes=(_CHANNELS_FIRST,), differs=tuple(differs))


@planner("Conv1d")
def _conv(module: Any, at: LayerContext) -> Layer:
    (size,), (stride,), (dilation,) = module.kernel_size, module.stride, module.dilation
    reach = (size - 1) * dilation
    pad = module.padding
    pad = pad if isinstance(pad, str) else padding_of(pad[0], pad[0], reach)
    more: dict[str, Any] = {"padding": pad, "padding_mode": module.padding_mode}
    more |= {"strides": stride, "dilation": dilation, "groups": module.groups}
    more["use_bias"] = module.bias is not None

    def make() -> Any:
        made = options(module, "kernel_init") | more
        return filled(nn.Conv1D(module.in_channels, module.out_channels, size, **made), module, at)

    return at.layer(f"jm.nn.Conv1D, padding {pad!r}", make, notes=(_CHANNELS_FIRST,))


@planner("Dropout", "Dropout1d")
def _dropout(module: Any, at: LayerContext) -> Layer:
    if module.p == 1:
        return at.refused("`p=1` leaves nothing, and is not supported.")
    kind = nn.Dropout if type(module).__name__ == "Dropout" else nn.SpatialDropout
    make = partial(kind, float(module.p), rngs=at.rngs)
    notes = () if kind is nn.Dropout else (_CHANNELS_FIRST,)
    return at.layer(f"jm.nn.{kind.__name__}", make, notes=notes)


@planner("MultiheadAttention")
def _attention(module: Any, at: LayerContext) -> Layer:
    if module.bias_k is not None or module.add_zero_attn:
        return at.refused("`add_bias_kv` and `add_zero_attn` are not supported.")
    width = module.embed_dim
    if (module.kdim, module.vdim) != (width, width):
        return at.refused(
            f"`kdim={module.kdim}`, `vdim={module.vdim}`: this is attention to another sequence. "
            "Build `jm.nn.CrossAttention(num_heads, in_features, memory_features, rngs=rngs)` and "
            "fill it with `jm.interop.load_state_dict`."
        )
    notes = [
        "attends to its own sequence and returns no weights; for another sequence, fill a "
        "`jm.nn.CrossAttention` with `jm.interop.load_state_dict`.",
        *[_TIME_FIRST] * (not module.batch_first),
    ]
    make = partial(make_attention, module, at)
    return at.layer("jm.nn.MultiHeadAttention", make, notes=(*notes, *_causal(at)))


def make_attention(module: Any, at: LayerContext) -> nn.MultiHeadAttention:
    more = options(module, "kernel_init")
    more |= {"dropout_rate": module.dropout, "causal": at.causal}
    more |= {"use_bias": module.in_proj_bias is not None, "rngs": with_noise(at, module.dropout)}
    return filled(nn.MultiHeadAttention(module.num_heads, module.embed_dim, **more), module, at)


def _causal(at: LayerContext) -> list[str]:
    text = "sees later steps too; PyTorch passes a causal mask at the call: `causal=True` here."
    return [] if at.causal else [text]


@planner("TransformerEncoderLayer")
def _encoder_layer(module: Any, at: LayerContext) -> Layer:
    parts = ("self_attn", "linear1", "linear2", "norm1", "norm2")
    for part in (at.inside(name, getattr(module, name)) for name in parts):
        if part.refused:
            return part
    rates = {d.p for d in (module.dropout, module.dropout1, module.dropout2)}
    rates.add(module.self_attn.dropout)
    if len(rates) > 1 or 1 in rates:
        return at.refused(f"its dropout rates are {sorted(rates)}; one rate below 1 is supported.")
    activation = _activation_of(module, at)
    if activation is None:
        return at.refused("its activation is not supported.")
    differs = ["in training no dropout follows the activation."] if max(rates) else []
    notes = [_TIME_FIRST] * (not module.self_attn.batch_first) + _causal(at)

    def make() -> nn.TransformerEncoderBlock:
        sizes = module.self_attn.num_heads, module.linear1.in_features, module.linear1.out_features
        more: dict[str, Any] = {"norm_first": module.norm_first, "activation": activation}
        more |= {"dropout_rate": max(rates), "causal": at.causal}
        more["rngs"] = with_noise(at, max(rates))
        block = nn.TransformerEncoderBlock(*sizes, **more)
        block.attention = make_attention(module.self_attn, at)
        block.mlp_in = make_linear(module.linear1, at)
        block.mlp_out = make_linear(module.linear2, at)
        block.attention_norm = make_norm(nnx.LayerNorm, module.norm1, at)
        block.mlp_norm = make_norm(nnx.LayerNorm, module.norm2, at)
        return block

    return at.layer(
        "jm.nn.TransformerEncoderBlock", make, notes=tuple(notes), differs=tuple(differs)
    )


def _activation_of(module: Any, at: LayerContext) -> Callable[..., Any] | None:
    """Of a transformer layer, whose own flag says which function of PyTorch it is."""
    f = module.activation
    if type(f).__module__.startswith("torch.nn.modules."):
        kind = type(f).__name__
        if kind in _ACTIVATIONS:
            return _ACTIVATIONS[kind]
        return _WITH_OPTIONS[kind](f) if kind in _ELEMENTWISE else None
    known: dict[int, Callable[..., Any]] = {
        1: jax.nn.relu,
        2: partial(jax.nn.gelu, approximate=False),
    }
    return known.get(module.activation_relu_or_gelu)


@planner("TransformerEncoder")
def _encoder(module: Any, at: LayerContext) -> Layer:
    parts = [at.inside(f"layers.{number}", part) for number, part in enumerate(module.layers)]
    if module.norm is not None:
        parts.append(at.inside("norm", module.norm))
    return at.layer("jm.nn.Sequential", nn.Sequential, parts=tuple(parts))


def _softplus(x: Any, *, beta: float, threshold: float) -> Any:
    # PyTorch is linear from there on, which shows where the threshold is far below its default, 20.
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "ReLU": jax.nn.relu,
    "ReLU6": jax.nn.relu6,
    "Tanh": jnp.tanh,
    "Sigmoid": jax.nn.sigmoid,
    "LogSigmoid": jax.nn.log_sigmoid,
    "SiLU": jax.nn.silu,
    "Mish": jax.nn.mish,
    "SELU": jax.nn.selu,
    "Softsign": jax.nn.soft_sign,
    "Hardsigmoid": jax.nn.hard_sigmoid,
    "Hardswish": jax.nn.hard_silu,
    "Identity": jax.nn.identity,
}


_WITH_OPTIONS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "GELU": lambda m: partial(jax.nn.gelu, approximate=m.approximate == "tanh"),
    "ELU": lambda m: partial(jax.nn.elu, alpha=m.alpha),
    "CELU": lambda m: partial(jax.nn.celu, alpha=m.alpha),
    "LeakyReLU": lambda m: partial(jax.nn.leaky_relu, negative_slope=m.negative_slope),
    "Softplus": lambda m: partial(_softplus, beta=m.beta, threshold=m.threshold),
    "GLU": lambda m: partial(jax.nn.glu, axis=-1),
    "Softmax": lambda m: partial(jax.nn.softmax, axis=-1),
    "LogSoftmax": lambda m: partial(jax.nn.log_softmax, axis=-1),
}


_ELEMENTWISE = ("GELU", "ELU", "CELU", "LeakyReLU", "Softplus")


@planner(*_ACTIVATIONS, *_WITH_OPTIONS)
def _activation(module: Any, at: LayerContext) -> Layer:
    kind = type(module).__name__
    if kind in _ACTIVATIONS:
        f = _ACTIVATIONS[kind]
        return at.layer(f.__name__, lambda: f)
    if getattr(module, "dim", -1) != -1:
        return at.refused(f"`dim={module.dim}`: only the last axis, `dim=-1`, is supported.")
    return at.layer(kind, lambda: nn.Passthrough(_WITH_OPTIONS[kind](module)))
