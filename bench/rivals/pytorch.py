"""`torch.nn.LSTM` and `GRU`: over the whole rectangle, and over packed rows.

Packing and unpacking are timed: what comes in and goes out is a padded rectangle for all. On a CPU
PyTorch gets as many threads as there are cores.
"""

import os
from typing import Any

import jax
import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bench.contest import Entrant, LeftOut
from bench.problem import WEIGHTS, Problem
from bench.rivals.recurrent import Result, as_float32

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def over_packed(module: torch.nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, _ = pad_packed_sequence(module(rows)[0], batch_first=True, total_length=x.shape[1])
    return y


def build(problem: Problem, packed: bool) -> Entrant:
    if problem.directions == 2 and problem.fill < 1 and not packed:
        raise LeftOut("PyTorch's padded LSTM reads backward from the padding")
    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    module = _module(problem).to(device)
    x = _tensor(problem.data.x, device).requires_grad_(problem.trains)
    mask = torch.tensor(problem.mask, device=device)[..., None]
    cotangent = _tensor(problem.data.cotangent, device)
    lengths = torch.tensor(problem.lengths)  # packing wants them on the host

    def apply() -> torch.Tensor:
        return over_packed(module, x, lengths) if packed else module(x)[0]

    def train() -> tuple:
        module.zero_grad(set_to_none=True)
        x.grad = None
        loss = torch.where(mask, apply().float() * cotangent, 0.0).sum()
        loss.backward()
        return loss.detach(), x.grad

    def run() -> Any:
        with torch.inference_mode(not problem.trains):
            value = train() if problem.trains else apply()
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    def result(value: Any) -> Result:
        if not problem.trains:
            return Result(y=_array(value)[problem.mask])
        loss, dx = map(_array, value)
        slopes = [[_gradient(problem, module, end) for end in layer] for layer in _ends(problem)]
        return Result(loss=loss, dx=dx[problem.mask], weights=slopes)

    run()  # some dtypes have no kernel
    return Entrant(run, result)


def _module(problem: Problem) -> torch.nn.Module:
    sizes = problem.feature, problem.hidden, problem.layers
    options = {"bidirectional": problem.directions == 2, "dtype": getattr(torch, problem.dtype)}
    module = MODULES[problem.cell](*sizes, batch_first=True, **options)
    fill(module, [[tuple(map(_tensor, one)) for one in layer] for layer in problem.data.weights])
    return module


def fill(module: torch.nn.Module, weights: list[list[Any]]) -> None:
    """Put in `w_x`, `w_h` and `b` of each layer and direction; the second bias is 0."""
    for k, layer in enumerate(weights):
        for end, (w_x, w_h, b) in zip(("", "_reverse"), layer, strict=False):
            for name, value in zip(NAMES, (w_x.T, w_h.T, b, 0 * b), strict=True):
                getattr(module, f"{name}_l{k}{end}").data.copy_(value)


def _gradient(problem: Problem, module: torch.nn.Module, end: str) -> Any:
    w_x, w_h, b = (_array(getattr(module, name + end).grad) for name in NAMES[:3])
    return WEIGHTS[problem.cell](w_x.T, w_h.T, b)


def _ends(problem: Problem) -> list[list[str]]:
    """What the names of weights end in, by layer and direction."""
    ends = ("", "_reverse")[: problem.directions]
    return [[f"_l{layer}{end}" for end in ends] for layer in range(problem.layers)]


def _tensor(array: jax.Array, device: str = "cpu") -> torch.Tensor:
    """By way of float32, which holds every bfloat16: NumPy has none that PyTorch could read."""
    tensor = torch.tensor(as_float32(array), device=device)
    return tensor.to(getattr(torch, str(array.dtype)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
