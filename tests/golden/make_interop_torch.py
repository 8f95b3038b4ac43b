"""Make `interop_torch.npz`: weights of PyTorch models by name, and what each makes of rows alone.

    python -m tests.golden.make_interop_torch

Needs PyTorch, which the tests do not: they load the weights by name into models of jaxmask.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("interop_torch.npz")
LENGTHS, FEATURES = (5, 2, 1), 4


def rows() -> dict[str, list[np.ndarray]]:
    """Rows of numbers, and rows of ids without 0."""
    draw = np.random.default_rng(0)
    numbers = [draw.normal(size=(n, FEATURES)).astype(np.float32) for n in LENGTHS]
    return {"x": numbers, "ids": [draw.integers(1, 6, n).astype(np.int32) for n in LENGTHS]}


def models() -> dict:
    """Modules of PyTorch by name; those whose name ends with `ids` take ids."""
    from torch import nn

    layer = {"dim_feedforward": 3, "batch_first": True, "dropout": 0.0}
    return {
        "lstm": nn.LSTM(FEATURES, 2, num_layers=2, bidirectional=True, batch_first=True),
        "gru": nn.GRU(FEATURES, 3, num_layers=2, batch_first=True),
        "rnn": nn.RNN(FEATURES, 3, nonlinearity="relu", batch_first=True),
        "bigru": nn.GRU(FEATURES, 2, bidirectional=True),
        "tagger_ids": nn.Sequential(
            nn.Embedding(6, FEATURES, padding_idx=0), nn.LSTM(FEATURES, 3), nn.Linear(3, 2)
        ),
        "norms": nn.Sequential(nn.LayerNorm(FEATURES), nn.RMSNorm(FEATURES, eps=1e-6)),
        "batch_norm": nn.BatchNorm1d(FEATURES),
        "conv": nn.Conv1d(FEATURES, 4, 3, padding=1, groups=2),
        "attention": nn.MultiheadAttention(FEATURES, 2, batch_first=True),
        "encoder": nn.TransformerEncoderLayer(FEATURES, 2, activation="gelu", **layer),
    }


def results() -> dict[str, np.ndarray]:
    """`model/weight` for each weight, and `model@row` for each result."""
    import torch

    from tests.oracles.torch_models import run

    torch.manual_seed(0)
    found = {}
    for name, module in models().items():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                torch.nn.init.uniform_(value, 0.2, 1.0)
        module.eval()
        if name.endswith("ids"):
            module[0].weight.data[0] = 0
        found |= {f"{name}/{n}": value.numpy() for n, value in module.state_dict().items()}
        for number, row in enumerate(rows()["ids" if name.endswith("ids") else "x"]):
            with torch.no_grad():
                x = torch.tensor(row)[None]
                y = run(module, x.long() if name.endswith("ids") else x)
            found[f"{name}@{number}"] = y[0].numpy()
    return found


if __name__ == "__main__":
    np.savez_compressed(PATH, **results())
    print(f"wrote {PATH}")
