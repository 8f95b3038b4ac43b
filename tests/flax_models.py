"""Flax models drawn at random, NNX and Linen, each as a function of one row."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

FEATURES = 4
ANY, CONTIGUOUS = ("right", "left", "holes"), ("right", "left")


@dataclasses.dataclass
class Model:
    """A model, its parameters, and what it makes of `[1, time, features]`."""

    source: Callable[[Any], tuple[Any, ...]]  # arguments of `from_flax`, for given parameters
    params: Any
    run: Callable[[Any, jax.Array], jax.Array]
    layouts: tuple[str, ...]
    causal: bool = False


def nnx_cell(draw, width, rngs):
    hidden, kind = int(draw.integers(1, 5)), draw.choice(["LSTM", "Optimized", "GRU", "Simple"])
    if kind == "Simple":
        more = {"activation_fn": [nnx.tanh, nnx.relu][draw.integers(2)]}
        return nnx.SimpleCell(width, hidden, residual=bool(draw.random() < 0.3), rngs=rngs, **more)
    if kind == "LSTM" and draw.random() < 0.2:  # which no fast layer has
        return nnx.LSTMCell(width, hidden, activation_fn=nnx.relu, rngs=rngs)
    kinds = {"LSTM": nnx.LSTMCell, "Optimized": nnx.OptimizedLSTMCell, "GRU": nnx.GRUCell}
    return kinds[kind](width, hidden, rngs=rngs)


def nnx_recurrent(draw, rngs):
    if draw.random() < 0.4:
        cells = (nnx.RNN(nnx_cell(draw, FEATURES, rngs)) for _ in range(2))
        return nnx.Bidirectional(*cells), {}
    more = {"reverse": bool(draw.random() < 0.5), "keep_order": bool(draw.random() < 0.5)}
    return nnx.RNN(nnx_cell(draw, FEATURES, rngs), **more), {}


def nnx_steps(draw, rngs):
    norms = [
        nnx.LayerNorm(6, use_bias=bool(draw.random() < 0.5), epsilon=1e-3, rngs=rngs),
        nnx.RMSNorm(6, rngs=rngs),
        nnx.BatchNorm(6, use_running_average=True, rngs=rngs),
    ]
    functions = [nnx.relu, nnx.gelu, jnp.tanh, nnx.softmax, nnx.silu]
    return nnx.Sequential(
        nnx.Linear(FEATURES, 6, use_bias=bool(draw.random() < 0.5), rngs=rngs),
        norms[draw.integers(3)],
        functions[draw.integers(5)],
        nnx.Dropout(0.3, rngs=rngs),
        nnx.Linear(6, 2, rngs=rngs),
    ), {}


def nnx_over_time(draw, rngs):
    # Flax's fast variance, a difference of squares, cancels over the two steps of a short row.
    more = {"use_fast_variance": False, "rngs": rngs}
    norms = [
        nnx.GroupNorm(FEATURES, num_groups=2, **more),
        nnx.GroupNorm(FEATURES, num_groups=None, group_size=1, use_scale=False, **more),
        nnx.InstanceNorm(FEATURES, **more),
    ]
    return norms[draw.integers(3)], {}


def conv_options(draw):
    size, dilation = int(draw.integers(1, 4)), int(draw.integers(1, 3))
    stride, reach = int(draw.integers(1, 3)), (size - 1) * dilation
    paddings = ["VALID", "CAUSAL", reach, ((reach, 0),), ((0, reach),), 0]
    paddings += ["SAME", 1 if reach else 0] if stride == 1 else []
    return size, {
        "strides": stride,
        "kernel_dilation": dilation,
        "padding": paddings[draw.integers(len(paddings))],
        "feature_group_count": int(draw.choice([1, 2])),
        "use_bias": bool(draw.random() < 0.5),
    }


def nnx_conv(draw, rngs):
    size, more = conv_options(draw)
    return nnx.Conv(FEATURES, 4, size, rngs=rngs, **more), {"layouts": CONTIGUOUS}


def attention_options(draw):
    return {
        "qkv_features": int(draw.choice([4, 8])),
        "out_features": int(draw.choice([3, 4])),
        "use_bias": bool(draw.random() < 0.5),
        "dropout_rate": 0.2,
    }


def nnx_attention(draw, rngs):
    heads, more = int(draw.choice([1, 2])), attention_options(draw)
    more |= {"decode": False, "deterministic": True}
    layer = nnx.MultiHeadAttention(heads, FEATURES, rngs=rngs, **more)
    return layer, {"causal": bool(draw.random() < 0.5)}


def linen_recurrent(draw):
    def cell():
        hidden, kind = int(draw.integers(1, 5)), draw.integers(4)
        kinds = linen.LSTMCell, linen.OptimizedLSTMCell, linen.GRUCell, linen.SimpleCell
        return kinds[kind](hidden)

    if draw.random() < 0.4:
        return linen.Bidirectional(linen.RNN(cell()), linen.RNN(cell())), {}
    more = {"reverse": bool(draw.random() < 0.5), "keep_order": bool(draw.random() < 0.5)}
    return linen.RNN(cell(), **more), {}


def linen_steps(draw):
    norms = linen.LayerNorm(), linen.RMSNorm(), linen.BatchNorm(use_running_average=True)
    inside = [linen.Dense(6), norms[draw.integers(3)], linen.relu]
    return linen.Sequential([*inside, linen.Dropout(0.3, deterministic=True), linen.Dense(2)]), {}


def linen_conv(draw):
    size, more = conv_options(draw)
    return linen.Conv(4, (size,), **more), {"layouts": CONTIGUOUS}


def linen_attention(draw):
    heads, more = int(draw.choice([1, 2])), attention_options(draw)
    layer = linen.MultiHeadDotProductAttention(heads, deterministic=True, **more)
    return layer, {"causal": bool(draw.random() < 0.5)}


def of_nnx(make, draw, seed):
    module, more = make(draw, nnx.Rngs(seed))
    module.eval()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    causal = more.get("causal", False)

    def run(params, x):
        layer = nnx.merge(graph, params, rest, copy=True)
        if isinstance(layer, nnx.MultiHeadAttention):
            mask = nnx.make_causal_mask(x[..., 0]) if causal else None
            return layer(x, mask=mask)
        return layer(x)

    def source(params):
        return (nnx.merge(graph, params, rest),)

    return Model(source, params, run, more.get("layouts", ANY), causal)


def of_linen(make, draw, seed):
    module, more = make(draw)
    variables = module.init(jax.random.key(seed), jnp.ones((1, 6, FEATURES)))
    params, rest = variables["params"], {n: v for n, v in variables.items() if n != "params"}
    causal = more.get("causal", False)

    def run(params, x):
        mask = linen.make_causal_mask(x[..., 0]) if causal else None
        more = {"mask": mask} if isinstance(module, linen.MultiHeadDotProductAttention) else {}
        return module.apply({"params": params, **rest}, x, **more)

    def source(params):
        return module, {"params": params, **rest}

    return Model(source, params, run, more.get("layouts", ANY), causal)


FAMILIES = {
    "nnx_recurrent": (24, of_nnx, nnx_recurrent),
    "nnx_steps": (10, of_nnx, nnx_steps),
    "nnx_over_time": (4, of_nnx, nnx_over_time),
    "nnx_conv": (12, of_nnx, nnx_conv),
    "nnx_attention": (8, of_nnx, nnx_attention),
    "linen_recurrent": (20, of_linen, linen_recurrent),
    "linen_steps": (8, of_linen, linen_steps),
    "linen_conv": (8, of_linen, linen_conv),
    "linen_attention": (6, of_linen, linen_attention),
}
NAMES = [f"{family}-{n}" for family, (count, *_) in FAMILIES.items() for n in range(count)]


def draw(name: str) -> Model:
    """The model of a name, with weights that no initializer would draw."""
    family, number = name.split("-")
    generator = np.random.default_rng([list(FAMILIES).index(family), int(number)])
    _, of, make = FAMILIES[family]
    model = of(make, generator, int(number))
    model.params = random_like(model.params, generator)
    return model


def random_like(tree: Any, draw: np.random.Generator) -> Any:
    """Other values for all arrays of a tree."""
    return jax.tree.map(lambda a: jnp.asarray(draw.normal(0.1, 0.6, a.shape), a.dtype), tree)
