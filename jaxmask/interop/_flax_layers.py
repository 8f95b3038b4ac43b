"""What each module of Flax becomes; NNX and Linen have most names of options in common."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask._registry import registering
from jaxmask.interop import _weights as weights
from jaxmask.interop._conv import padding_of
from jaxmask.interop._layers import FlaxGRU
from jaxmask.interop._plan import Layer, LayerContext

Weights = Mapping[str, Any]
Planner = Callable[[Any, "FlaxContext"], Layer]
PLANNERS: dict[str, Planner] = {}
planner = registering(PLANNERS)
CONTAINERS = ("Sequential", "Bidirectional")
_ZEROS = nnx.initializers.zeros
_RETURNS = "returns its outputs; `run` returns the carry as well."


@dataclasses.dataclass(frozen=True)
class FlaxContext(LayerContext):
    """A layer's place in the model, and its variables."""

    params: Weights = dataclasses.field(default_factory=dict)
    batch_stats: Weights = dataclasses.field(default_factory=dict)

    def holding(self, module: nnx.Module) -> "FlaxContext":
        """The same place with the variables of an NNX module."""
        params, stats = (
            nnx.to_pure_dict(nnx.state(module, kind)) for kind in (nnx.Param, nnx.BatchStat)
        )
        return dataclasses.replace(self, params=params, batch_stats=stats)

    def into(self, key: str, layer: Any, *, name: str | None = None) -> Layer:
        """The plan of a layer inside this one; `key`: where Linen has its variables."""
        held = {n: getattr(self, n).get(key, {}) for n in ("params", "batch_stats")}
        return dataclasses.replace(self, **held).inside(name or key, layer)

    def filled(self, layer: Any, **arrays: Any) -> Any:
        """A new layer with its variables set, each by the name of its attribute."""
        for name, array in arrays.items():
            if array is not None:
                weights.put(getattr(layer, name), array, f"from_flax: {self.name}, `{name}`")
        return layer


def options(module: Any, array: Any, *inits: str) -> dict[str, Any]:
    """Options of a layer that is filled afterwards; `array`: one that it will hold."""
    made = {"param_dtype": jnp.float32 if array is None else array.dtype, "rngs": nnx.Rngs(0)}
    return {"dtype": module.dtype, **made, **dict.fromkeys(inits, _ZEROS)}


@planner("Sequential")
def _sequential(module: Any, at: FlaxContext) -> Layer:
    is_nnx = isinstance(module, nnx.Module)
    parts = [
        at.into(f"layers_{i}", part, name=f"layers.{i}" if is_nnx else None)
        for i, part in enumerate(module.layers)
    ]
    return at.layer("jm.nn.Sequential", nn.Sequential, parts=tuple(parts))


_FUNCTIONS = (
    *("celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"),
    *("log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign"),
    *("softplus", "squareplus", "identity", "tanh", "sin", "cos", "exp", "sqrt", "square", "abs"),
    *("glu", "softmax", "log_softmax", "standardize"),
)


def plan_function(f: Any, at: LayerContext) -> Layer:
    """The plan of a JAX function; only known ones act on each step independently."""
    inner = f.func if isinstance(f, functools.partial) else f
    name = getattr(inner, "__name__", type(inner).__name__)
    at = at.of(f"function {name}")
    known = name in _FUNCTIONS and inner in (getattr(jax.nn, name, None), getattr(jnp, name, None))
    if not known or (inner is not f and (f.args or "axis" in f.keywords)):
        return at.refused(
            "it is not one of the JAX functions known to act on each step independently."
        )
    return at.layer(name, lambda: f if inner is f else nn.Passthrough(f))


@planner("Linear", "Dense")
def _linear(module: Any, at: FlaxContext) -> Layer:
    kernel, bias = at.params["kernel"], at.params.get("bias")
    features = getattr(module, "features", kernel.shape[-1])

    def make() -> nnx.Linear:
        more = options(module, kernel, "kernel_init") | {"use_bias": bias is not None}
        layer = nnx.Linear(kernel.shape[0], features, **more)
        return at.filled(layer, kernel=kernel, bias=bias)

    return at.layer("nnx.Linear", make)


