"""`torch.nn.LSTM` and `GRU`: over the whole rectangle, and over packed rows.

Packing and unpacking are timed: what comes in and goes out is a padded rectangle for all. On a CPU
PyTorch gets as many threads as there are cores.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bench.contest import Entrant, LeftOut
from bench.problem import WEIGHTS, Problem, Weights
from bench.rivals.program import Result, as_float32

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def padded(problem: Problem) -> Entrant:
    if problem.directions == 2 and problem.fill < 1:
        raise LeftOut("PyTorch's padded LSTM reads backward from the padding")
    return _build(problem, lambda module, x, lengths: module(x)[0])


def packed(problem: Problem) -> Entrant:
    def apply(module: torch.nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(module(rows)[0], batch_first=True, total_length=x.shape[1])
        return y

    return _build(problem, apply)


def _build(problem: Problem, apply: Callable[..., torch.Tensor]) -> Entrant:
    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    module = _module(problem).to(device)
    x = _tensor(problem.data.x, device).requires_grad_(problem.trains)
    mask = torch.tensor(problem.mask, device=device)[..., None]
    cotangent = _tensor(problem.data.cotangent, device)
    lengths = torch.tensor(problem.lengths)  # packing wants them on the host

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return apply(module, x, lengths)

    def train() -> tuple:
        module.zero_grad(set_to_none=True)
        x.grad = None
        y = apply(module, x, lengths)
        loss = torch.where(mask, y.float() * cotangent, 0.0).sum()
        loss.backward()
        return loss.detach(), x.grad

    def run() -> Any:
        value = train() if problem.trains else forward()
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    def result(value: Any) -> Result:
        if not problem.trains:
            return Result(y=_array(value)[problem.mask])
        loss, dx = value
        return Result(
            loss=_array(loss), dx=_array(dx)[problem.mask], weights=_gradients(problem, module)
        )

    run()  # some dtypes have no kernel
    return Entrant(run, result, {})


def _module(problem: Problem) -> torch.nn.Module:
    module = MODULES[problem.cell](
        problem.feature,
        problem.hidden,
        problem.layers,
        batch_first=True,
        bidirectional=problem.directions == 2,
        dtype=getattr(torch, problem.dtype),
    )
    for suffix, one in zip(_suffixes(problem), _flat(problem.data.weights), strict=True):
        w_x, w_h, b = map(_tensor, one)
        values = w_x.T, w_h.T, b, torch.zeros_like(b)
        for name, value in zip(NAMES, values, strict=True):
            getattr(module, name + suffix).data.copy_(value)
    return module


def _gradients(problem: Problem, module: torch.nn.Module) -> Weights:
    def one(suffix: str) -> Any:
        w_x, w_h, b = (_array(getattr(module, name + suffix).grad) for name in NAMES[:3])
        return WEIGHTS[problem.cell](w_x.T, w_h.T, b)

    each = list(map(one, _suffixes(problem)))
    return [each[k : k + problem.directions] for k in range(0, len(each), problem.directions)]


def _suffixes(problem: Problem) -> list[str]:
    ends = ("", "_reverse")[: problem.directions]
    return [f"_l{layer}{end}" for layer in range(problem.layers) for end in ends]


def _flat(weights: Weights) -> list:
    return [one for layer in weights for one in layer]


def _tensor(array: jax.Array, device: str = "cpu") -> torch.Tensor:
    """By way of float32, which holds every bfloat16: NumPy has none that PyTorch could read."""
    tensor = torch.tensor(as_float32(array), device=device)
    return tensor.to(getattr(torch, str(array.dtype)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
