"""Make `torch_projection.npz`: an LSTM of PyTorch with `proj_size`, each row alone, with gradients.

python tests/golden/make_torch_projection.py
"""

from pathlib import Path

import numpy as np

FEATURES, HIDDEN, PROJECTED, LENGTHS = 3, 4, 2, (5, 3, 1)


def main() -> None:
    import torch  # not installed with the tests, which collect this file

    torch.manual_seed(0)
    layer = torch.nn.LSTM(FEATURES, HIDDEN, proj_size=PROJECTED, batch_first=True)
    x = torch.zeros(len(LENGTHS), max(LENGTHS), FEATURES)
    for row, length in enumerate(LENGTHS):
        x[row, :length] = torch.randn(length, FEATURES)
    x.requires_grad_()
    outputs = [layer(x[row : row + 1, :length]) for row, length in enumerate(LENGTHS)]
    sum(y.sin().sum() + c.sum() for y, (_, c) in outputs).backward()
    y = torch.zeros(len(LENGTHS), max(LENGTHS), PROJECTED)
    for row, (alone, _) in enumerate(outputs):
        y[row, : alone.shape[1]] = alone[0].detach()
    stored = {
        "x": x,
        "y": y,
        "lengths": torch.tensor(LENGTHS),
        "h": torch.cat([h[0] for _, (h, _) in outputs]),
        "c": torch.cat([c[0] for _, (_, c) in outputs]),
        "d_x": x.grad,
    }
    for name, parameter in layer.named_parameters():
        stored[name.removesuffix("_l0")] = parameter
        stored["d_" + name.removesuffix("_l0")] = parameter.grad
    arrays = {name: tensor.detach().numpy() for name, tensor in stored.items()}
    np.savez_compressed(Path(__file__).parent / "torch_projection.npz", **arrays)


if __name__ == "__main__":
    main()
