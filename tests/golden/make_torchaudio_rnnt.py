"""Make `torchaudio_rnnt.npz`: transducer losses of torchaudio and their gradients.

    python tests/golden/make_torchaudio_rnnt.py

Needs torchaudio, which the tests do not: they read the file, and run `torchaudio_result` again
where torchaudio is installed.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("torchaudio_rnnt.npz")
BATCH, TIME, LABEL, CLASSES = 8, 4, 3, 5
BLANK = 2


def cases(seed: int) -> tuple[np.ndarray, ...]:
    """Logits, frame mask, label ids and label mask of random rows, with padding anywhere."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=3, size=(BATCH, TIME, LABEL + 1, CLASSES)).astype(np.float32)
    mask, label_mask = draw.random((BATCH, TIME)) < 0.7, draw.random((BATCH, LABEL)) < 0.7
    mask[:, 0] |= ~mask.any(axis=1)
    ids = draw.integers(0, CLASSES - 1, (BATCH, LABEL))
    return logits, mask, ids + (ids >= BLANK), label_mask


def torchaudio_result(seed: int) -> dict[str, np.ndarray]:
    """Each row alone without its padding: losses `[batch]` and gradients at real cells."""
    import torch
    import torchaudio.functional

    logits, mask, ids, label_mask = cases(seed)
    found = {"loss": np.zeros(BATCH, np.float32), "gradient": np.zeros_like(logits)}
    for row in range(BATCH):
        cells = np.ix_([row], mask[row], np.append(True, label_mask[row]))
        alone = torch.tensor(logits[cells], requires_grad=True)
        frames, labels = alone.shape[1], alone.shape[2] - 1
        loss = torchaudio.functional.rnnt_loss(
            alone,
            torch.tensor(ids[row, label_mask[row]][None], dtype=torch.int32),
            torch.tensor([frames], dtype=torch.int32),
            torch.tensor([labels], dtype=torch.int32),
            blank=BLANK,
        )
        loss.backward()
        found["loss"][row] = loss.item()
        found["gradient"][cells] = alone.grad.numpy()
    return found


if __name__ == "__main__":
    np.savez_compressed(PATH, **torchaudio_result(0))
