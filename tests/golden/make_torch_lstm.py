"""Make `torch_lstm.npz`: values and gradients of PyTorch's LSTM over packed sequences.

    python tests/golden/make_torch_lstm.py

Needs PyTorch, which the tests do not: they read the file, and run `torch_result` again where
PyTorch is installed.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("torch_lstm.npz")
LENGTHS = (5, 3, 1)
TIME, FEATURE, HIDDEN = 6, 3, 4


def inputs() -> dict[str, np.ndarray]:
    """Data and weights, in the layout of jaxmask: gates i, f, g, o side by side."""
    draw = np.random.default_rng(0)
    shapes = {"x": (len(LENGTHS), TIME, FEATURE), "readout": (len(LENGTHS), TIME, 2 * HIDDEN)}
    for direction in ("forward", "backward"):
        shapes[f"{direction}_w_x"] = (FEATURE, 4 * HIDDEN)
        shapes[f"{direction}_w_h"] = (HIDDEN, 4 * HIDDEN)
        shapes[f"{direction}_b"] = (4 * HIDDEN,)
        for state in "hc":
            shapes[f"{direction}_{state}"] = (len(LENGTHS), HIDDEN)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def torch_result(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs, final states, and gradients of `sum(readout * y)` for a bidirectional LSTM."""
    import torch
    from torch.nn.utils import rnn

    layer = torch.nn.LSTM(FEATURE, HIDDEN, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            for name, ours in (("weight_ih", "w_x"), ("weight_hh", "w_h"), ("bias_ih", "b")):
                value = torch.from_numpy(arrays[f"{direction}_{ours}"].T.copy())
                getattr(layer, f"{name}_l0{suffix}").copy_(value)
            getattr(layer, f"bias_hh_l0{suffix}").zero_()
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    states = [
        torch.from_numpy(np.stack([arrays[f"{d}_{s}"] for d in ("forward", "backward")]))
        for s in "hc"
    ]
    packed = rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True)
    y, (h, c) = layer(packed, tuple(states))
    y, _ = rnn.pad_packed_sequence(y, batch_first=True, total_length=TIME)
    (torch.from_numpy(arrays["readout"]) * y).sum().backward()
    result = {"y": y, "h": h, "c": c, "grad_x": x.grad}
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        result[f"grad_{direction}_w_x"] = getattr(layer, f"weight_ih_l0{suffix}").grad.T
        result[f"grad_{direction}_w_h"] = getattr(layer, f"weight_hh_l0{suffix}").grad.T
        result[f"grad_{direction}_b"] = getattr(layer, f"bias_ih_l0{suffix}").grad
    return {name: value.detach().numpy() for name, value in result.items()}


if __name__ == "__main__":
    arrays = inputs()
    np.savez(PATH, **arrays, **{f"torch_{k}": v for k, v in torch_result(arrays).items()})
    print(f"wrote {PATH}")
