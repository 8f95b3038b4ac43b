"""PyTorch models drawn at random, and each of them run on one row alone, without padding."""

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

FEATURES, TIME, IDS = 4, 6, 7
# By what a layer does with time: where its padding may lie.
ANY, CONTIGUOUS = ("right", "left", "holes"), ("right", "left")


@dataclasses.dataclass
class Model:
    """A module, what stands in its steps, and the layouts of padding that it has a meaning for."""

    name: str
    module: Any
    layouts: tuple[str, ...] = ANY
    lengths: tuple[int, ...] = (6, 3, 1, 0)
    ids: bool = False
    causal: bool = False
    dtype: Any = np.float32


def run(module: Any, x: torch.Tensor, causal: bool = False) -> torch.Tensor:
    """A row, `[1, time, features]`, through a module, whatever order of axes it has."""
    if isinstance(module, torch.nn.Sequential):
        for part in module:
            x = run(part, x, causal)
        return x
    if isinstance(module, torch.nn.RNNBase):
        return _by(module, x, module.batch_first)
    later = (x.shape[1], x.shape[1])
    square = torch.full(later, -torch.inf, dtype=x.dtype).triu(1) if causal else None
    if isinstance(module, torch.nn.MultiheadAttention):
        x = x if module.batch_first else x.transpose(0, 1)
        y, _ = module(x, x, x, attn_mask=square)
        return y if module.batch_first else y.transpose(0, 1)
    if isinstance(module, torch.nn.TransformerEncoderLayer | torch.nn.TransformerEncoder):
        layer = module.layers[0] if hasattr(module, "layers") else module
        return _by(module, x, layer.self_attn.batch_first, square)
    over_channels = ("Conv1d", "BatchNorm1d", "InstanceNorm1d", "GroupNorm", "Dropout1d")
    if type(module).__name__ in over_channels:
        return module(x.transpose(1, 2)).transpose(1, 2)
    return module(x)


def _by(module, x, batch_first, *more):
    y = module(x if batch_first else x.transpose(0, 1), *more)
    y = y[0] if isinstance(y, tuple) else y
    return y if batch_first else y.transpose(0, 1)


def recurrent(draw, features=FEATURES, out=None):
    kind = draw.choice(["LSTM", "GRU", "RNN"])
    more = {"nonlinearity": str(draw.choice(["tanh", "relu"]))} if kind == "RNN" else {}
    layers = int(draw.integers(1, 4))
    return getattr(torch.nn, kind)(
        features,
        out or int(draw.integers(1, 6)),
        num_layers=layers,
        bias=bool(draw.random() < 0.8),
        batch_first=bool(draw.random() < 0.5),
        bidirectional=bool(draw.random() < 0.5),
        dropout=0.3 if layers > 1 else 0.0,
        **more,
    )


def per_step(draw, features=FEATURES):
    """A stack of layers that act on each step alone."""
    layers, width = [], features
    for _ in range(draw.integers(1, 5)):
        out = int(draw.integers(1, 4)) * 2
        choices = [
            torch.nn.Linear(width, out, bias=bool(draw.random() < 0.7)),
            torch.nn.LayerNorm(width, elementwise_affine=bool(draw.random() < 0.8)),
            torch.nn.RMSNorm(width, eps=[None, 1e-5][draw.integers(2)]),
            torch.nn.BatchNorm1d(width, affine=bool(draw.random() < 0.8)),
            *(torch.nn.Dropout(0.4), torch.nn.Dropout1d(0.4), torch.nn.Identity()),
            *(torch.nn.ReLU(), torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.Tanh()),
            *(torch.nn.SiLU(), torch.nn.Sigmoid(), torch.nn.ELU(0.5), torch.nn.LeakyReLU(0.2)),
            *(torch.nn.Softplus(2.0), torch.nn.Mish(), torch.nn.SELU(), torch.nn.Hardswish()),
            *(torch.nn.Softmax(-1), torch.nn.LogSoftmax(-1), torch.nn.Hardsigmoid()),
            *(torch.nn.CELU(0.7), torch.nn.ReLU6(), torch.nn.Softsign(), torch.nn.LogSigmoid()),
        ]
        layer = choices[draw.integers(0 if draw.random() < 0.5 else 1, len(choices))]
        layers.append(layer)
        width = out if isinstance(layer, torch.nn.Linear) else width
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 3))


