"""The models of `bench/rivals/models.py` in PyTorch, over padded, packed or nested rows."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.rivals import pytorch
from bench.rivals.models import Sizes, Weights

Forward = Callable[..., torch.Tensor]  # of the module, x and the mask


def blocks(sizes: Sizes, count: int) -> torch.nn.Module:
    options = {"dropout": 0.0, "layer_norm_eps": 1e-6, "activation": "gelu"}
    options |= {"batch_first": True, "norm_first": True}
    given = sizes.features, sizes.heads, sizes.mlp
    return torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(*given, **options) for _ in range(count)
    )


def weights_of_blocks(w: Weights) -> Weights:
    found = {}
    for k in sorted({int(name.split(".")[1]) for name in w}):
        to, of = f"{k}.", f"layers.{k}."
        heads = [of + f"attention.{name}." for name in ("query", "key", "value")]
        names = {"self_attn.out_proj": "attention.out", "linear1": "mlp_in", "linear2": "mlp_out"}
        norms = {"norm1": "attention_norm", "norm2": "mlp_norm"}
        found |= {
            to + "self_attn.in_proj_weight": torch.cat(
                [w[a + "kernel"].flatten(1).T for a in heads]
            ),
            to + "self_attn.in_proj_bias": torch.cat([w[a + "bias"].flatten() for a in heads]),
            **{f"{to}{a}.weight": w[f"{of}{b}.kernel"].flatten(0, -2).T for a, b in names.items()},
            **{f"{to}{a}.weight": w[f"{of}{b}.scale"] for a, b in norms.items()},
            **{f"{to}{a}.bias": w[f"{of}{b}.bias"] for a, b in (names | norms).items()},
        }
    return found


def over_padding(causal: bool) -> Forward:
    def forward(module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1]).isneginf()
        for block in module:
            seen = {"src_mask": hidden, "is_causal": True} if causal else {}
            x = block(x, src_key_padding_mask=~mask, **seen)
        return x

    return forward


def over_nested(module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The layers' own fast path, which is for inference alone."""
    rows = torch.nested.as_nested_tensor(
        [row[:n] for row, n in zip(x, mask.sum(1).tolist(), strict=True)]
    )
    for block in module:
        rows = block(rows)
    return torch.nested.to_padded_tensor(rows, 0.0, x.shape)


def convolutions(sizes: Sizes) -> torch.nn.Module:
    given = sizes.features, sizes.features, sizes.window
    return torch.nn.Sequential(
        *(
            layer
            for _ in range(3)
            for layer in (torch.nn.Conv1d(*given, padding="same"), torch.nn.GELU("tanh"))
        )
    )


def weights_of_convolutions(w: Weights) -> Weights:
    found = {}
    for name, value in w.items():
        _, k, end = name.split(".")
        kernel = end == "kernel"
        found[f"{k}.weight" if kernel else f"{k}.bias"] = (
            value.permute(2, 1, 0) if kernel else value
        )
    return found


def filled_by_hand(module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    x = x.transpose(1, 2)
    for layer in module:
        x = layer(torch.where(mask[:, None], x, 0.0))
    return x.transpose(1, 2)


def tagger(sizes: Sizes) -> torch.nn.Module:
    lstm = torch.nn.LSTM(sizes.features, sizes.features, batch_first=True, bidirectional=True)
    for name, parameter in lstm.named_parameters():
        if name.startswith("bias_hh"):
            parameter.data.zero_()
            parameter.requires_grad_(False)
    return torch.nn.ModuleList([lstm, torch.nn.Linear(2 * sizes.features, sizes.outputs)])


def weights_of_tagger(w: Weights) -> Weights:
    found = {"1.weight": w["layers.1.kernel"].T, "1.bias": w["layers.1.bias"]}
    for way, end in (("forward", ""), ("backward", "_reverse")):
        w_x, w_h, b = (w[f"layers.0.{way}.{name}"] for name in ("w_x", "w_h", "b"))
        names = "weight_ih", "weight_hh", "bias_ih"
        for name, value in zip(names, (w_x.T, w_h.T, b), strict=True):
            found[f"0.{name}_l0{end}"] = value
    return found


def over_packed(module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    lstm, last = module
    return last(pytorch.over_packed(lstm, x, mask.sum(1)))


class Peephole(torch.nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.dense = torch.nn.Linear(2 * sizes.features, 4 * sizes.features)
        self.peepholes = torch.nn.Parameter(torch.zeros(3, sizes.features))


def loop(module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Steps of Python over the whole rectangle: right padding comes after every real step."""
    h = c = torch.zeros_like(x[:, 0])
    p, found = module.peepholes, []
    for v in x.unbind(1):
        i, f, g, o = module.dense(torch.cat([v, h], -1)).chunk(4, -1)
        c = torch.sigmoid(f + p[0] * c) * c + torch.sigmoid(i + p[1] * c) * torch.tanh(g)
        h = torch.sigmoid(o + p[2] * c) * torch.tanh(c)
        found.append(h)
    return torch.stack(found, 1)


def weights_of_cell(w: Weights) -> Weights:
    return {
        "dense.weight": w["cell.dense.kernel"].T,
        "dense.bias": w["cell.dense.bias"],
        "peepholes": w["cell.peepholes"],
    }


MODELS = {
    "encoder": (lambda sizes: blocks(sizes, 2), weights_of_blocks, over_padding(causal=False)),
    "decoder": (lambda sizes: blocks(sizes, 1), weights_of_blocks, over_padding(causal=True)),
    "convolutions": (convolutions, weights_of_convolutions, filled_by_hand),
    "tagger": (tagger, weights_of_tagger, over_packed),
    "own cell": (Peephole, weights_of_cell, loop),
}


def model(name: str, sizes: Sizes, weights: Weights) -> tuple[torch.nn.Module, Forward, Callable]:
    """The module, its forward, and `gradients()` by the names of the weights."""
    torch.set_num_threads(os.cpu_count() or 1)
    make, layout, forward = MODELS[name]
    module, given = make(sizes), {k: torch.tensor(np.asarray(v)) for k, v in weights.items()}
    module.load_state_dict(layout(given), strict=False)
    trained = {k: p for k, p in module.named_parameters() if p.requires_grad}
    assert trained.keys() == layout(given).keys()

    def gradients() -> dict[str, np.ndarray]:
        """The layout is linear: what pulls a cotangent back through it is its own gradient."""
        leaves = {k: v.clone().requires_grad_() for k, v in given.items()}
        laid = layout(leaves)
        sum((laid[k] * p.grad).sum() for k, p in trained.items()).backward()
        return {k: leaf.grad.numpy() for k, leaf in leaves.items()}

    return module, forward, gradients