@planner("Embed")
def _embed(module: Any, at: FlaxContext) -> Layer:
    table = at.params["embedding"]

    def make() -> nn.Embed:
        sizes = module.num_embeddings, module.features
        return at.filled(
            nn.Embed(*sizes, **options(module, table, "embedding_init")), embedding=table
        )

    return at.layer("jm.nn.Embed", make)


@planner("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "BatchNorm")
def _norm(module: Any, at: FlaxContext) -> Layer:
    kind = type(module).__name__
    for name, usual in (("reduction_axes", (-1, (-1,), None)), ("feature_axes", (-1, (-1,)))):
        if getattr(module, name, -1) not in usual:
            return at.refused(f"`{name}={getattr(module, name)}`: only -1 is supported.")
    if getattr(module, "axis", -1) != -1 or module.axis_name is not None:
        return at.refused("`axis` and `axis_name` are not supported.")
    arrays = {"scale": at.params.get("scale"), "bias": at.params.get("bias")}
    if kind == "BatchNorm":
        arrays |= {"mean": at.batch_stats["mean"], "var": at.batch_stats["var"]}
    first = next((array for array in arrays.values() if array is not None), None)
    size = getattr(module, "num_features", None) if first is None else first.shape[0]
    if size is None:
        return at.refused("without scale and bias its number of features is unknown.")
    more: dict[str, Any] = {"epsilon": module.epsilon, "use_scale": arrays["scale"] is not None}
    if kind != "RMSNorm":
        more["use_bias"] = arrays["bias"] is not None
    if kind == "GroupNorm":
        more["num_groups"] = module.num_groups or size // module.group_size
    if kind == "BatchNorm":
        more["momentum"] = module.momentum

    def make() -> Any:
        return at.filled(getattr(nn, kind)(size, **more, **options(module, first)), **arrays)

    differs = "in training the statistics are those of the real steps, without padding."
    return at.layer(f"jm.nn.{kind}", make, differs=(differs,) * (kind == "BatchNorm"))


@planner("Conv")
def _conv(module: Any, at: FlaxContext) -> Layer:
    kernel, bias = at.params["kernel"], at.params.get("bias")
    if kernel.ndim != 3 or _one(module.input_dilation) != 1 or module.mask is not None:
        return at.refused(
            "only convolutions over time are supported, with a `kernel_size` of one number, and "
            "without `input_dilation` and `mask`, which masks the kernel."
        )
    stride, dilation = _one(module.strides) or 1, _one(module.kernel_dilation) or 1
    padding, mode = _padding(module.padding, (kernel.shape[0] - 1) * dilation)
    if padding is None:
        return at.refused(f"`padding={module.padding!r}`: jaxmask has no such padding.")

    def make() -> Any:
        groups = module.feature_group_count
        sizes = kernel.shape[1] * groups, kernel.shape[2], kernel.shape[0]
        more = options(module, kernel, "kernel_init") | {"use_bias": bias is not None}
        more |= {"padding": padding, "padding_mode": mode, "strides": stride, "dilation": dilation}
        return at.filled(nn.Conv1D(*sizes, groups=groups, **more), kernel=kernel, bias=bias)

    differs = (
        "padding SAME with strides: in the source the window offset depends on the padded length; "
        "here windows start (kernel - 1) // 2 steps before the row, at any length."
    )
    moves = module.padding == "SAME" and stride > 1
    return at.layer(f"jm.nn.Conv1D, padding {padding!r}", make, differs=(differs,) * moves)


def _padding(padding: Any, reach: int) -> tuple[Any, str]:
    """`padding`, None where it is not known, and `padding_mode`."""
    if isinstance(padding, str):
        if padding in ("CIRCULAR", "REFLECT"):
            return padding_of(reach // 2, (reach + 1) // 2, reach), padding.lower()
        return {"SAME": "same", "VALID": "valid", "CAUSAL": "causal"}.get(padding), "zeros"
    ends = _one(padding)
    low, high = (ends, ends) if isinstance(ends, int) else ends
    return padding_of(low, high, reach), "zeros"


def _one(value: Any) -> Any:
    """An option of the one axis, given as it is or in a sequence of one."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


@planner("Dropout")
def _dropout(module: Any, at: FlaxContext) -> Layer:
    dims = tuple(module.broadcast_dims)
    if module.rate == 1 or dims not in ((), (1,), (-2,)):
        return at.refused(f"`rate={module.rate}`, `broadcast_dims={dims}` is not supported.")
    kind = nn.SpatialDropout if dims else nn.Dropout
    make = functools.partial(kind, float(module.rate), rngs=at.rngs)
    return at.layer(f"jm.nn.{kind.__name__}", make)


@planner("MultiHeadAttention", "MultiHeadDotProductAttention", "SelfAttention")
def _attention(module: Any, at: FlaxContext) -> Layer:
    if module.normalize_qk or module.attention_fn.__name__ != "dot_product_attention":
        return at.refused("`normalize_qk` and an `attention_fn` of your own are not supported.")
    names = ("query", "key", "value", "out")
    parts = {name: at.params[name] for name in names}
    query, key, out = (parts[name]["kernel"] for name in ("query", "key", "out"))
    if query.shape[0] != key.shape[0]:
        return at.refused(
            f"queries have {query.shape[0]} features and keys {key.shape[0]}: this is attention to "
            "another sequence, `jm.nn.CrossAttention`, whose parameters have the same names."
        )

    def make() -> nn.MultiHeadAttention:
        noise = {"dropout": at.rngs.dropout()} if module.dropout_rate else {}
        more = options(module, query, "kernel_init") | {"rngs": nnx.Rngs(params=0, **noise)}
        more |= {"num_kv_heads": key.shape[1], "use_bias": "bias" in parts["query"]}
        more |= {"causal": at.causal, "dropout_rate": module.dropout_rate}
        heads, size = query.shape[1:]
        sizes = heads, query.shape[0], heads * size, out.shape[-1]
        layer = nn.MultiHeadAttention(*sizes, **more)
        for name, held in parts.items():
            at.filled(getattr(layer, name), **held)
        return layer

    notes = [] if at.causal else ["sees later steps too; a causal mask is `causal=True` here."]
    notes.append("attends to its own sequence, and drops weights one by one in training.")
    return at.layer("jm.nn.MultiHeadAttention", make, notes=tuple(notes))


@planner("RNN")
def _rnn(module: Any, at: FlaxContext) -> Layer:
    reverse = bool(module.reverse)
    layer = _of_cell(module.cell, at, at.params.get("cell", {}), reverse)
    notes = (_RETURNS, *["takes [batch, time, features]: time second."] * bool(module.time_major))
    if not reverse or module.keep_order or layer.make is None:
        return dataclasses.replace(layer, notes=notes)
    make = layer.make  # the source leaves the outputs in processing order
    return dataclasses.replace(
        layer,
        becomes=f"{layer.becomes}, and jm.nn.Flip",
        make=lambda: nn.Sequential(make(), nn.Flip()),
        notes=notes,
    )


@planner("Bidirectional")
def _bidirectional(module: Any, at: FlaxContext) -> Layer:
    merges = {"_concatenate": "concat", "add": "sum", "multiply": "mul"}
    name = getattr(module.merge_fn, "__name__", "")
    if name not in merges:
        return at.refused("`merge_fn`: concatenation, `jnp.add` and `jnp.multiply` are supported.")
    parts = []
    for direction in ("forward_rnn", "backward_rnn"):
        rnn = getattr(module, direction)
        if type(rnn).__name__ != "RNN":
            return at.refused(f"`{direction}` is not an `RNN`.")
        params = at.params.get(direction, {}).get("cell", {})
        source = at.source.replace("Bidirectional", "RNN")
        path = f"{at.path}.{direction}".lstrip(".")
        place = dataclasses.replace(at, path=path, source=source)
        parts.append(_of_cell(rnn.cell, place, params, False))
    make = functools.partial(nn.Bidirectional, merge=merges[name])
    notes = ["takes [batch, time, features]: time second."] * bool(module.time_major)
    return at.layer("jm.nn.Bidirectional", make, parts=tuple(parts), notes=tuple(notes))


@planner("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell")
def _cell(module: Any, at: FlaxContext) -> Layer:
    layer = _of_cell(module, at, at.params, False)
    notes = ("a cell becomes the layer that runs it over time.", _RETURNS)
    return dataclasses.replace(layer, notes=notes)


def _of_cell(cell: Any, at: FlaxContext, params: Weights, reverse: bool) -> Layer:
    """The layer that runs a cell over time."""
    kind = type(cell).__name__
    is_plain = type(cell).__module__.startswith("flax.") and _is_usual(cell)
    if kind in _READERS and is_plain:
        w_x, w_h, b = _READERS[kind](params)
        make = functools.partial(_make_gated, kind, cell, at, (w_x, w_h, b), reverse)
        words = {"GRUCell": "GRU", "SimpleCell": "SimpleRNN"}.get(kind, "LSTM")
        return at.layer(f"jm.nn.{words}", make)
    if isinstance(cell, nnx.Module):
        clone: Any = nnx.clone
        return at.layer(f"jm.nn.RNN of {kind}", lambda: nn.RNN(clone(cell), reverse=reverse))
    return at.refused(f"its cell, {kind} with these functions, is supported in NNX only.")


def _is_usual(cell: Any) -> bool:
    """Whether a cell computes what the layers of jaxmask do."""
    usual: dict[str, tuple[Any, ...]] = {"gate_fn": (jax.nn.sigmoid,), "activation_fn": (jnp.tanh,)}
    if type(cell).__name__ == "SimpleCell":
        usual = {"activation_fn": (jnp.tanh, jax.nn.relu)}
    functions = all(getattr(cell, name, None) in known for name, known in usual.items())
    starts = getattr(cell.carry_init, "__name__", "zeros") == "zeros" or cell.carry_init is None
    return functions and starts and not getattr(cell, "residual", False)


def _make_gated(
    kind: str, cell: Any, at: FlaxContext, arrays: tuple[np.ndarray, ...], reverse: bool
) -> Any:
    w_x, w_h, b = arrays
    inits = ("kernel_init", "recurrent_kernel_init", "bias_init")
    more = options(cell, w_x, *inits) | {"reverse": reverse}
    make: Any = nn.LSTM
    if kind == "SimpleCell":
        make = nn.SimpleRNN
        more["activation"] = "relu" if cell.activation_fn is jax.nn.relu else "tanh"
    elif kind == "GRUCell":
        make, more["bias_features"] = FlaxGRU, b.shape[0]
    return at.filled(make(w_x.shape[0], w_h.shape[0], **more), w_x=w_x, w_h=w_h, b=b)


def _side_by_side(params: Weights, names: tuple[str, ...], leaf: str) -> np.ndarray:
    return np.concatenate([np.asarray(params[name][leaf]) for name in names], axis=-1)


def _lstm(params: Weights) -> tuple[np.ndarray, ...]:
    if "dense_i" in params:
        hidden = params["dense_h"]
        return params["dense_i"]["kernel"], hidden["kernel"], hidden["bias"]
    forget = "if_" if "if_" in params else "if"
    hidden = ("hi", "hf", "hg", "ho")
    inputs = _side_by_side(params, ("ii", forget, "ig", "io"), "kernel")
    return inputs, *(_side_by_side(params, hidden, leaf) for leaf in ("kernel", "bias"))


def _gru(params: Weights) -> tuple[np.ndarray, ...]:
    """Linen has a bias inside the reset product too, and NNX has none."""
    if "dense_i" in params:
        inputs = params["dense_i"]
        return inputs["kernel"], params["dense_h"]["kernel"], inputs["bias"]
    inputs = ("ir", "iz", "in")
    w_x, b = (_side_by_side(params, inputs, leaf) for leaf in ("kernel", "bias"))
    inside = np.asarray(params["hn"]["bias"])
    return w_x, _side_by_side(params, ("hr", "hz", "hn"), "kernel"), np.concatenate([b, inside])


def _simple(params: Weights) -> tuple[np.ndarray, ...]:
    inputs, hidden = ("dense_i", "dense_h") if "dense_i" in params else ("i", "h")
    return params[inputs]["kernel"], params[hidden]["kernel"], params[inputs]["bias"]


_READERS: dict[str, Callable[[Weights], tuple[np.ndarray, ...]]] = {
    **dict.fromkeys(("LSTMCell", "OptimizedLSTMCell"), _lstm),
    "GRUCell": _gru,
    "SimpleCell": _simple,
}