def convolution(draw, features=FEATURES):
    size, dilation = int(draw.integers(1, 5)), int(draw.integers(1, 3))
    reach, stride = (size - 1) * dilation, int(draw.integers(1, 4))
    padding = int(draw.integers(reach + 3))
    if stride == 1 and draw.random() < 0.3:
        padding = str(draw.choice(["same", "valid"]))
    groups = int(draw.choice([1, 2]))
    mode = str(draw.choice(["zeros", "zeros", "replicate"]))
    more = {"padding": padding, "padding_mode": mode, "dilation": dilation, "groups": groups}
    bias = bool(draw.random() < 0.7)
    return torch.nn.Conv1d(features, 2 * int(draw.integers(1, 4)), size, stride, bias=bias, **more)


def over_time(draw, features=FEATURES):
    affine = bool(draw.random() < 0.7)
    if draw.random() < 0.6:
        return torch.nn.GroupNorm(int(draw.choice([1, 2, 4])), features, affine=affine)
    return torch.nn.InstanceNorm1d(features, affine=affine)


def attention(draw, features=FEATURES):
    more = {"bias": bool(draw.random() < 0.7), "batch_first": bool(draw.random() < 0.5)}
    return torch.nn.MultiheadAttention(features, int(draw.choice([1, 2, 4])), dropout=0.2, **more)


def encoder_layer(draw, features=FEATURES):
    activations = ["relu", "gelu", torch.nn.SiLU(), torch.nn.GELU("tanh"), torch.nn.ReLU()]
    return torch.nn.TransformerEncoderLayer(
        features,
        int(draw.choice([1, 2])),
        dim_feedforward=int(draw.integers(2, 7)),
        dropout=float(draw.choice([0.0, 0.3])),
        activation=activations[draw.integers(len(activations))],
        layer_norm_eps=float(draw.choice([1e-5, 1e-3])),
        batch_first=bool(draw.random() < 0.5),
        norm_first=bool(draw.random() < 0.5),
        bias=bool(draw.random() < 0.8),
    )


def encoder(draw, features=FEATURES):
    norm = torch.nn.LayerNorm(features) if draw.random() < 0.5 else None
    return torch.nn.TransformerEncoder(
        encoder_layer(draw, features), int(draw.integers(1, 3)), norm, enable_nested_tensor=False
    )


def tagger(draw):
    """Ids in, logits out, with a few layers between them."""
    padding = [None, 0, 3][draw.integers(3)]
    layers = [torch.nn.Embedding(IDS, FEATURES, padding_idx=padding)]
    middle = recurrent(draw, out=4)
    width = 4 * (2 if middle.bidirectional else 1)
    layers += [torch.nn.Dropout(0.1), middle, torch.nn.LayerNorm(width)]
    if draw.random() < 0.5:
        layers.append(encoder_layer(draw, width))
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(width, 3))


FAMILIES = {
    "recurrent": (60, recurrent, {}),
    "per_step": (30, per_step, {}),
    "conv": (30, convolution, {"layouts": CONTIGUOUS}),
    "over_time": (12, over_time, {"lengths": (6, 3, 2, 0)}),
    "attention": (16, attention, {}),
    "encoder_layer": (20, encoder_layer, {}),
    "encoder": (12, encoder, {}),
    "tagger": (20, tagger, {"ids": True}),
}
NAMES = [f"{family}-{n}" for family, (count, *_) in FAMILIES.items() for n in range(count)]


def draw(name: str) -> Model:
    """The model of a name; every third in float64, every other one that attends causal."""
    family, number = name.split("-")
    seed = list(FAMILIES).index(family), int(number)
    generator = np.random.default_rng(seed)
    torch.manual_seed(int(generator.integers(1 << 30)))
    _, make, more = FAMILIES[family]
    module = make(generator)
    for value in module.parameters():  # not 1 and 0, as norms begin with
        torch.nn.init.normal_(value, 0.1, 0.6)
    for inside in module.modules():
        if isinstance(inside, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(inside.running_mean)
            torch.nn.init.uniform_(inside.running_var, 0.5, 2.0)
        if isinstance(inside, torch.nn.Embedding) and inside.padding_idx is not None:
            inside.weight.data[inside.padding_idx] = 0
    is_double = int(number) % 3 == 2
    module = (module.double() if is_double else module).eval()
    attends = family in ("attention", "encoder_layer", "encoder")
    dtype = np.float64 if is_double else np.float32
    return Model(name, module, causal=attends and int(number) % 2 == 1, dtype=dtype, **more)
